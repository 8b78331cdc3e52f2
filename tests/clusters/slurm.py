"""A real Slurm on this machine: a controller, nodes that are processes, and on request accounting.

As a script, in `tests`: ``python -m clusters.slurm up`` (or ``down``), with four nodes below /tmp.
Needs to be root: nodes start jobs as their owners.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clusters.daemons import Cluster, find_ports, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = ("munge", "slurm-client", "slurmctld", "slurmd")
ACCOUNTING_PACKAGES = ("mariadb-client-core", "mariadb-server-core", "slurm-wlm-mysql-plugin", "slurmdbd")
HOST_PACKAGES = ("iproute2",)
COMMANDS = ("munged", "sbatch", "slurmctld", "slurmd")
ACCOUNTING_COMMANDS = ("mariadbd", "slurmdbd")
HOST_COMMANDS = ("ip", "nsenter", "unshare")
GROUPS = ("freezer", "memory", "cpuacct")

CONFIG = {
    "ClusterName": "testing",
    "AuthType": "auth/munge",
    "SlurmUser": "root",
    "SlurmdUser": "root",
    "MpiDefault": "none",
    "SwitchType": "switch/none",
    "PropagateResourceLimits": "NONE",
    "SlurmdParameters": "config_overrides",  # nodes claim more than the machine has
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_Core_Memory",
    "DefMemPerCPU": "300",
    "MaxArraySize": "100001",
    "MaxJobCount": "200000",
    "MinJobAge": "300",
    "SchedulerType": "sched/backfill",
    "SchedulerParameters": "sched_min_interval=10000,sched_interval=1,batch_sched_delay=0,bf_interval=1,"
    "default_queue_depth=1000",
    "SlurmctldTimeout": "30",
    "SlurmdTimeout": "10",
    "InactiveLimit": "0",
    "KillWait": "3",
    "OverTimeLimit": "0",
    "CompleteWait": "0",
    "ReturnToService": "2",
    "JobRequeue": "1",
    "JobCompType": "jobcomp/none",
    "JobAcctGatherFrequency": "task=1",
}


class Slurm(Cluster):
    """A cluster.

    Parameters
    ----------
    folder
        Where everything lives.
    nodes, cpus, memory
        How many nodes, and what each claims to have (MiB).
    port
        The first of the ports; None: where they are free.
    accounting
        Whether there is a database of jobs and limits.
    hosts
        Whether the controller and each node have a network and a host name of their own.
    partitions
        Further partitions of all nodes, each ``NAME SETTING=VALUE ...``.
    config
        Settings of slurm.conf that replace those above.
    """

    mark = "SLURM_CONF"

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 4,
        cpus: int = 4,
        memory: int = 4000,
        port: int | None = None,
        accounting: bool = False,
        hosts: bool = False,
        partitions: Sequence[str] = (),
        config: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.nodes, self.cpus, self.memory = folder, nodes, cpus, memory
        self.port, self.accounting, self.hosts = port or find_ports(nodes + 11), accounting, hosts
        self.partitions, self.config = partitions, config or {}
        self.name = f"c{self.port}"  # No other cluster here has it: nodes share cgroups, hosts a kernel.
        self.net = f"10.213.{self.port // 100 % 256}"
        self._database: subprocess.Popen[bytes] | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages that it takes."""
        more = ACCOUNTING_PACKAGES if self.accounting else ()
        return PACKAGES + more + (HOST_PACKAGES if self.hosts else ())

    @property
    def commands(self) -> tuple[str, ...]:
        """The programs that it takes."""
        more = ACCOUNTING_COMMANDS if self.accounting else ()
        return COMMANDS + more + (HOST_COMMANDS if self.hosts else ())

    @property
    def env(self) -> dict[str, str]:
        """What clients need."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def lacks(self) -> str | None:
        """Return what keeps it from being started here; None: nothing."""
        return super().lacks() or (_lacks_networks() if self.hosts else None)

    def node(self, number: int) -> str:
        """Return the name of a node, counted from 1."""
        return f"{self.name}n{number}"

    # ------------------------------------------------------------------ up

    def start(self) -> None:
        """Start what does not run."""
        for name in ("log", "run", "state", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o755)
        self._start_munge()
        if self.hosts:
            self._make_hosts()
        self.configure()
        if self.accounting:
            self._start_database()
        self.start_controller()
        for number in range(1, self.nodes + 1):
            self.start_node(number)
        self.wait_for_nodes()

    def configure(self, **config: str) -> None:
        """Write slurm.conf; settings given here hold until the next call."""
        socket = self.folder / "munge" / "socket"
        host = f"ctl({self.net}.253)" if self.hosts else f"{os.uname().nodename.split('.')[0]}(127.0.0.1)"
        lines = {
            **CONFIG,
            "SlurmctldHost": host,
            "SlurmctldPort": str(self.port),
            "AuthInfo": f"socket={socket}",
            "CommunicationParameters": "NoAddrCache" if self.hosts else "NoInAddrAny,NoCtldInAddrAny",
            "StateSaveLocation": str(self.folder / "state"),
            "SlurmdSpoolDir": f"{self.folder}/spool/%n",
            "SlurmctldPidFile": str(self.folder / "run" / "slurmctld.pid"),
            "SlurmdPidFile": f"{self.folder}/run/slurmd.%n.pid",
            "SlurmctldLogFile": str(self.folder / "log" / "slurmctld.log"),
            "SlurmdLogFile": f"{self.folder}/log/slurmd.%n.log",
            **self._tracking(),
            **self._accounting(socket),
            **self.config,
            **config,
        }
        last = self.nodes
        where = f"NodeHostname={self.name}n[1-{last}] NodeAddr={self.net}.[1-{last}]"
        if not self.hosts:
            where = f"NodeHostname={os.uname().nodename.split('.')[0]} NodeAddr=127.0.0.1"
        ports = f"{self.port + 11}-{self.port + 10 + last}"
        nodes = (
            f"NodeName={self.name}n[1-{last}] {where} Port=[{ports}] CPUs={self.cpus}"
            f" Sockets=1 CoresPerSocket={self.cpus} ThreadsPerCore=1 RealMemory={self.memory} State=UNKNOWN"
        )
        partition = "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP"
        more = [f"PartitionName={line} Nodes=ALL MaxTime=INFINITE DefaultTime=60" for line in self.partitions]
        text = [f"{name}={value}" for name, value in lines.items()] + [nodes, partition, *more]
        (self.folder / "slurm.conf").write_text("\n".join(text) + "\n")
        (self.folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\nConstrainSwapSpace=no\n"
        )

    @property
    def limits_memory(self) -> bool:
        """Whether jobs that use too much memory are ended at once."""
        return all(os.path.ismount(f"/sys/fs/cgroup/{group}") for group in GROUPS)

    def _tracking(self) -> dict[str, str]:
        if self.limits_memory:
            return {
                "ProctrackType": "proctrack/cgroup",
                "TaskPlugin": "task/cgroup",
                "JobAcctGatherType": "jobacct_gather/cgroup",
            }
        return {
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherParams": "OverMemoryKill",
        }

    def _accounting(self, socket: Path) -> dict[str, str]:
        if not self.accounting:
            return {"AccountingStorageType": "accounting_storage/none"}
        return {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "127.0.0.1",
            "AccountingStoragePort": str(self.port + 1),
            "AccountingStoragePass": str(socket),
            "AccountingStorageEnforce": "limits",
        }

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        if self._pid("munged", folder / "pid"):
            return
        key, socket = folder / "key", folder / "socket"
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(os.urandom(1024))
        files = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        options = [f"--{option}={folder / name}" for option, name in files.items()]
        subprocess.run(["munged", "--force", *options], check=True, capture_output=True)
        self._wait("munged", lambda: self._runs("munge", "-n", "-S", str(socket)))

    def _start_database(self) -> None:
        data, socket = self.folder / "mysql", self.folder / "run" / "mysql.socket"
        base = ["--no-defaults", f"--datadir={data}", "--user=root"]
        if not data.exists():
            make = ["mariadb-install-db", *base, "--auth-root-authentication-method=socket", "--skip-test-db"]
            subprocess.run(make, check=True, capture_output=True)
        pid = self.folder / "run" / "mariadbd.pid"
        if not self._pid("mariadbd", pid):
            more = [f"--socket={socket}", f"--pid-file={pid}", "--skip-networking"]
            more += ["--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
            more += ["--innodb-flush-log-at-trx-commit=0"]
            with (self.folder / "log" / "mariadbd.log").open("ab") as log:
                self._database = subprocess.Popen(
                    ["mariadbd", *base, *more], stdout=log, stderr=log, start_new_session=True
                )
        client = ["mariadb", "--no-defaults", "-S", str(socket), "-e"]
        self._wait("mariadbd", lambda: self._runs(*client, "select 1"))
        subprocess.run(
            [*client, "create database if not exists slurm_acct_db"], check=True, capture_output=True
        )
        if self._pid("slurmdbd", self.folder / "run" / "slurmdbd.pid"):
            return
        settings = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder / 'munge' / 'socket'}",
            "DbdHost": "localhost",
            "DbdPort": str(self.port + 1),
            "SlurmUser": "root",
            "LogFile": str(self.folder / "log" / "slurmdbd.log"),
            "PidFile": str(self.folder / "run" / "slurmdbd.pid"),
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "localhost",
            "StorageUser": "root",
            "StorageLoc": "slurm_acct_db",
            "CommitDelay": "1",
        }
        path = self.folder / "slurmdbd.conf"
        path.touch(0o600)
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        env = os.environ | self.env | {"MYSQL_UNIX_PORT": str(socket)}
        subprocess.run(["slurmdbd"], env=env, check=True, capture_output=True)
        self._wait("slurmdbd", lambda: self._runs("sacctmgr", "-n", "show", "cluster"))
        self.run("sacctmgr", "-i", "add", "cluster", "testing", check=False)
        self.run("sacctmgr", "-i", "add", "account", "lab", check=False)
        self.run("sacctmgr", "-i", "add", "user", "root", "account=lab", check=False)

    def start_controller(self) -> None:
        """Start the controller, and wait for it."""
        if not self._pid("slurmctld"):
            self._launch("ctl", "slurmctld", "-f", self.env["SLURM_CONF"])
        self._wait("slurmctld", lambda: self._runs("scontrol", "ping"))

    def stop_controller(self) -> None:
        """Stop the controller; jobs go on."""
        self._stop("slurmctld")

    def reconfigure(self, **config: str) -> None:
        """Let the controller begin anew with other settings; it keeps its queue."""
        self.stop_controller()
        self.configure(**config)
        self.start_controller()
        self.wait_for_nodes()

    def start_node(self, number: int) -> None:
        """Start a node's daemon."""
        name = self.node(number)
        if self._pid("slurmd", self.folder / "run" / f"slurmd.{name}.pid"):
            return
        (self.folder / "spool" / name).mkdir(parents=True, exist_ok=True)
        self._launch(name, "slurmd", "-f", self.env["SLURM_CONF"], "-N", name)

    def wait_for_nodes(self) -> None:
        """Wait until all nodes work."""

        def work() -> bool:
            states = self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()
            good = ("idle", "mixed", "allocated", "completing")
            nodes = dict(line.split() for line in states)
            bad = [name for name, state in nodes.items() if state.startswith(("down", "drain", "fail"))]
            if bad:
                self.run("scontrol", "update", f"nodename={','.join(bad)}", "state=resume", check=False)
            return sum(state in good for state in nodes.values()) == self.nodes

        self._wait("the nodes", work)

    # ------------------------------------------------------------------ down

    def cancel_all(self) -> None:
        """Cancel all jobs, and wait until they are gone."""
        # Of arrays, since the id of an element means nothing any more once those that wait were cancelled.
        jobs = set(self.run("squeue", "-h", "-r", "-o", "%F").split())
        if jobs:
            self.run("scancel", *sorted(jobs), check=False)
        self._wait("the end of all jobs", lambda: not self.run("squeue", "-h", "-o", "%A"))

    def stop(self) -> None:
        """Stop everything."""
        if self._pid("slurmctld"):
            with suppress(AssertionError):
                self.cancel_all()
        for number in range(1, self.nodes + 1):
            self._stop("slurmd", self.folder / "run" / f"slurmd.{self.node(number)}.pid")
        for name in ("slurmctld", "slurmdbd", "mariadbd"):
            self._stop(name)
        if self._database is not None:
            self._database.wait(30)
        self._stop("munged", self.folder / "munge" / "pid")
        self._end_what_is_left()
        for group in Path("/sys/fs/cgroup").glob(f"*/slurm_{self.name}n*"):
            for path in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
                with suppress(OSError):
                    path.rmdir()
            with suppress(OSError):
                group.rmdir()
        if self.hosts:
            self._remove_hosts()

    def kill_node(self, number: int) -> None:
        """End a node's daemon and the jobs on it, as a power cut does."""
        name = self.node(number)
        victims = self.processes_of(number)
        self._stop("slurmd", self.folder / "run" / f"slurmd.{name}.pid", signal.SIGKILL)
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes_of(self, number: int) -> list[int]:
        """Return the processes of jobs on a node, and the daemons that tend them."""
        found = set()
        for pid, variables in self._processes():
            if f"SLURMD_NODENAME={self.node(number)}" in variables:
                with suppress(OSError):
                    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                    found |= {pid} | ({parent} if name_of(parent) == "slurmstepd" else set())
        return sorted(found)

    def _end_what_is_left(self) -> None:
        """End jobs that were cut off, and daemons that for ever try to tell the controller of their end."""
        for pid, variables in self._processes():
            of_a_job = any(variable.startswith("SLURMD_NODENAME=") for variable in variables)
            if of_a_job or name_of(pid) in ("slurmd", "slurmstepd"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # ------------------------------------------------------------------ hosts of their own

    def _launch(self, host: str, *argv: str) -> None:
        if self.hosts:
            named = ["bash", "-c", 'hostname "$0" && exec "$@"', host]
            argv = ("nsenter", f"--net={self._space(host)}", "unshare", "--uts", *named, *argv)
        subprocess.run(argv, env=os.environ | self.env, check=True, capture_output=True)

    def _space(self, host: str) -> Path:
        return Path("/run/netns", f"{self.name}-{host}")

    def _make_hosts(self) -> None:
        """Give each host a network of its own, and a wire to the switch that connects them."""
        if not Path("/sys/class/net", self.name).exists():
            _ip("link", "add", self.name, "type", "bridge")
            _ip("addr", "add", f"{self.net}.254/24", "dev", self.name)
            _ip("link", "set", self.name, "up")
        for host, last in [("ctl", 253), *((self.node(i), i) for i in range(1, self.nodes + 1))]:
            space = self._space(host)
            if space.exists():
                continue
            _ip("netns", "add", space.name)
            _ip("link", "add", self._wire(last), "type", "veth", "peer", "name", "eth0", "netns", space.name)
            _ip("link", "set", self._wire(last), "master", self.name, "up")
            _ip("-n", space.name, "addr", "add", f"{self.net}.{last}/24", "dev", "eth0")
            _ip("-n", space.name, "link", "set", "eth0", "up")
            _ip("-n", space.name, "link", "set", "lo", "up")

    def _wire(self, last: int) -> str:
        return f"{self.name}-{last}"

    def cut_off(self, number: int) -> None:
        """Pull the plug of a node's network; its jobs go on."""
        _ip("link", "set", self._wire(number), "down")

    def reconnect(self, number: int) -> None:
        """Put the plug in again."""
        _ip("link", "set", self._wire(number), "up")

    def _remove_hosts(self) -> None:
        wires = [path.name for path in Path("/sys/class/net").glob(f"{self.name}-*")]
        for name in (*wires, self.name):
            with suppress(subprocess.CalledProcessError):
                _ip("link", "del", name)
        for path in Path("/run/netns").glob(f"{self.name}-*"):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", path.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _lacks_networks() -> str | None:
    """Try what a host with a network of its own takes: containers may lack the right to."""
    try:
        _ip("netns", "add", "psyrun-try")
        _ip("netns", "del", "psyrun-try")
        _ip("link", "add", "psyrun-try", "type", "bridge")
        _ip("link", "del", "psyrun-try")
    except subprocess.CalledProcessError as error:
        return f"no networks for hosts of their own: {error.stderr.decode().strip()}"
    return None


def main() -> None:
    """Bring a cluster up or down by hand."""
    cluster = Slurm(Path("/tmp/psyrun-testing-slurm"), port=27800, accounting="--accounting" in sys.argv)
    if "down" in sys.argv:
        cluster.stop()
        return
    if cluster.lacks():
        cluster.install()
    cluster.start()
    print(cluster.run("sinfo"))
    print(f"export SLURM_CONF={cluster.env['SLURM_CONF']}")


if __name__ == "__main__":
    main()
