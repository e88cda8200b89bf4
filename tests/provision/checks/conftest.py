from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage
from imagepipe.communicator.ssh import Connections
from imagepipe.engine.stage import Ref
from imagepipe.errors import CheckFailed
from imagepipe.provision.checks.check import Check, CheckOptions
from imagepipe.values import Instance, Reachable
from tests.account import Account
from tests.communicator.sshd import Sshd
from tests.local.aws import harness

SOURCE = SourceImage("ami-0", "debian-12", "1", "x86_64", "hvm", "/dev/xvda", "ebs", ())


Base = tuple[Ec2, Connections, Ref[Reachable], Ref[SourceImage], CheckOptions]


class Bench:
    """Runs checks on an sshd of this computer; the instance behind it is one of the local cloud."""

    def __init__(self, account: Account, server: Sshd, folder: Path) -> None:
        self.account, self.server, self.folder = account, server, folder
        self.connections = Connections()
        self.id = harness.running(account.cloud.client())
        self.options = CheckOptions(title="it", where="web.yaml:9", within_seconds=0.0, sudo=False)

    def base(self, **options: Any) -> Base:
        """Return the first fields of every check."""
        changed = replace(self.options, **options)
        return self.account.ec2, self.connections, Ref("machine"), Ref("source"), changed

    def run(self, check: Check, server: Sshd | None = None) -> None:
        endpoint = (server or self.server).endpoint
        machine = Reachable(Instance(self.id, "us-east-1", "t3.small", "/dev/xvda", None), endpoint)
        check.run(self.account.context(machine=machine, source=SOURCE))

    def failure(self, check: Check, server: Sshd | None = None) -> CheckFailed:
        """Return the failure of a check that must not hold."""
        with pytest.raises(CheckFailed) as failed:
            self.run(check, server)
        return failed.value

    def said(self) -> list[str]:
        """Return the lines of the log."""
        return [text for event in self.account.seen if (text := getattr(event, "text", None)) is not None]


@pytest.fixture
def bench(account: Account, server: Sshd, tmp_path: Path) -> Bench:
    return Bench(account, server, tmp_path)


@pytest.fixture
def only(tmp_path: Path) -> Callable[..., str]:
    """Return a function that makes a PATH with only the named programs, and returns it as an option of sshd."""

    def make(*programs: str) -> str:
        folder = tmp_path / "only"
        folder.mkdir(exist_ok=True)
        for program in (*programs, *TOOLS):
            found = next(p for p in (Path("/usr/bin") / program, Path("/bin") / program) if p.exists())
            (folder / program).symlink_to(found)
        # Not SetEnv: the user's login shell may read files that change PATH.
        return f'ForceCommand=PATH={folder} exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'

    return make


TOOLS = ("sh", "mktemp", "rm", "rmdir", "mkdir", "cat", "head", "base64", "sed", "cp", "timeout", "stat", "env")
"""The programs of a machine that has little else."""
