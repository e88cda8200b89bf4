"""Steps of other packages' kinds: their failures are failures of a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from imagepipe.cloud.images import SourceImage
from imagepipe.communicator.ssh import Connections
from imagepipe.engine.stage import Ref
from imagepipe.errors import CommandFailed
from imagepipe.provision.custom import RunCustom
from imagepipe.provision.step import Options
from imagepipe.step_kinds import StepKind
from imagepipe.values import Instance, Reachable
from tests.account import Account
from tests.communicator.sshd import Sshd
from tests.local.aws import harness

SOURCE = SourceImage("ami-0", "debian-12", "1", "x86_64", "hvm", "/dev/xvda", "ebs", ())


class Nothing(BaseModel):
    """The options of a kind that has none."""


class Unsteady(StepKind):
    """Fails twice with an exception of its own."""

    options = Nothing
    attempts = 0

    def run(self, options: Any, machine: Any, folder: Path) -> None:
        Unsteady.attempts += 1
        if Unsteady.attempts < 3:
            raise RuntimeError("the service is busy")


class Installed:
    """A package that is installed."""

    package, version = "unsteady", "1.0"

    def read(self, given: Any) -> tuple[StepKind, BaseModel]:
        return Unsteady(), Nothing()


@pytest.mark.parametrize("retries", [1, 2])
def test_an_exception_of_a_kind_counts_as_a_failed_attempt(
    account: Account, server: Sshd, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    monkeypatch.setattr("imagepipe.provision.custom.installed_kinds", lambda: {"unsteady": Installed()})
    monkeypatch.setattr("imagepipe.provision.step.RETRY_SECONDS", 0.01)
    Unsteady.attempts = 0
    options = Options("unsteady", "web.yaml:9", 60, retries, False, (0,), False, False)
    step = RunCustom(
        account.ec2,
        Connections(),
        Ref("machine"),
        Ref("source"),
        options,
        folder=Path(),
        kind="unsteady",
        version="1.0",
        given={},
    )
    instance = Instance(harness.running(account.cloud.client()), "us-east-1", "t3.small", "/dev/xvda", None)
    context = account.context(machine=Reachable(instance, server.endpoint), source=SOURCE)
    try:
        if retries == 2:
            step.run(context)
        else:
            with pytest.raises(CommandFailed, match="RuntimeError: the service is busy") as failed:
                step.run(context)
            assert not replace(step, stops_on_failure=False).stops_others(failed.value)
    finally:
        step.connections.close()
    assert Unsteady.attempts == retries + 1
