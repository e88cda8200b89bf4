"""The first boot, seen over a connection that breaks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from imagepipe.communicator.ssh import Connections, Disconnected, Result, Watch
from imagepipe.engine.stage import Ref
from imagepipe.launch.connect import DROPPED_SECONDS, WAITING, AwaitSsh
from imagepipe.values import Endpoint, Instance
from tests.account import Account


@dataclass
class Breaking:
    """Takes every login, and ends so many of them at once."""

    left: int
    logins: list[float] = field(default_factory=list)

    def get(self, endpoint: Endpoint) -> Breaking:
        self.logins.append(time.monotonic())
        return self

    def drop(self, endpoint: Endpoint) -> None:
        pass

    def is_alive(self) -> bool:
        return False

    def run(self, *_: Any, **__: Any) -> Result:
        self.left -= 1
        if self.left >= 0:
            raise Disconnected("the connection broke")
        return Result(0)


def test_a_login_that_is_ended_at_once_is_tried_again_after_a_pause(account: Account) -> None:
    machine = Breaking(2)
    connections = cast(Connections, machine)
    stage = AwaitSsh(account.ec2, connections, Ref("launch"), Ref("key"), "admin", 22, "public_ip", 20)
    instance = Instance("i-1", "us-east-1", "t3.small", "/dev/xvda", None)
    endpoint = Endpoint("127.0.0.1", 22, "admin", "", "/key")
    stage._await_cloud_init(account.context(), instance, endpoint, cast(Any, machine.get(endpoint)))
    pauses = [after - before for before, after in zip(machine.logins, machine.logins[1:], strict=False)]
    assert len(pauses) == 2
    assert min(pauses) >= DROPPED_SECONDS


@dataclass
class Booting(Breaking):
    """A machine whose cloud-init is done at once, or has to be waited for."""

    says: str = ""

    def run(self, command: str, watch: Watch, **_: Any) -> Result:
        watch.on_line("out", self.says)
        return Result(0)


@pytest.mark.parametrize(("says", "logins"), [(WAITING, 2), ("", 1)])
def test_steps_get_a_login_from_after_the_first_boot(account: Account, says: str, logins: int) -> None:
    """Locale, groups and environment are those of the login, and cloud-init sets them."""
    machine = Booting(0, says=says)
    stage = AwaitSsh(account.ec2, cast(Connections, machine), Ref("launch"), Ref("key"), "admin", 22, "public_ip", 20)
    instance = Instance("i-1", "us-east-1", "t3.small", "/dev/xvda", None)
    endpoint = Endpoint("127.0.0.1", 22, "admin", "", "/key")
    stage._await_cloud_init(account.context(), instance, endpoint, cast(Any, machine.get(endpoint)))
    assert len(machine.logins) == logins
