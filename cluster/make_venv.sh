#!/usr/bin/env bash
# A virtual environment on top of a site's TensorFlow, which stays as it is. On a login node:
#   module load TensorFlow/2.18          (whatever the site calls it: 2.18 with Keras 3.9 is the oldest that works)
#   cluster/make_venv.sh [FOLDER]        (FOLDER: .venv-cluster in the checkout)
#   module use $PWD/cluster/modules && module load tfcnn
set -euo pipefail
home=$(cd "$(dirname "$0")/.." && pwd)
venv=${1:-$home/.venv-cluster}
python=${PYTHON:-python3}

"$python" - <<'PYTHON' || exit 1
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if not (3, 11) <= sys.version_info < (3, 14):
    sys.exit(f"make_venv: Python {sys.version.split()[0]}; tfcnn needs 3.11 to 3.13 (PYTHON=python3.11 says which)")
try:
    import keras, tensorflow
except ImportError as error:
    sys.exit(f"make_venv: this Python has no TensorFlow ({error}): load the site's module first (module spider TensorFlow)")
def number(text):
    return tuple(int(part) for part in text.split(".")[:2])
if number(tensorflow.__version__) < (2, 18) or number(keras.__version__) < (3, 9):
    sys.exit(f"make_venv: TensorFlow {tensorflow.__version__} with Keras {keras.__version__} is too old: 2.18 with 3.9 "
             "is the oldest that works; ask for a newer module, or take a plain environment (make setup)")
print(f"make_venv: on TensorFlow {tensorflow.__version__}, Keras {keras.__version__} of {tensorflow.__path__[0]}")
PYTHON

"$python" -m venv --system-site-packages "$venv"
# What the site has is not replaced by another version of it.
"$venv/bin/python" - > "$venv/constraints.txt" <<'PYTHON'
import importlib.metadata
for name in ("tensorflow", "keras", "numpy", "h5py"):
    print(f"{name}=={importlib.metadata.version(name)}")
PYTHON
"$venv/bin/python" -c 'import setuptools, sys; sys.exit(int(setuptools.__version__.split(".")[0]) < 77)' 2>/dev/null ||
  "$venv/bin/python" -m pip install -q --disable-pip-version-check 'setuptools>=77'
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-build-isolation \
  --constraint "$venv/constraints.txt" --editable "$home"
# Lmod's list of what is loaded now, which the module file of tfcnn loads again.
tr ':' '\n' <<< "${LOADEDMODULES:-}" | sed '/^$/d; /^tfcnn\//d' > "$venv/site_modules.txt"
echo "make_venv: $venv is ready; module use $home/cluster/modules && module load tfcnn"
