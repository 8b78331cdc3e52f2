"""Hosts that ssh reaches: sshd processes on the loopback, with keys and ports of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from socket import create_connection, create_server

PACKAGES = ("openssh-client", "openssh-server")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
LogLevel ERROR
SetEnv TMPDIR={folder}/{name}
"""
_CLIENT = """\
Host {name}
    HostName 127.0.0.1
    Port {port}
"""
_CLIENTS = """\
Host *
    HostName 127.0.0.1
    Port 1
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""


class Sshd:
    """Hosts named ``a``, ``b``, ...; ssh refuses all others. Each has its own folder for temporary files.

    Parameters
    ----------
    folder
        Where everything lives.
    names
        The hosts.
    """

    def __init__(self, folder: Path, names: str = "ab") -> None:
        self.folder, self.names = folder, names
        self._servers: list[subprocess.Popen[bytes]] = []

    @property
    def remote(self) -> list[str]:
        """The command before the name of a host."""
        return ["ssh", "-F", str(self.folder / "ssh_config"), "-oBatchMode=yes", "-oConnectTimeout=10"]

    def start(self) -> None:
        """Start the servers."""
        Path("/run/sshd").mkdir(exist_ok=True)
        for key in ("host_key", "user_key"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)]
            subprocess.run(argv, check=True)
        client = ""
        for name in self.names:
            (self.folder / name).mkdir()
            port = _find_port()
            config = self.folder / f"{name}.conf"
            config.write_text(_SERVER.format(port=port, folder=self.folder, name=name))
            client += _CLIENT.format(name=name, port=port)
            server = shutil.which("sshd", path=_PATH) or "sshd"
            self._servers.append(subprocess.Popen([server, "-D", "-e", "-f", str(config)]))
            _wait_for(port)
        (self.folder / "ssh_config").write_text(client + _CLIENTS.format(folder=self.folder))

    def stop(self) -> None:
        """End the servers."""
        for server in self._servers:
            server.terminate()
            server.wait()


def lacks() -> str | None:
    """Return what keeps servers from being started here; None: nothing."""
    if os.geteuid() != 0 or sys.platform != "linux":
        return "sshd needs root"
    absent = [name for name in ("ssh", "ssh-keygen", "sshd") if shutil.which(name, path=_PATH) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def _find_port() -> int:
    with create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < deadline, "sshd does not answer"
            time.sleep(0.02)
        else:
            return
