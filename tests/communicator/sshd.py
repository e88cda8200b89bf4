"""A real OpenSSH server for one test: its own keys and port, on loopback."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imagepipe.communicator import keys
from imagepipe.values import Endpoint

SECONDS = 10.0
NO_ENV: Mapping[str, str] = {}


@dataclass
class Sshd:
    """A server that runs, and how to reach it."""

    endpoint: Endpoint
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def connections(self) -> list[int]:
        """Process ids of the sessions: since OpenSSH 9.8 the process that holds the connection is a grandchild."""
        own = _children(self.process.pid)
        return own + [each for pid in own for each in _children(pid) if _name(each).startswith("sshd")]

    @property
    def cut(self) -> str:
        """A shell script that kills the sessions, its own among them."""
        sessions = f"sessions=$(cat /proc/{self.process.pid}/task/{self.process.pid}/children)"
        inner = (
            "for each in $(cat /proc/$pid/task/$pid/children); do grep -sq ^sshd /proc/$each/comm && echo $each; done"
        )
        return f"{sessions}; kill -9 $sessions $(for pid in $sessions; do {inner}; done)"


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _name(pid: int) -> str:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


@contextmanager
def sshd(folder: Path, *options: str, env: Mapping[str, str] = NO_ENV) -> Iterator[Sshd]:
    """Run a server for the block.

    A home folder of its own keeps this user's start-up files out: bash reads `~/.bashrc` for a command over SSH, and
    all that it prints would be lines of the command.
    """
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
    assert program, "openssh-server is not installed: make setup"
    Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it, and without an init nobody makes it
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host, login = keys.generate("host"), keys.generate("login")
    keys.write_private(folder / "host", host)
    keys.write_private(folder / "login", login)
    (folder / "authorized_keys").write_text(login.public + "\n")
    home = folder / "home"
    home.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [
        f"Port={port}",
        "ListenAddress=127.0.0.1",
        f"HostKey={folder / 'host'}",
        f"AuthorizedKeysFile={folder / 'authorized_keys'}",
        "StrictModes=no",
        "UsePAM=no",
        "PidFile=none",
        "PermitRootLogin=yes",
        "SetEnv=" + " ".join(f"{name}={value}" for name, value in {"HOME": str(home), **env}.items()),
        *options,
    ]
    words = [word for setting in settings for word in ("-o", setting)]
    # --pdeathsig: it ends with the tests, even if they are killed.
    command = ["env", "--default-signal", "setpriv", "--pdeathsig", "TERM", program, "-D", "-e", "-f", "/dev/null"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *words], stderr=log)
    try:
        _wait_for(port, process, folder)
        public = " ".join(host.public.split()[:2])
        yield Sshd(Endpoint("127.0.0.1", port, getpass.getuser(), public, str(folder / "login")), folder, process)
    finally:
        process.terminate()
        process.wait(SECONDS)


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, (folder / "log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError("sshd does not listen")
