# `make demo` and `make test` set everything up by themselves: a virtual environment in .venv, then the job.
PYTHON ?= $(shell for v in 3.12 3.13 3.11; do command -v python$$v >/dev/null && python$$v -c 'import venv' 2>/dev/null && echo python$$v && exit; done; echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
# Twice quiet: only errors. Without, setuptools warns of every editable installation.
INSTALL := -m pip install -qq
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: setup demo test test-all test-oldest test-extras test-cluster lint bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "tfcnn needs Python 3.11 to 3.13; say which with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setup: a virtual environment of $(PYTHON) in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "No venv module: apt install python3-venv"; exit 1; }
	@echo "setup: TensorFlow and the other packages, some minutes and 3 GB"
	@$(BIN)/python $(INSTALL) --upgrade pip setuptools
	@$(BIN)/python $(INSTALL) --editable '.[test]'
	@touch $@

demo: setup
	@$(BIN)/python -m apps.demo

test: lint
	@echo "tests, about fifteen minutes on two cores"
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: lint
	@$(BIN)/python -m pytest -n 2 --dist loadfile --hypothesis-profile=default

# The oldest pair that must work, in an environment of its own (Python 3.11 or 3.12).
OLDEST_PYTHON ?= $(shell for v in 3.12 3.11; do python$$v -c 'import venv' 2>/dev/null && echo python$$v && exit; done)
.venv-oldest/.installed: requirements.txt pyproject.toml
	@test -n "$(OLDEST_PYTHON)" || { echo "TensorFlow 2.18 needs Python 3.11 or 3.12"; exit 1; }
	@echo "setup: TensorFlow 2.18 with Keras 3.9 in .venv-oldest"
	@$(OLDEST_PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/python $(INSTALL) --upgrade pip setuptools
	@.venv-oldest/bin/python $(INSTALL) --editable '.[test]' 'tensorflow==2.18.*' 'keras==3.9.*'
	@touch $@

test-oldest: .venv-oldest/.installed
	@.venv-oldest/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

# What needs the packages of ONNX, Ray and opencv-contrib, in an environment of its own. opencv-contrib is put over
# OpenCV, whose files have the same names, once that is there.
.venv-extras/.installed: requirements.txt pyproject.toml
	@echo "setup: TensorFlow with the packages of ONNX, Ray and opencv-contrib in .venv-extras"
	@$(PYTHON) -m venv .venv-extras
	@.venv-extras/bin/python $(INSTALL) --upgrade pip setuptools
	@.venv-extras/bin/python $(INSTALL) --editable '.[test,onnx,ray,contrib]'
	@.venv-extras/bin/python $(INSTALL) --force-reinstall --no-deps 'opencv-contrib-python-headless>=4.10,<5'
	@touch $@

# One after the other: each of Ray's tests takes all cores.
test-extras: .venv-extras/.installed
	@.venv-extras/bin/python -m pytest -m extras

# The module file under the real Lmod, the batch scripts under a real SLURM; says so where it cannot be root.
test-cluster: setup
	@cluster/test.sh

lint: setup
	@echo "lint: ruff and the layers of imports"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "not formatted: run $(BIN)/ruff format"; exit 1; }
	@$(BIN)/lint-imports >$(VENV)/imports.txt || { cat $(VENV)/imports.txt; exit 1; }

bench: setup
	@$(BIN)/python $(INSTALL) --editable '.[bench]'
	for file in benchmarks/[a-z]*.py; do $(BIN)/python $$file; done

clean:
	rm -rf .venv .venv-oldest .venv-extras .venv-cluster out build *.egg-info
