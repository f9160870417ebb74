#!/usr/bin/env bash
# `make test-cluster`: the module file under the real Lmod, and the batch scripts under a real SLURM of two nodes that
# lie on this machine. Needs root and apt-get (Debian or Ubuntu); elsewhere it says so and is no failure. Everything that
# it starts, it ends; what it writes goes to a scratch folder.
set -u
home=$(cd "$(dirname "$0")/.." && pwd)
python=$home/.venv/bin/python

skip() { echo "test-cluster: skipped, $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "it needs root"
command -v apt-get >/dev/null || skip "it needs apt-get"
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null || [ ! -d /usr/share/lmod ]; then
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update && apt-get install -y --no-install-recommends lmod slurm-wlm munge; } >/dev/null 2>&1 ||
    skip "lmod, slurm-wlm and munge cannot be installed"
fi
pgrep -x slurmctld >/dev/null && skip "a SLURM runs on this machine already"

scratch=$(mktemp -d)
host=$(hostname -s)
munged=
end() {
  status=$?
  scancel --user=root >/dev/null 2>&1
  for file in "$scratch"/slurmd.*.pid "$scratch/slurmctld.pid"; do
    [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null
  done
  [ -n "$munged" ] && kill "$(cat "$munged")" 2>/dev/null
  [ -n "${named:-}" ] && sed '/ # tfcnn test-cluster$/d' /etc/hosts >"$scratch/hosts" && cat "$scratch/hosts" >/etc/hosts
  if [ "$status" != 0 ]; then tail -n 30 "$scratch"/ctld.log "$scratch"/slurmd.*.log "$scratch"/work/*.log; fi 2>/dev/null
  sleep 1
  rm -rf "$scratch"
  exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM
fail() { echo "test-cluster: $1" >&2; exit 1; }

# ------------------------------------------------------------------------------------------------- SLURM
if ! pgrep -x munged >/dev/null; then
  for folder in /run/munge /var/log/munge /var/lib/munge; do
    mkdir -p "$folder" && chown munge: "$folder"
  done
  su -s /bin/sh munge -c /usr/sbin/munged || skip "munged does not start here"
  munged=/run/munge/munged.pid
fi
if ! getent hosts n2 >/dev/null; then
  echo "127.0.0.1 n1 n2 # tfcnn test-cluster" >>/etc/hosts && named=yes
fi
export SLURM_CONF=$scratch/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmctldPidFile=$scratch/slurmctld.pid
SlurmdPidFile=$scratch/slurmd.%n.pid
SlurmctldPort=16817
SlurmdSpoolDir=$scratch/spool.%n
StateSaveLocation=$scratch/state
SlurmctldLogFile=$scratch/ctld.log
SlurmdLogFile=$scratch/slurmd.%n.log
SlurmUser=root
SlurmdUser=root
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
mkdir -p "$scratch/state" "$scratch/spool.n1" "$scratch/spool.n2" "$scratch/work"
slurmctld 2>/dev/null || skip "slurmctld does not start here"
slurmd -N n1 && slurmd -N n2 || skip "slurmd does not start here"
for _ in $(seq 100); do
  [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ] && break
  sleep 0.2
done
[ "$(sinfo -h -t idle -o %D)" = 2 ] || fail "the two nodes did not come up: $(sinfo -h)"
echo "test-cluster: two nodes of SLURM $(sinfo --version | cut -d' ' -f2) are up"

# ------------------------------------------------------------------------------------------------- the module
# A site's TensorFlow, as EasyBuild gives one: a module that puts it on PYTHONPATH. Here it is what .venv has, without
# tfcnn itself.
mkdir -p "$scratch/modules/TensorFlow" "$scratch/site"
for path in "$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"/*; do
  case ${path##*/} in *tfcnn* | *.pth) ;; *) ln -s "$path" "$scratch/site/" ;; esac
done
echo "prepend_path('PYTHONPATH', '$scratch/site')" >"$scratch/modules/TensorFlow/2.lua"
source /usr/share/lmod/lmod/init/bash
module use "$scratch/modules" "$home/cluster/modules"
export TFCNN_VENV=$scratch/venv TFCNN_HOME=$home
module load tfcnn 2>"$scratch/said" && fail "the module loads where there is no environment"
grep -q make_venv.sh "$scratch/said" || fail "the module does not say what is missing: $(cat "$scratch/said")"
module load TensorFlow
TF_CPP_MIN_LOG_LEVEL=3 PYTHON=$("$python" -c 'import sys; print(sys._base_executable)') "$home/cluster/make_venv.sh" "$TFCNN_VENV" >"$scratch/made" 2>&1 ||
  { cat "$scratch/made"; false; } || fail "make_venv.sh failed"
