#!/usr/bin/env bash
# classify, detect or embed over any number of pictures, a shard a task; then one result of all:
#   sbatch --array=1-100 cluster/array.sh detect /scratch/$USER/photos --save_images=false --output_dir=found
#   tfcnn merge found
# A task that was killed goes on where it was: sbatch --array=17 ... with the same number of shards, SHARDS=100.
#SBATCH --job-name=tfcnn
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log
source "${TFCNN_HOME:-$SLURM_SUBMIT_DIR}/cluster/job.sh"
run_job "$@" --shard="$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_COUNT}"
