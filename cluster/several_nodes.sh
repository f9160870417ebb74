#!/usr/bin/env bash
# A training on several nodes, a process each, with all GPUs of each (MultiWorkerMirroredStrategy):
#   sbatch --nodes=4 cluster/several_nodes.sh train_detector --batch_size=256 --dataset=voc --data=/scratch/$USER/VOCdevkit/VOC2007 --output_dir=voc
# A training that the time limit ends saves a checkpoint two minutes before and is queued again, until it is done.
#SBATCH --job-name=tfcnn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=128G
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
source "${TFCNN_HOME:-$SLURM_SUBMIT_DIR}/cluster/job.sh"
run_job "$@"
