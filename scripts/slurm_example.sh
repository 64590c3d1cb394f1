#!/usr/bin/env bash
# Two nodes of eight GPUs under Slurm, requeued until the run is finished: sbatch scripts/slurm_example.sh
# Change the #SBATCH lines and the paths; any recipe and options go in place of the last lines.
#SBATCH --job-name=fastaugself
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
set -u

# Three minutes before the end, Slurm signals this script. torchrun hands SIGTERM on to the training, which makes a
# checkpoint after the current step and ends; the job goes back into the queue and resumes.
requeue() {
  echo "time is nearly up: checkpoint, then back into the queue"
  scancel --signal=TERM "$SLURM_JOB_ID.0"
  wait "$training"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap requeue USR1
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=150 # seconds that torchrun leaves for that, instead of 30

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 torchrun \
  --nnodes="$SLURM_NNODES" --nproc-per-node=8 --max-restarts=3 \
  --rdzv-backend=c10d --rdzv-endpoint="$head:29500" --rdzv-id="$SLURM_JOB_ID" \
  recipes/imagenet_moco_augself.py --data.train train.beton --data.val val.beton --run-dir runs/imagenet &
training=$!
wait "$training"
