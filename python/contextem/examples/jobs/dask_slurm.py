"""Micrographs classified by dask workers that SLURM starts: as many as it has room for, up to eight.

    python dask_slurm.py /data/*.dm4 --context context.yaml -o out

It needs the extra `jobqueue`, and runs where both sbatch is found and the nodes reach it: on a login node, as a rule.
What the cluster wants besides, such as a partition or an account, is best said in ~/.config/dask/jobqueue.yaml.
"""

import subprocess
import sys

from contextem._extras import needs_extra

with needs_extra("jobqueue"):
    from dask_jobqueue.slurm import SLURMCluster


def main() -> int:
    """Run contextem batch with a cluster for the time it takes, and return its exit status."""
    with SLURMCluster(
        cores=2,
        processes=1,  # with two threads
        memory="8GB",
        walltime="04:00:00",
        job_script_prologue=["export OMP_NUM_THREADS=1"],  # the threads are dask's
        log_directory="contextem-logs",
    ) as cluster:
        cluster.adapt(minimum_jobs=1, maximum_jobs=8)
        command = [sys.executable, "-m", "contextem.cli", "batch", *sys.argv[1:]]
        return subprocess.run([*command, "--scheduler", cluster.scheduler_address], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
