"""Hosts of the allocation that a process runs in: that of Slurm, Grid Engine, or PBS."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psyrun.errors import SchedulerError, TaskFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SRUN = ("srun", "--overlap", "--nodes=1", "--ntasks=1", "--cpu-bind=none", "--quiet")


@dataclass(frozen=True, slots=True)
class Host:
    """A host that runs jobs.

    Parameters
    ----------
    name
        Its name.
    slots
        How many cores to use; 0: all that it grants.
    start
        Command that starts a program there; empty: the command for all hosts, and the name.
    attached
        Whether the program ends with that command.
    """

    name: str
    slots: int
    start: Sequence[str] = ()
    attached: bool = False


def find_allocation(env: Mapping[str, str]) -> list[Host]:
    """Return the hosts that a batch system granted to this process.

    Raises
    ------
    SchedulerError
        If Slurm does not tell its nodes.
    TaskFileError
        If there are none.
    """
    for variable, find in _KINDS.items():
        if variable in env:
            try:
                hosts = list(find(env))
            except (OSError, ValueError, LookupError) as error:
                raise TaskFileError(f"Hosts.from_allocation(): {variable} names no hosts: {error}") from error
            if not hosts:
                raise TaskFileError(f"Hosts.from_allocation(): {variable} names no hosts: {env[variable]}")
            return hosts
    hint = "start psy inside a job of Slurm, Grid Engine, or PBS"
    raise TaskFileError(f"Hosts.from_allocation(): there is no allocation; {hint}")


def _find_in_gridengine(env: Mapping[str, str]) -> Iterator[Host]:
    for line in Path(env["PE_HOSTFILE"]).read_text().splitlines():
        if words := line.split():
            yield Host(words[0], int(words[1]), attached=True)


def _find_in_pbs(env: Mapping[str, str]) -> Iterator[Host]:
    for name, slots in Counter(Path(env["PBS_NODEFILE"]).read_text().split()).items():
        yield Host(name, slots, attached=True)


def _find_in_slurm(env: Mapping[str, str]) -> Iterator[Host]:
    """Yield the nodes of a job of Slurm; steps that share its cores start programs there."""
    argv = ["scontrol", "show", "hostnames", env["SLURM_JOB_NODELIST"]]
    try:
        names = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    except OSError as error:
        raise SchedulerError(argv, 127, str(error)) from error
    except subprocess.CalledProcessError as error:
        raise SchedulerError(argv, error.returncode, error.stderr + error.stdout) from error
    for name, cpus in zip(names, parse_cpus(env["SLURM_JOB_CPUS_PER_NODE"])):
        yield Host(name, cpus, (*_SRUN, f"--nodelist={name}", f"--cpus-per-task={cpus}"), attached=True)


def parse_cpus(text: str) -> list[int]:
    """Return numbers of cores, one for each node.

    Examples
    --------
    >>> parse_cpus("4(x2),8")
    [4, 4, 8]
    """
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(cpus) for cpus, nodes in found for _ in range(int(nodes or 1))]


_KINDS = {
    "SLURM_JOB_NODELIST": _find_in_slurm,
    "PE_HOSTFILE": _find_in_gridengine,
    "PBS_NODEFILE": _find_in_pbs,
}
