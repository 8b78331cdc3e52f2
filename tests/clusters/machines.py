"""Hosts without a batch system: network namespaces of this machine, with a name and an sshd each."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from clusters.daemons import Cluster, find_ports

SSHD = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
PidFile {folder}/{name}.pid
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin yes
StrictModes no
UsePAM no
LogLevel ERROR
SetEnv TMPDIR={folder}/tmp OF_HOST={name} SHLVL=3
"""
SSH = """\
Host {name}
    HostName {address}
    Port {port}
    IdentityFile {folder}/key
    UserKnownHostsFile {folder}/known_hosts
    StrictHostKeyChecking yes
"""
NOWHERE = """\
Host *
    HostName 127.0.0.1
    Port 1
"""


class Machines(Cluster):
    """Hosts that share the disk of this machine.

    Parameters
    ----------
    folder
        Where everything lives.
    names
        Their names.
    """

    packages = ("iproute2", "openssh-client", "openssh-server")
    commands = ("ip", "nsenter", "unshare", "ssh", "ssh-keygen", "sshd")
    mark = "OF_MACHINES"

    def __init__(self, folder: Path, names: tuple[str, ...] = ("a", "b")) -> None:
        self.folder, self.names, self.port = folder, names, find_ports(1)
        self.net = f"10.214.{self.port // 100 % 256}"

    @property
    def env(self) -> dict[str, str]:
        return {self.mark: str(self.folder)}

    @property
    def remote(self) -> list[str]:
        """The command that reaches them."""
        return ["ssh", "-F", str(self.folder / "config"), "-oBatchMode=yes", "-oConnectTimeout=2"]

    def lacks(self) -> str | None:
        found = super().lacks()
        if found is None and not self._runs("ip", "netns", "add", self._space("try")):
            return "no networks for hosts of their own"
        self._runs("ip", "netns", "del", self._space("try"))
        return found

    def _space(self, name: str) -> str:
        return f"m{self.port}-{name}"

    def _address(self, name: str, last: int) -> str:
        return f"{self.net}.{4 * self.names.index(name) + last}"

    def start(self) -> None:
        (self.folder / "tmp").mkdir()
        Path("/run/sshd").mkdir(exist_ok=True)
        for key in ("key", "host_key"):
            self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key))
        public = (self.folder / "host_key.pub").read_text()
        config, known = "", ""
        for name in self.names:
            values = {
                "folder": self.folder,
                "port": self.port,
                "name": name,
                "address": self._address(name, 2),
            }
            config += SSH.format(**values)
            known += f"[{values['address']}]:{self.port} {public}"
            (self.folder / f"{name}.conf").write_text(SSHD.format(**values))
        (self.folder / "config").write_text(config + NOWHERE)
        (self.folder / "known_hosts").write_text(known)
        for name in self.names:
            self.boot(name)

    def boot(self, name: str) -> None:
        """Start a host."""
        space = self._space(name)
        if not Path("/run/netns", space).exists():
            self.run("ip", "netns", "add", space)
            self.run("ip", "link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space)
            self.run("ip", "addr", "add", f"{self._address(name, 1)}/30", "dev", space)
            self.run("ip", "-n", space, "addr", "add", f"{self._address(name, 2)}/30", "dev", "eth0")
            self.run("ip", "-n", space, "link", "set", "lo", "up")
            self.run("ip", "-n", space, "link", "set", "eth0", "up")
        self.run("ip", "link", "set", space, "up")
        script = 'hostname "$0" && exec "$(command -v sshd)" -f "$1"'
        inside = ["nsenter", f"--net=/run/netns/{space}", "unshare", "--uts", "bash", "-c", script]
        done = subprocess.run(
            [*inside, name, str(self.folder / f"{name}.conf")],
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self._wait(f"host {name}", lambda: self._runs(*self.remote, name, "true"))

    def cut_off(self, name: str) -> None:
        """Pull the plug of its network; its processes go on."""
        self.run("ip", "link", "set", self._space(name), "down")

    def processes_of(self, name: str) -> list[int]:
        """Return the processes on a host."""
        return [int(pid) for pid in self.run("ip", "netns", "pids", self._space(name)).split()]

    def sshd_of(self, name: str) -> int:
        """Return the process that waits for connections."""
        return int((self.folder / f"{name}.pid").read_text())

    def power_off(self, name: str) -> None:
        """End a host at once."""
        self.cut_off(name)
        while pids := self.processes_of(name):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for name in self.names:
            if Path("/run/netns", self._space(name)).exists():
                self.power_off(name)
                self._runs("ip", "link", "del", self._space(name))
                self.run("ip", "netns", "del", self._space(name))
