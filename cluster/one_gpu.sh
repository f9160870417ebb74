#!/usr/bin/env bash
# Any app on one GPU:
#   sbatch cluster/one_gpu.sh train_detector --dataset=voc --data=/scratch/$USER/VOCdevkit/VOC2007 --output_dir=voc
# A training that the time limit ends saves a checkpoint two minutes before and is queued again, until it is done.
#SBATCH --job-name=tfcnn
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
source "${TFCNN_HOME:-$SLURM_SUBMIT_DIR}/cluster/job.sh"
run_job "$@"
