"""A real Grid Engine on this machine: a master, and one host for jobs.

As a script, in `tests`: ``python -m clusters.gridengine up`` (or ``down``), below /tmp.
Needs to be root: the host starts jobs as their owners.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clusters.daemons import Cluster, find_ports

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAMS = Path("/usr/lib/gridengine")
SHARED = Path("/usr/share/gridengine")

GLOBAL = {
    "min_uid": "0",
    "min_gid": "0",
    "mailer": "/bin/true",
    "administrator_mail": "none",
    "load_report_time": "00:00:02",
    "execd_params": "INHERIT_ENV=false,ENABLE_ADDGRP_KILL=true",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01"
    " accounting_flush_time=00:00:00 joblog=false sharelog=00:00:00",
    "finished_jobs": "100",
}
PARALLEL_ENVIRONMENT = {
    "pe_name": "smp",
    "slots": "999",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "start_proc_args": "NONE",
    "stop_proc_args": "NONE",
    "allocation_rule": "$pe_slots",
    "control_slaves": "FALSE",
    "job_is_first_task": "TRUE",
    "urgency_slots": "min",
    "accounting_summary": "FALSE",
    "qsort_args": "NONE",
}
QUEUE = {
    "qname": "all.q",
    "hostlist": "localhost",
    "processors": "UNDEFINED",
    "shell": "/bin/sh",
    "load_thresholds": "NONE",
    "pe_list": "smp",
    "notify": "00:00:05",
}
SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
    "schedd_job_info": "true",
}


class GridEngine(Cluster):
    """A cell.

    Parameters
    ----------
    folder
        Where everything lives.
    slots
        How many jobs may run at a time.
    port
        The first of two ports; None: where they are free.
    """

    packages = ("gridengine-client", "gridengine-exec", "gridengine-master")
    answers = "gridengine-common shared/gridengineconfig boolean false\n"  # They make no cell.
    commands = ("qconf", "qsub", "sge_execd", "sge_qmaster")
    mark = "SGE_ROOT"

    def __init__(self, folder: Path, *, slots: int = 16, port: int | None = None) -> None:
        self.folder, self.slots, self.port = folder, slots, port or find_ports(2)

    @property
    def env(self) -> dict[str, str]:
        """What clients need."""
        return {
            "SGE_ROOT": str(self.folder / "root"),
            "SGE_CELL": "default",
            "SGE_ARCH": "lx-amd64",
            "SGE_QMASTER_PORT": str(self.port),
            "SGE_EXECD_PORT": str(self.port + 1),
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",  # before scripts that start the same programs
        }

    @property
    def _common(self) -> Path:
        return self.folder / "root" / "default" / "common"

    @property
    def _spool(self) -> Path:
        return self.folder / "spool"

    # ------------------------------------------------------------------ up

    def start(self) -> None:
        """Start what does not run."""
        new = not (self._spool / "qmaster").exists()
        self._make_folders()
        if new:
            self._fill_spool()
        self.start_master()
        for option in ("-ah", "-as"):  # It may have been added before.
            self.run("qconf", option, "localhost", check=False)
        if not self._pid("sge_execd", self._host_pid):
            self._launch("sge_execd")
        if new:
            self._configure()
        self._wait("the queue", self._works)

    def _make_folders(self) -> None:
        for path in (self._common, self._spool / "qmaster" / "job_scripts", self._spool / "execd"):
            path.mkdir(parents=True, exist_ok=True)
        for name in ("bin", "lib", "util", "utilbin"):
            if not (link := self.folder / "root" / name).is_symlink():
                link.symlink_to(f"/var/lib/gridengine/{name}")
        (self._common / "act_qmaster").write_text("localhost\n")
        # Clients are known by the name of their address, which is localhost, whatever the machine is called.
        (self._common / "host_aliases").write_text(f"localhost {' '.join(_names())}\n")
        settings = {
            "admin_user": "none",
            "default_domain": "none",
            "ignore_fqdn": "true",
            "spooling_method": "classic",
            "spooling_lib": "libspoolc",
            "spooling_params": self._spooling,
            "binary_path": str(self.folder / "root" / "bin"),
            "qmaster_spool_dir": str(self._spool / "qmaster"),
            "security_mode": "none",
            "listener_threads": "2",
            "worker_threads": "2",
            "scheduler_threads": "1",
        }
        (self._common / "bootstrap").write_text(_write(settings))

    @property
    def _spooling(self) -> str:
        return f"{self._common};{self._spool}/qmaster"

    def _fill_spool(self) -> None:
        settings = GLOBAL | {"execd_spool_dir": str(self._spool / "execd")}
        config = self.folder / "global"
        config.write_text(_change((SHARED / "default-configuration").read_text(), settings))
        resources = SHARED / "util" / "resources"
        self.run("spoolinit", "classic", "libspoolc", self._spooling, "init")
        for what, value in (
            ("configuration", config),
            ("complexes", resources / "centry"),
            ("usersets", resources / "usersets"),
            ("managers", "root"),
        ):
            self.run("spooldefaults", what, str(value))

    def _configure(self) -> None:
        queue = _change(self.run("qconf", "-sq"), QUEUE | {"slots": str(self.slots)})
        schedule = _change(self.run("qconf", "-ssconf"), SCHEDULER)
        for option, text in (
            ("-Ap", _write(PARALLEL_ENVIRONMENT)),
            ("-Aq", queue),
            ("-Msconf", schedule),
        ):
            path = self.folder / f"qconf{option}"
            path.write_text(text)
            self.run("qconf", option, str(path))

    def configure(self, **settings: str) -> dict[str, str]:
        """Change settings of the cell, and return what they were."""
        before = self.run("qconf", "-sconf")
        path = self.folder / "global"
        path.write_text(_change(before, settings))
        self.run("qconf", "-Mconf", str(path))
        return {name: _read(before)[name] for name in settings}

    def start_master(self) -> None:
        """Start the master, and wait for it."""
        if not self._pid("sge_qmaster", self._master_pid):
            (self._spool / "qmaster" / "heartbeat").unlink(missing_ok=True)  # It would be waited for.
            self._launch("sge_qmaster")
        self._wait("sge_qmaster", lambda: self._runs("qconf", "-sh"))

    def stop_master(self) -> None:
        """Stop the master; jobs go on."""
        self._stop("sge_qmaster", self._master_pid)

    def _launch(self, daemon: str) -> None:
        env = {**self.env, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        with (self.folder / f"{daemon}.out").open("ab") as out:
            subprocess.run(
                [PROGRAMS / daemon], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True
            )

    @property
    def _master_pid(self) -> Path:
        return self._spool / "qmaster" / "qmaster.pid"

    @property
    def _host_pid(self) -> Path:
        return self._spool / "execd" / "localhost" / "execd.pid"

    def _works(self) -> bool:
        """Whether the queue has a host that told what it is, and no state that keeps jobs away."""
        lines = [line.split() for line in self.run("qstat", "-f", check=False).splitlines()]
        return any(len(line) == 5 and line[4] != "-NA-" for line in lines if line[:1] == ["all.q@localhost"])

    # ------------------------------------------------------------------ down

    def cancel_all(self) -> None:
        """Cancel all jobs, and wait until they are gone."""
        if self.run("qstat", "-u", "*"):
            self.run("qdel", "-u", "*", check=False)
        self._wait("the end of all jobs", lambda: not self.run("qstat", "-u", "*"))

    def stop(self) -> None:
        """Stop everything."""
        if self._pid("sge_qmaster", self._master_pid):
            with suppress(AssertionError):
                self.cancel_all()
        self._stop("sge_execd", self._host_pid, signal.SIGKILL)  # They would take ten seconds.
        self._stop("sge_qmaster", self._master_pid, signal.SIGKILL)
        for pid, variables in self._processes():
            if any(variable.startswith("JOB_ID=") for variable in variables):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _names() -> list[str]:
    """Return what this machine calls itself, beside localhost."""
    host = os.uname().nodename
    lines = [line.partition("#")[0].split() for line in Path("/etc/hosts").read_text().splitlines()]
    named = [name for line in lines if line[:1] == ["127.0.0.1"] for name in line[1:]]
    names = dict.fromkeys([host, host.partition(".")[0], *named])
    return [name for name in names if name != "localhost"]


def _write(settings: Mapping[str, str]) -> str:
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _read(text: str) -> dict[str, str]:
    """Return the values of lines that a backslash carries on."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return dict(line.split(None, 1) for line in lines if line.strip() and line[0] != "#")


def _change(text: str, settings: Mapping[str, str]) -> str:
    """Return lines of names and values with other values."""
    lines = _read(text)
    assert lines.keys() >= settings.keys(), settings.keys() - lines.keys()
    return _write(lines | settings)


def main() -> None:
    """Bring a cell up or down by hand."""
    cluster = GridEngine(Path("/tmp/psyrun-testing-gridengine"), port=27700)
    if "down" in sys.argv:
        cluster.stop()
        shutil.rmtree(cluster.folder)
        return
    if cluster.lacks():
        cluster.install()
    cluster.start()
    print(cluster.run("qstat", "-f"))
    print(*(f"export {name}={value}" for name, value in cluster.env.items()), sep="\n")


if __name__ == "__main__":
    main()
