# What the batch scripts share: the module, the job's step, and a training's way back into the queue.
[ -n "${LMOD_CMD:-}" ] && ! command -v module >/dev/null && source "$(dirname "$LMOD_CMD")/../init/bash"
module use "${TFCNN_HOME:-$SLURM_SUBMIT_DIR}/cluster/modules"
module load tfcnn || exit 2

# run_job APP FLAGS...: in every task of the job. Before the time limit SLURM sends this script SIGUSR1 (--signal); srun
# hands it on, a training saves a checkpoint and ends with 75, and the job goes back into the queue.
run_job() {
  local status step warned=
  srun tfcnn "$@" &
  step=$!
  trap 'warned=yes; kill -USR1 $step' USR1
  wait $step
  status=$?
  while kill -0 $step 2>/dev/null; do # the signal ended the waiting, not the step
    wait $step
    status=$?
  done
  [ -n "$warned" ] && [ "$status" = 75 ] && scontrol requeue "$SLURM_JOB_ID"
  exit "$status"
}
