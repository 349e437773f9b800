"""SLURM on this machine for the time of a test: one node of two CPUs, in namespaces of its own.

The daemons run under `unshare`: their network has a loopback device and nothing else, so whatever they listen on cannot
be reached from outside, and their first process ends when its standard input does, with which the kernel ends every
other, jobs included, however the test ended.  Accounting and cgroups are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "unshare", "nsenter", "ip")
PACKAGES = "slurmctld slurmd slurm-client munge iproute2"
"""What Debian calls what brings them."""
NAMESPACES = ("unshare", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
CPUS = 2
OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}
"""States that a job doesn't leave by itself."""
# cred_expire: a job that was put back into the queue starts again after as many seconds (120 by default).
# MinJobAge: the controller remembers jobs that are over, and is asked for them in place of an accounting.
SETTINGS = """
ClusterName=one_node
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
MinJobAge=3600
KillWait=2
ReturnToService=2
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000000 Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# 192.0.2.1, which is nobody's: SLURM resolves names only where there is an address besides 127.0.0.1.
# bash as the first process takes care of orphans, which the node would otherwise take for running still.
DAEMONS = """
ip link set lo up && ip address add 192.0.2.1/32 dev lo && hostname localhost || exit 1
cd "$1"
munged --foreground --force --key-file "$1/munge.key" --socket "$1/munge.socket" \\
  --pid-file "$1/munge.pid" --log-file "$1/munged.log" --seed-file "$1/munge.seed" > munged.out 2>&1 &
until [ -S munge.socket ]; do sleep 0.05; done
slurmctld -D > slurmctld.log 2>&1 &
slurmd -D > slurmd.log 2>&1 &
read -r
"""


class State(NamedTuple):
    """What became of a job, or of one task of an array."""

    name: str
    exit_code: int
    """What the script returned."""
    signal: int
    """What ended it, 0 where nothing did."""
    restarts: int


class Slurm:
    """A running cluster; `sbatch` gives it a job and `wait` says what became of it."""

    def __init__(self, folder: Path, first: int) -> None:
        self.folder = folder
        self.first = first
        """Process whose namespaces the cluster lives in."""

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None, **settings: Any) -> str:
        """Return what a command prints that runs beside the daemons, `env` added to its environment."""
        environment = {**_environment(self.folder), **(env or {})}
        entered = ["nsenter", f"--target={self.first}", "--net", "--uts", *map(str, command)]
        done = subprocess.run(entered, env=environment, capture_output=True, text=True, timeout=120, **settings)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def sbatch(
        self,
        script: str | Path,
        *arguments: str | Path,
        options: tuple[str, ...] = (),
        array: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Submit a script, by its text or path, with its arguments; return the number of the job."""
        if isinstance(script, str):
            text, script = script, self.folder / f"script{len(list(self.folder.glob('script*')))}.sh"
            script.write_text(text)
        if array is not None:
            options = (*options, f"--array={array}")
        command = ("sbatch", "--parsable", *options, script, *arguments)
        return int(self.run(*command, env=env, cwd=cwd or self.folder).split(";")[0])

    def states(self, job: int) -> dict[int, State]:
        """Return the state of each task of an array, by its number, or of a job that isn't one, by 0."""
        found = {}
        for line in self.run("scontrol", "--oneliner", "show", "job", str(job)).splitlines():
            fields = dict(re.findall(r"(\w+)=(\S*)", line))
            code, signal = map(int, fields["ExitCode"].split(":"))
            state = State(fields["JobState"], code, signal, int(fields["Restarts"]))
            for number in _numbers(fields.get("ArrayTaskId", "0")):
                found[number] = state
        return found

    def wait(self, job: int, timeout: float = 60.0, until: set[str] = OVER) -> dict[int, State]:
        """Return the states of a job's tasks once all of them are among `until`."""
        end = time.monotonic() + timeout
        while True:
            states = self.states(job)
            if states and all(state.name in until for state in states.values()):
                return states
            if time.monotonic() > end:
                raise TimeoutError(f"job {job}: after {timeout:g} s its tasks are {states}{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """Return what the daemons have written."""
        logs = sorted(self.folder.glob("*.log"))
        return "".join(f"\n--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment for commands: this process's, without what another SLURM may have put into it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
    return {**kept, "SLURM_CONF": str(folder / "slurm.conf")}


def _numbers(tasks: str) -> list[int]:
    """Return the numbers in "4", "1-3" or "1,3-5%2"."""
    spans = [list(map(int, span.split("-"))) for span in tasks.split("%")[0].split(",")]
    return [number for span in spans for number in range(span[0], span[-1] + 1)]


def missing() -> str | None:
    """Return why no cluster can be started here, in a sentence, or None."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"{', '.join(lacking)}: not found; install {PACKAGES}"
    if subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode:
        return "namespaces cannot be made here: unshare needs root"
    return None


@contextmanager
def one_node(timeout: float = 30.0) -> Iterator[Slurm]:
    """Start a cluster, hand it out once its node is idle, and end it with everything that runs on it."""
    with tempfile.TemporaryDirectory(prefix="slurm") as root:  # short: a socket's path has 107 characters at most
        folder = Path(root)
        (folder / "slurm.conf").write_text(SETTINGS.format(folder=folder, cpus=CPUS))
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")  # a GPU to ask for, which can compute nothing
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        command = [*NAMESPACES, "bash", "-c", DAEMONS, "daemons", str(folder)]
        parent = subprocess.Popen(command, stdin=subprocess.PIPE, env=_environment(folder))
        try:
            yield _when_idle(folder, parent, time.monotonic() + timeout)
        finally:
            parent.stdin.close()
            try:
                parent.wait(10)
            except subprocess.TimeoutExpired:
                parent.kill()
                parent.wait()


def _when_idle(folder: Path, parent: subprocess.Popen[bytes], end: float) -> Slurm:
    """Return the cluster once its node takes jobs."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    said = "nothing"
    while time.monotonic() < end and parent.poll() is None:
        time.sleep(0.1)
        if not (numbers := children.read_text().split()) or not (folder / "munge.socket").exists():
            continue
        cluster = Slurm(folder, int(numbers[0]))
        try:
            said = cluster.run("sinfo", "--noheader", "--format=%T").strip()
        except RuntimeError as error:
            said = str(error)
        if said == "idle":
            return cluster
    raise RuntimeError(f"SLURM did not start: its node is not idle but says {said!r}{Slurm(folder, 0).logs()}")
