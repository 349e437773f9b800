#!/bin/bash
# Micrographs shared among the tasks of an array, and a job that merges their tables once all have ended, however:
#
#     array=$(sbatch --parsable slurm_array.sh /data/*.dm4 --context context.yaml -o out)
#     sbatch --dependency=afterany:"$array" --wrap="contextem batch merge out"
#
# Which share a task has, contextem reads from SLURM's variables, as if --shard had been given.  What is done already is
# left out, so that the same two lines go on after a time limit or a failure.

#SBATCH --job-name=contextem
#SBATCH --array=1-8
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --output=contextem-%A_%a.log
#SBATCH --requeue

export OMP_NUM_THREADS=1 # the workers share the cores
exec contextem batch "$@" --workers "$SLURM_CPUS_PER_TASK" --memory "$((SLURM_MEM_PER_NODE * 3 / 4))M"
