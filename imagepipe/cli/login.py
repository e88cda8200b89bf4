"""The login with OpenSSH's `ssh` to a machine of a run, which verifies its host key."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from imagepipe.communicator.openssh import host_key_lines
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
    lines = dict.fromkeys(line for endpoint in endpoints for line in host_key_lines(endpoint))
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
