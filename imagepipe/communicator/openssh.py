"""The command line of OpenSSH's `ssh` for a machine, which verifies its host key."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from imagepipe.values import Endpoint


def ssh_command(endpoint: Endpoint, known_hosts: Path) -> list[str]:
    """Return the words that log in to a machine, through its bastion if it has one."""
    words = ["ssh", "-i", endpoint.private_key, *ssh_options(endpoint, known_hosts)]
    words += ["-p", str(endpoint.port)] if endpoint.port != 22 else []
    return [*words, f"{endpoint.user}@{endpoint.host}"]


def ssh_options(endpoint: Endpoint, known_hosts: Path) -> list[str]:
    """Return the options of `ssh` that verify the host key and go through the bastion."""
    words = ["-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={_as_value(str(known_hosts))}"]
    if endpoint.via:
        # Not -J: it would use the machine's key (-i) to log in to the bastion as well.
        words += ["-o", f"ProxyCommand={shlex.join([*ssh_command(endpoint.via, known_hosts), '-W', '%h:%p'])}"]
    return words


def host_key_lines(endpoint: Endpoint) -> list[str]:
    """Return the lines of known_hosts for a machine and its bastion."""
    before = host_key_lines(endpoint.via) if endpoint.via else []
    if endpoint.host_key is None:
        return before
    host = endpoint.host if endpoint.port == 22 else f"[{endpoint.host}]:{endpoint.port}"
    return [*before, f"{host} {endpoint.host_key}"]


def _as_value(path: str) -> str:
    """Quote a path for an option of OpenSSH, which splits the value at spaces, and expands `%h` and others in it."""
    if not re.search(r"""[\s%'"\\]""", path):
        return path
    escaped = path.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
