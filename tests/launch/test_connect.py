"""The first login and the first boot, with connections that fail, break or run something else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from imagepipe.communicator.ssh import Connections, Disconnected, NotConnected, Result, Watch, Why
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.events import Progress
from imagepipe.engine.stage import Context, Ref
from imagepipe.errors import ConnectError
from imagepipe.launch.access import Key
from imagepipe.launch.connect import DROPPED_SECONDS, STARTED, WAITING, AwaitSsh
from imagepipe.values import Endpoint, HostPorts, Instance
from tests.account import Account
from tests.clocks import Stopped
from tests.local.aws import harness


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

    def run(self, command: str, watch: Watch, **_: Any) -> Result:
        self.left -= 1
        if self.left >= 0:
            raise Disconnected("the connection broke")
        watch.on_line("out", STARTED)
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
        for line in (STARTED, self.says):
            watch.on_line("out", line)
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


@dataclass
class Elsewhere(Breaking):
    """A machine whose login runs something other than the command."""

    output: Sequence[str] = ()
    code: int | None = 1

    def run(self, command: str, watch: Watch, **_: Any) -> Result:
        for line in self.output:
            watch.on_line("out", line)
        return Result(self.code)


@pytest.mark.parametrize(
    ("first_real", "port", "expected"),
    [(0, 22, 22), (1024, 22, 20022), (1024, 1023, 21023), (1024, 1024, 1024), (80, 22, 20022), (22, 22, 22)],
)
def test_the_login_uses_the_port_at_which_the_cloud_opens_the_instances_port(
    account: Account, first_real: int, port: int, expected: int
) -> None:
    account.regions.session.host_ports = HostPorts(first_real)
    connections = cast(Connections, Breaking(0))
    stage = AwaitSsh(account.ec2, connections, Ref("launch"), Ref("key"), "admin", port, "public_ip", 20)
    instance = Instance("i-1", "us-east-1", "t3.small", "/dev/xvda", None)
    context = account.context(launch=instance, key=Key("k", "/key"))
    assert stage._endpoint(context, {"InstanceId": "i-1", "PublicIpAddress": "127.42.1.4"}).port == expected


@pytest.mark.parametrize(
    ("address", "hint"),
    [("public_ip", "private_ip"), ("public_dns", "enableDnsHostnames"), ("ipv6", "IPv6 addresses")],
)
def test_a_missing_address_has_a_hint_of_its_own(account: Account, address: Any, hint: str) -> None:
    connections = cast(Connections, Breaking(0))
    stage = AwaitSsh(account.ec2, connections, Ref("launch"), Ref("key"), "admin", 22, address, 20)
    with pytest.raises(ConnectError, match=f"i-1 has no {address.replace('_', ' ')}") as failed:
        stage._endpoint(account.context(), {"InstanceId": "i-1", "PublicDnsName": ""})
    assert hint in (failed.value.hint or "")


ROOT = ('Please login as the user "admin" rather than the user "root".', "")


@pytest.mark.parametrize(
    ("output", "code", "message", "hint"),
    [
        pytest.param(ROOT, 142, "the image refuses logins as 'root'", "launch.ssh.user: admin", id="root"),
        pytest.param(ROOT, 0, "the image refuses logins as 'root'", "launch.ssh.user: admin", id="root, exit code 0"),
        pytest.param(
            ("This account is currently not available.",), 1, "works, but runs no commands", "a shell", id="nologin"
        ),
        pytest.param((), 1, "runs no commands (exit 1): no output", "a shell", id="false"),
        pytest.param(("Backup server",), 0, "runs no commands (exit 0): Backup server", "forced command", id="forced"),
        pytest.param(
            ("mkdir: cannot create directory '/dev/shm/x': Read-only file system",),
            126,
            "Read-only file system",
            "a writable /dev/shm",
            id="no memory",
        ),
    ],
)
def test_a_login_that_does_not_run_our_command_is_not_blamed_on_cloud_init(
    account: Account, output: Sequence[str], code: int, message: str, hint: str
) -> None:
    machine = Elsewhere(0, output=output, code=code)
    stage = AwaitSsh(account.ec2, cast(Connections, machine), Ref("launch"), Ref("key"), "root", 22, "public_ip", 20)
    instance = Instance("i-1", "us-east-1", "t3.small", "/dev/xvda", None)
    endpoint = Endpoint("127.0.0.1", 22, "root", "", "/key")
    with pytest.raises(ConnectError) as failed:
        stage._await_cloud_init(account.context(), instance, endpoint, cast(Any, machine.get(endpoint)))
    assert message in failed.value.message
    assert "cloud-init" not in failed.value.message
    assert hint in (failed.value.hint or "")


@dataclass
class Failing:
    """Connections whose attempts fail for one of these reasons after another; the last one repeats. None succeeds."""

    results: Sequence[Why | None]
    at_bastion: bool = False
    tries: int = 0

    def prepare(self) -> None:
        pass

    def get(self, endpoint: Endpoint) -> Failing:
        why = self.results[min(self.tries, len(self.results) - 1)]
        self.tries += 1
        if why is None:
            return self
        raise NotConnected(f"failed: {why}", why, at_bastion=self.at_bastion)


@dataclass
class Login:
    """The first login on an instance of the local cloud, by a clock that waits at once."""

    account: Account
    clock: Stopped = field(default_factory=Stopped)

    def __call__(self, failing: Failing, *, has_user_data: bool = False) -> None:
        context = self.account.context()
        self.context = Context("stage", {}, context.journal, self.account.events, Cancel(self.clock), self.clock)
        id = harness.running(self.account.cloud.client())
        instance = Instance(id, "us-east-1", "t3.small", "/dev/xvda", None)
        stage = AwaitSsh(
            self.account.ec2,
            cast(Connections, failing),
            Ref("launch"),
            Ref("key"),
            "admin",
            22,
            "public_ip",
            300,
            has_user_data=has_user_data,
        )
        stage._until_connected(self.context, instance, Endpoint("127.0.0.1", 22, "admin", "", "/key"))

    @property
    def reports(self) -> list[str]:
        return [event.text for event in self.account.seen if isinstance(event, Progress)]


@pytest.fixture
def login(account: Account) -> Login:
    return Login(account)


def test_a_key_that_is_refused_for_a_minute_is_not_tried_until_the_timeout(login: Login) -> None:
    with pytest.raises(ConnectError, match=r"refused for 6\d s") as failed:
        login(Failing(["refused", "protocol", "auth"]))
    assert 60 <= login.clock.seconds < 70
    assert "within 300 s" not in failed.value.message
    for name in ("'admin' the login user", "ubuntu", "ec2-user", "rocky"):
        assert name in (failed.value.hint or "")


def test_a_key_that_is_refused_after_the_end_of_cloud_init_is_soon_given_up(login: Login) -> None:
    login.account.cloud.driver.console_end = "Cloud-init v. 22.4.2 finished at Thu, 26 Nov 2026. Up 9.1 seconds\n"
    with pytest.raises(ConnectError, match="refused for"):
        login(Failing(["auth"]), has_user_data=True)
    assert 15 <= login.clock.seconds < 25


def test_user_data_of_the_spec_may_create_the_user_late(login: Login) -> None:
    with pytest.raises(ConnectError, match="within 300 s"):
        login(Failing(["auth"]), has_user_data=True)


def test_a_key_that_cloud_init_installs_after_the_first_refusals_is_accepted(login: Login) -> None:
    refusals: list[Why] = ["auth"] * 8
    login(Failing(["refused", *refusals, None]))
    assert login.clock.seconds > 20


def test_a_machine_that_reboots_gets_its_time_again(login: Login) -> None:
    refusals: list[Why] = ["auth"] * 10
    login(Failing([*refusals, "refused", "timeout", *refusals, None]))


def test_connections_that_sshd_drops_as_a_penalty_do_not_hide_the_refusals(login: Login) -> None:
    with pytest.raises(ConnectError, match="last try: failed: auth") as failed:
        login(Failing(["auth", "auth", *["protocol"] * 200]))  # type: ignore[list-item]
    assert "login user" in (failed.value.hint or "")
    assert login.clock.seconds < 70


def test_refused_keys_are_tried_less_often_than_sshd_penalizes(login: Login) -> None:
    failing = Failing(["auth"])
    with pytest.raises(ConnectError):
        login(failing)
    assert failing.tries < 20


@pytest.mark.parametrize(
    ("failing", "hint"),
    [
        pytest.param(Failing(["private-key"]), "launch.ssh.private_key", id="machine"),
        pytest.param(Failing(["private-key"], at_bastion=True), "launch.ssh.bastion.private_key", id="bastion"),
    ],
)
def test_a_private_key_that_cannot_be_read_is_tried_once(login: Login, failing: Failing, hint: str) -> None:
    with pytest.raises(ConnectError) as failed:
        login(failing)
    assert failing.tries == 1
    assert hint in (failed.value.hint or "")


def test_failed_attempts_are_not_reported_while_a_machine_boots(login: Login) -> None:
    login(Failing([*["refused"] * 3, *["protocol"] * 5, None]))  # type: ignore[list-item]
    assert login.reports == []


def test_failed_attempts_are_reported_after_fifteen_seconds_once_for_each_reason(login: Login) -> None:
    login(Failing([*["refused"] * 30, *["protocol"] * 5, None]))  # type: ignore[list-item]
    assert login.reports == [
        "no login yet after 15 s, trying until 300 s (launch.ssh.timeout): failed: refused",
        "no login yet after 27 s, trying until 300 s (launch.ssh.timeout): failed: protocol",
    ]
