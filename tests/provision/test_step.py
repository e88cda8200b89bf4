"""Steps on a real sshd; the instance behind it is one of the local cloud, which does not boot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imagepipe.clock import Deadline
from imagepipe.cloud.images import SourceImage
from imagepipe.communicator.ssh import Connection, Connections
from imagepipe.engine.stage import Ref
from imagepipe.errors import CommandFailed, ConnectError, ImagepipeError
from imagepipe.late import Late
from imagepipe.provision.files import RenderTemplate, UploadFile
from imagepipe.provision.shell import RunShell
from imagepipe.provision.step import Options, Step
from imagepipe.values import Instance, Reachable
from tests.account import Account
from tests.communicator.sshd import Sshd, sshd
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


def _run(account: Account, server: Sshd, step: Step) -> None:
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
    _run(account, server, _step(account, f"touch {ran}\n{server.cut}", idempotent=True))
    assert ran.exists()


def _options(*, sudo: bool = False) -> Options:
    return Options(
        title="copy",
        where="web.yaml:9",
        timeout_seconds=20,
        retries=0,
        sudo=sudo,
        exit_codes=(0,),
        expect_disconnect=False,
        idempotent=False,
    )


@pytest.mark.parametrize("kind", ["a file", "a folder", "a template"])
@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("No space left on device", "size_gib in launch.block_devices"),
        ("Disk quota exceeded", "quota"),
        ("Read-only file system", "read-only"),
    ],
)
def test_an_upload_to_a_file_system_without_room_has_a_hint(
    account: Account, tmp_path: Path, kind: str, reason: str, hint: str
) -> None:
    programs, folder = tmp_path / "bin", tmp_path / "folder"
    programs.mkdir()
    folder.mkdir()
    (programs / "tar").write_text(f"#!/bin/sh\ncat >/dev/null\necho 'tar: it: Cannot write: {reason}' >&2\nexit 2\n")
    (programs / "tar").chmod(0o755)
    (folder / "page").write_text("content")
    machine: Ref[Reachable] = Ref("machine")
    source: Ref[SourceImage] = Ref("source")
    base = (account.ec2, Connections(), machine, source, _options())
    step: Step
    if kind == "a template":
        step = RenderTemplate(*base, src=folder / "page", dest=str(tmp_path / "there"), vars={}, known={})
    else:
        step = UploadFile(
            *base, folder=tmp_path, src="folder" if kind == "a folder" else "folder/page", dest=f"{tmp_path}/there"
        )
    with (
        sshd(tmp_path / "sshd", env={"PATH": f"{programs}:/usr/bin:/bin"}) as server,
        pytest.raises(CommandFailed, match=reason) as failed,
    ):
        _run(account, server, step)
    assert hint in (failed.value.hint or "")


def test_a_refusal_by_sudo_has_a_hint(account: Account, server: Sshd) -> None:
    script = "echo 'sudo: sorry, you must have a tty to run sudo' >&2; exit 1"
    with pytest.raises(CommandFailed) as failed:
        _run(
            account, server, RunShell(account.ec2, Connections(), Ref("machine"), Ref("source"), _options(), (script,))
        )
    assert "requiretty" in (failed.value.hint or "")


@pytest.mark.parametrize(("sudo", "hint"), [(False, "does the step need sudo: true?"), (True, None)])
def test_a_denied_permission_suggests_sudo_to_steps_without_it(
    account: Account, server: Sshd, sudo: bool, hint: str | None
) -> None:
    script = "echo 'cat: /x: Permission denied' >&2; exit 1"
    step = RunShell(account.ec2, Connections(), Ref("machine"), Ref("source"), _options(sudo=sudo), (script,))
    with pytest.raises(CommandFailed) as failed:
        _run(account, server, step)
    assert failed.value.hint == hint


class NeverBack(Connections):
    """Connections that never come back."""

    def reconnect(
        self, machine: Reachable, deadline: Deadline, sleep: Callable[[float], None], check: Callable[[str], None]
    ) -> Connection:
        raise ConnectError("SSH did not come back within 300 s")


@pytest.mark.parametrize(
    "fault", ["a script that is gone", "a template", "a file that is gone", "a when", "an env", "SSH"]
)
def test_every_failure_of_a_step_names_the_step_and_its_place(
    account: Account, server: Sshd, tmp_path: Path, fault: str
) -> None:
    options = replace(_options(), where="provisioners/web/provisioner.yaml:7, used in web.yaml:9")
    bad = Late("{{ source.name | int // 0 }}", ())
    connections = NeverBack() if fault == "SSH" else Connections()
    machine: Ref[Reachable] = Ref("machine")
    source: Ref[SourceImage] = Ref("source")
    step: Step = RunShell(account.ec2, connections, machine, source, options, ("true",))
    if fault == "a script that is gone":
        step = replace(step, script=tmp_path / "gone")  # type: ignore[call-arg]
    elif fault == "a template":
        (tmp_path / "page").write_text("{{ nothing }}")
        base = (account.ec2, connections, machine, source, options)
        step = RenderTemplate(*base, src=tmp_path / "page", dest=str(tmp_path / "there"), vars={}, known={})
    elif fault == "a file that is gone":
        step = UploadFile(account.ec2, connections, machine, source, options, tmp_path, "gone", f"{tmp_path}/there")
    elif fault == "a when":
        step = replace(step, options=replace(options, when=(Late("source.name | int // 0", ()),)))
    elif fault == "an env":
        step = replace(step, options=replace(options, env={"A": bad}))
    with pytest.raises(ImagepipeError) as failed:
        _run(account, server, step)
    assert str(failed.value).startswith(f"step 'copy' ({options.where}): ")
    assert str(failed.value).count("step 'copy'") == 1
