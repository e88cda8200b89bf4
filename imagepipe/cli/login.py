"""The command line of OpenSSH's `ssh` for a machine of a run, which verifies its host key."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from imagepipe.errors import UsageError
from imagepipe.values import Endpoint

KNOWN_HOSTS = "known_hosts"
"""File in a run's folder with the host keys of its machines."""


def write_known_hosts(folder: Path, endpoints: Iterable[Endpoint]) -> Path:
    """Write the host keys of machines and their bastions into a run's folder; return the file. Raises OSError.

    Keys of other hosts stay: ssh itself has added them, for machines whose key is accepted at the first login.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / KNOWN_HOSTS
    lines = dict.fromkeys(line for endpoint in endpoints for line in _lines(endpoint))
    hosts = {line.split()[0] for line in lines}
    earlier = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    kept = [line for line in earlier if line.split() and line.split()[0] not in hosts]
    file.write_text("".join(f"{line}\n" for line in (*kept, *lines)), encoding="utf-8")
    return file


def ssh_program() -> str:
    """Return the path of OpenSSH's client. Raises UsageError if it is not installed."""
    if (program := shutil.which("ssh")) is None:
        raise UsageError(
            "the program ssh was not found", hint="install OpenSSH's client: apt-get install openssh-client"
        )
    return program


def ssh_command(endpoint: Endpoint, known_hosts: Path) -> list[str]:
    """Return the words that log in to a machine, through its bastion if it has one."""
    words = ["ssh", "-i", endpoint.private_key, "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known_hosts}"]
    if endpoint.via:
        # Not -J: it would use the machine's key (-i) to log in to the bastion as well.
        words += ["-o", f"ProxyCommand={shlex.join([*ssh_command(endpoint.via, known_hosts), '-W', '%h:%p'])}"]
    words += ["-p", str(endpoint.port)] if endpoint.port != 22 else []
    return [*words, f"{endpoint.user}@{endpoint.host}"]


def _lines(endpoint: Endpoint) -> list[str]:
    """Return the lines of known_hosts for a machine and its bastion."""
    before = _lines(endpoint.via) if endpoint.via else []
    if endpoint.host_key is None:
        return before
    host = endpoint.host if endpoint.port == 22 else f"[{endpoint.host}]:{endpoint.port}"
    return [*before, f"{host} {endpoint.host_key}"]
