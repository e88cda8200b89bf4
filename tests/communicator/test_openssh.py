"""The command line of OpenSSH, against a real server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imagepipe.communicator.openssh import host_key_lines, ssh_command
from tests.communicator.sshd import Sshd


@pytest.mark.parametrize("name", ["plain", "my state", "50 %", 'a "quoted" one', "back\\slash", "%h"])
def test_the_host_key_is_verified_in_a_folder_of_any_name(server: Sshd, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    known_hosts = folder / "known_hosts"
    known_hosts.write_text("".join(f"{line}\n" for line in host_key_lines(server.endpoint)), encoding="utf-8")
    command = ssh_command(server.endpoint, known_hosts)
    strict = ["-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none", "-o", "BatchMode=yes"]
    done = subprocess.run(
        [*command[:1], *strict, *command[1:], "echo in"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "in\n", done.stderr
