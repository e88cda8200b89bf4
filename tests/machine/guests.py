"""Help for tests of real machines: keys, a shell that checks the host's key, and a search for leftovers."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagepipe.local.host import loop
from imagepipe.local.host.cgroup import PREFIX, hierarchies
from imagepipe.local.machines.driver import Ingress, Machine

SSH = Ingress("tcp", 22, 22, "127.0.0.1/32")
SECONDS = 600.0
GIB = 1 << 30

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # a machine that boots refuses us many times


@dataclass
class KeyPair:
    """An ed25519 key in the forms that OpenSSH and paramiko want."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def private_text(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ).decode()

    @property
    def public_line(self) -> str:
        return (
            self.key.public_key()
            .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
            .decode()
        )

    @property
    def public_key(self) -> paramiko.Ed25519Key:
        return paramiko.Ed25519Key(data=base64.b64decode(self.public_line.split()[1]))


@dataclass
class Guest:
    """A machine, its keys and a way in."""

    machine: Machine
    login: KeyPair
    host: KeyPair

    @property
    def id(self) -> str:
        return self.machine.id

    @property
    def root(self) -> Path:
        return self.machine.disks[0].path

    def connected(self, port: int = 22) -> paramiko.SSHClient:
        """A connection on which the host key was checked. Raises what paramiko raises, at once."""
        client = paramiko.SSHClient()
        name = self.machine.address if port == 22 else f"[{self.machine.address}]:{port}"
        client.get_host_keys().add(name, "ssh-ed25519", self.host.public_key)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        key = paramiko.Ed25519Key.from_private_key(io.StringIO(self.login.private_text))
        try:
            client.connect(
                self.machine.address, port, "admin", pkey=key, timeout=3, banner_timeout=3, auth_timeout=5,
                allow_agent=False, look_for_keys=False,
            )  # fmt: skip
        except BaseException:
            client.close()
            raise
        return client

    def run(self, command: str, *, within: float = SECONDS) -> str:
        """Return the output of a command, once the machine lets us in; fail if it exits with anything but 0."""
        end = time.monotonic() + within
        while True:
            try:
                client = self.connected()
                break
            except (OSError, EOFError, paramiko.SSHException):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        with client:
            _, out, err = client.exec_command(command, timeout=SECONDS)
            said, complained = out.read().decode(), err.read().decode()
            code = out.channel.recv_exit_status()
        assert code == 0, f"{command}: exit {code}: {said}{complained}"
        return said


NewGuest = Callable[..., Guest]


def host_key_user_data(host: KeyPair) -> str:
    """User data that gives a machine this host key and no other."""
    keys = {"ed25519_private": host.private_text, "ed25519_public": host.public_line}
    return "#cloud-config\n" + json.dumps({"ssh_deletekeys": True, "ssh_genkeytypes": [], "ssh_keys": keys})


def until(is_so: Callable[[], bool], *, within: float = SECONDS) -> None:
    end = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)


def leftovers(root: Path) -> list[str]:
    """Loop devices, mounts, groups and processes of any store under this folder, of plain users too."""
    found = [f"{device} over {path}" for device, path in loop.attached(root)]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line]
    ids = {path.name for path in [*root.glob("**/machines*/*"), *root.glob("**/machines/sshd/*")] if path.is_dir()}
    found += [
        f"group {group}"
        for hierarchy in hierarchies()
        for group in hierarchy.glob(f"{PREFIX}*")
        if group.name.removeprefix(PREFIX) in ids
    ]
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                # A plain user's machine has no control group; its processes work in its folder.
                if str(root) in words or (process / "cwd").readlink().is_relative_to(root):
                    found.append(f"process {process.name} {words}")
    return found