module purge
cd "$scratch/work" || exit 1
module load tfcnn && module -t list 2>&1 | grep -q TensorFlow || fail "tfcnn does not load the site's TensorFlow"
small="--model=digits --image_size=64 --save_images=false --quiet"
tfcnn classify $small --limit=2 || fail "tfcnn classify failed"
echo "test-cluster: module load tfcnn && tfcnn classify, done"

# ------------------------------------------------------------------------------------------------- a training on two nodes
# No GPUs here, and a core and little memory a node.
here="--gpus-per-node=0 --cpus-per-task=1 --mem=0 --requeue --open-mode=append --parsable"
tiny="--dataset=digits --net=tiny --image_size=16 --limit=48 --batch_size=8 --validate_epochs=0 --freeze_batch_norm
  --threads=1 --learning_rate=0.0001 --tensorboard=false --checkpoint_minutes=100"
# shellcheck disable=SC2086
training=$(sbatch $here -o training.log "$home/cluster/several_nodes.sh" train_classifier $tiny --steps=300 --output_dir=two) ||
  fail "sbatch of two nodes was refused"
tfcnn train_classifier $tiny --steps=300 --output_dir=one --quiet >/dev/null || fail "the training of one process failed"

wait_for_job() {
  for _ in $(seq 1200); do
    [ -z "$(squeue -h -j "$1" 2>/dev/null)" ] && return
    sleep 0.5
  done
  fail "job $1 does not end"
}
for _ in $(seq 1200); do # as SLURM does before the time limit: it is put back into the queue, and goes on
  ls two/checkpoints/step-*.npz >/dev/null 2>&1 && break
  sleep 0.1
done
scancel --batch --signal=USR1 "$training"
for _ in $(seq 200); do
  [ "$(squeue -h -j "$training" -o %T)" = PENDING ] && scontrol update JobId="$training" StartTime=now && break
  sleep 0.2
done
wait_for_job "$training"
python3 - <<'PYTHON' || fail "the training on two nodes"
import glob, json, sys
import numpy as np
log = open("training.log").read()
for words in ("worker 0 (n1:", "of 2 on", "Stopped by a signal", "Going on from step", "see two/index.html"):
    if words not in log:
        sys.exit(f"{words!r} is not in its log:\n{log}")
one, two = (np.load(sorted(glob.glob(f"{name}/checkpoints/step-*.npz"))[-1]) for name in ("one", "two"))
names = [name for name in one.files if name.startswith("weights/")]
apart = max(float(np.abs(one[name] - two[name]).max()) for name in names)
if apart > 1e-6:
    sys.exit(f"the weights of two nodes and of one process are {apart} apart")
print(f"test-cluster: two nodes trained, were stopped and went on; their weights and those of one process are {apart:.1e} apart")
PYTHON

# ------------------------------------------------------------------------------------------------- an array of shards
mkdir photos
python3 - <<'PYTHON'
import numpy as np
from PIL import Image
for number in range(90):
    noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(f"photos/{number:02}.png")
PYTHON
work="classify photos $small --batch_size=1 --threads=1"
# shellcheck disable=SC2086
array=$(sbatch $here -a 1-3 -o array-%a.log "$home/cluster/array.sh" $work --output_dir=parts) ||
  fail "sbatch of an array was refused"
for _ in $(seq 1200); do # the second is killed as soon as it has begun
  [ "$(wc -l 2>/dev/null <parts/shard-2-of-3/journal.jsonl)" -gt 1 ] 2>/dev/null && break
  sleep 0.05
done
scancel --signal=KILL "${array}_2"
wait_for_job "$array"
if tfcnn merge parts 2>said; then
  echo "test-cluster: the second shard was done before it could be killed"
else
  grep -q "shard 2/3" said || fail "merge does not name the shard that is missing: $(cat said)"
fi
# shellcheck disable=SC2086
again=$(SHARDS=3 sbatch $here --export=ALL -a 2 -o array-again.log "$home/cluster/array.sh" $work --output_dir=parts)
wait_for_job "$again"
tfcnn merge parts >/dev/null || fail "the shards cannot be merged: $(cat array-*.log)"
# shellcheck disable=SC2086
tfcnn $work --output_dir=whole >/dev/null || fail "classify failed"
python3 - <<'PYTHON' || fail "merged shards are not the run over everything"
import json, sys
parts, whole = (json.load(open(f"{name}/results.json")) for name in ("parts", "whole"))
differing = [name for name in whole if parts[name] != whole[name]]
if set(differing) - {"seconds", "flags", "images_per_second", "device"} or len(whole["images"]) != 90:
    sys.exit(f"they differ in {differing}")
print("test-cluster: an array of three shards, one killed and run again, is the run over everything")
PYTHON
