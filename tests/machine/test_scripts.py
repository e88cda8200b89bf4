"""Scripts on an instance, by its user and by sudo: they have what a command of the user has, and their steps end."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

import pytest

from imagepipe.clock import Deadline, SystemClock
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Result, Watch, connect
from imagepipe.engine.cancel import Cancel
from tests.machine.bakery import Bakery, Booted
from tests.signals import not_default

pytestmark = pytest.mark.machine

LOOK = (
    "grep -E '^(Sig(Blk|Ign)|NoNewPrivs|Cap...|Groups|Uid)' /proc/self/status; cat /proc/self/limits; umask; pwd; "
    "nice; cat /proc/self/oom_score_adj; for fd in 3 4 5 6 7 8 9; do [ -e /dev/fd/$fd ] && echo fd $fd; done; "
    "unset SUDO_COMMAND; env | sort"
)
OF_THE_SHELL = ("_=", "SHLVL=", "OLDPWD=", "SSH_C", "XDG_SESSION_ID=")


def _script(booted: Booted, script: Script) -> tuple[Result, list[str]]:
    lines: list[str] = []
    clock = SystemClock()
    watch = Watch(lambda _, line: lines.append(line), Deadline.after(120, clock), Cancel(clock))
    return run_script(booted.connection, script, watch), lines


def _check(booted: Booted, *, sudo: bool) -> None:
    command = f"/bin/dash -c {shlex.quote(LOOK)}"
    expected = booted.sh(f"sudo -n -H -- {command}" if sudo else command).split("\n")
    result, lines = _script(booted, Script(LOOK, sudo=sudo, interpreter="/bin/dash"))
    assert result.code in (0, 1), lines
    assert [x for x in lines if not x.startswith(OF_THE_SHELL)] == [
        x for x in expected if not x.startswith(OF_THE_SHELL)
    ]
    assert not not_default(lines)
    home = "/root" if sudo else "/home/admin"
    assert f"HOME={home}" in lines


@pytest.fixture(params=["as it is", "use_pty"])
def sudoers(request: pytest.FixtureRequest, booted: Booted) -> Iterator[None]:
    """Debian 12's sudo, and one that runs commands on a terminal of their own, as later ones do."""
    if request.param == "use_pty":
        booted.sh("echo 'Defaults use_pty' | sudo tee /etc/sudoers.d/00-pty")
    yield
    booted.sh("sudo rm -f /etc/sudoers.d/00-pty")


@pytest.mark.parametrize("sudo", [False, True], ids=["user", "sudo"])
def test_a_script_has_what_a_command_of_the_user_has(booted: Booted, *, sudo: bool) -> None:
    _check(booted, sudo=sudo)


def test_so_it_has_on_a_machine_that_boots(bakery: Bakery) -> None:
    found = bakery.client().describe_images(Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}])
    with bakery.instance(found["Images"][0]["ImageId"], "us-east-1") as booted:
        booted.sh("cloud-init status --wait || true")  # it sets the locale, which a connection has from its login
        booted = replace(booted, connection=connect(booted.connection.endpoint))
        _check(booted, sudo=False)
        _check(booted, sudo=True)
        lang = booted.sh("sh -c 'echo $LANG'")
        assert lang == booted.sh(". /etc/default/locale 2>/dev/null; echo $LANG"), "as the system sets it for logins"


@pytest.mark.usefixtures("sudoers")
@pytest.mark.parametrize("sudo", [False, True], ids=["user", "sudo"])
def test_a_step_ends_with_its_script_whatever_runs_on(booted: Booted, *, sudo: bool) -> None:
    text = "nohup sleep 600 &\necho $!\necho started\necho complained >&2\nprintf 'no end'; exit 7"
    result, lines = _script(booted, Script(text, sudo=sudo))
    try:
        assert (result.code, result.timed_out) == (7, False)
        assert {"started", "no end", "complained"} <= set(lines)
        pid = next(line for line in lines if line.isdigit())
        assert result.holders == (f"sleep ({pid})",)
    finally:
        booted.sh("sudo pkill -x sleep")


@pytest.mark.usefixtures("sudoers")
def test_an_environment_reaches_a_script_by_sudo_and_changes_nothing_else(booted: Booted) -> None:
    booted.sh("sudo mkdir -p /srv/app && sudo touch /srv/app/canary")
    names = ("d", "n", "i", "u", "PATH", "HOME", "SUDO_USER", "LD_LIBRARY_PATH", "TMPDIR")
    text = "".join(f'echo "{name}=${name}"\n' for name in names)
    result, lines = _script(booted, Script(text, env=dict.fromkeys(names, "/srv/app"), sudo=True))
    assert (result.code, lines) == (0, [f"{name}=/srv/app" for name in names])
    assert booted.sh("ls /srv/app") == "canary"
