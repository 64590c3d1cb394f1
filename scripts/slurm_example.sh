#!/usr/bin/env bash
# Trains on two nodes of eight GPUs under Slurm, requeued until the run is finished: sbatch scripts/slurm_example.sh
# Adapt the #SBATCH lines, the paths, and the recipe with its options at the end.
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

# Slurm sends USR1 three minutes before the time limit. torchrun forwards SIGTERM to the training, which writes a
# checkpoint after the current step and exits; the job is requeued and resumes.
requeue() {
  echo "time limit in three minutes: writing a checkpoint and requeueing"
  scancel --signal=TERM "$SLURM_JOB_ID.0"
  wait "$training"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap requeue USR1
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=150 # seconds that torchrun waits for the checkpoint, instead of 30

# Processes also talk over gloo, on the interface towards the first node. Where training says that it cannot choose one:
# export GLOO_SOCKET_IFNAME=ib0 # the interface that connects the nodes (ip -br -4 addr lists them), the same on all
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 torchrun \
  --nnodes="$SLURM_NNODES" --nproc-per-node=8 --max-restarts=3 \
  --rdzv-backend=c10d --rdzv-endpoint="$head:29500" --rdzv-id="$SLURM_JOB_ID" \
  recipes/imagenet_moco_augself.py --data.train train.beton --data.val val.beton --run-dir runs/imagenet &
training=$!
wait "$training"
