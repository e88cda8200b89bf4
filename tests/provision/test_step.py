"""Steps on a real sshd; the instance behind it is one of the local cloud, which does not boot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imagepipe.clock import Deadline
from imagepipe.cloud.images import SourceImage
from imagepipe.communicator.ssh import Connection, Connections
from imagepipe.engine.stage import Ref
from imagepipe.errors import CommandFailed
from imagepipe.provision.shell import RunShell
from imagepipe.provision.step import Options
from imagepipe.values import Instance, Reachable
from tests.account import Account
from tests.communicator.sshd import Sshd
from tests.local.aws import harness

SOURCE = SourceImage("ami-0", "debian-12", "1", "x86_64", "hvm", "/dev/xvda", "ebs", ())


class BreaksAtFirst(Connections):
    """Connections of which the first breaks just after the login."""

    has_broken = False

    def reconnect(
        self, machine: Reachable, deadline: Deadline, sleep: Callable[[float], None], check: Callable[[str], None]
    ) -> Connection:
        connection = super().reconnect(machine, deadline, sleep, check)
        if not self.has_broken:
            self.has_broken = True
            connection.close()
        return connection


def _step(account: Account, script: str, *, idempotent: bool) -> RunShell:
    options = Options(
        title="reboot",
        where="web.yaml:9",
        timeout_seconds=20,
        retries=0,
        sudo=False,
        exit_codes=(0,),
        expect_disconnect=True,
        idempotent=idempotent,
    )
    return RunShell(account.ec2, BreaksAtFirst(), Ref("machine"), Ref("source"), options, (script,))


def _run(account: Account, server: Sshd, step: RunShell) -> None:
    id = harness.running(account.cloud.client())
    machine = Reachable(Instance(id, "us-east-1", "t3.small", "/dev/xvda", None), server.endpoint)
    try:
        step.run(account.context(machine=machine, source=SOURCE))
    finally:
        step.connections.close()


def test_a_connection_that_breaks_before_the_script_is_not_the_disconnect_that_the_step_expects(
    account: Account, server: Sshd, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    with pytest.raises(CommandFailed, match="step 'reboot'"):
        _run(account, server, _step(account, f"touch {ran}", idempotent=False))
    assert not ran.exists()


def test_an_idempotent_step_is_run_again_after_a_connection_that_broke_before_it(
    account: Account, server: Sshd, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    sessions = f"$(cat /proc/{server.process.pid}/task/{server.process.pid}/children)"
    _run(account, server, _step(account, f"touch {ran}\nkill -9 {sessions}", idempotent=True))
    assert ran.exists()
