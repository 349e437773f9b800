#!/bin/bash
# As slurm_array.sh, with a GPU for each task:
#
#     array=$(sbatch --parsable slurm_gpu.sh /data/*.dm4 --context context.yaml -o out)
#     sbatch --dependency=afterany:"$array" --wrap="contextem batch merge out"

#SBATCH --job-name=contextem
#SBATCH --array=1-4
#SBATCH --gpus=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=16G
#SBATCH --time=01:00:00
#SBATCH --output=contextem-%A_%a.log
#SBATCH --requeue

exec contextem batch "$@" --device cuda --memory "$((SLURM_MEM_PER_NODE * 3 / 4))M"
