"""Playbooks on a real sshd of this computer. Those on machines are in tests/machine/test_ansible.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagepipe.cli.loading import check_this_computer
from imagepipe.cloud.images import SourceImage
from imagepipe.communicator.ssh import Connections
from imagepipe.engine.stage import Ref
from imagepipe.errors import CommandFailed, ImagepipeError
from imagepipe.inputs.collect import ansible_files
from imagepipe.provision.ansible import RunPlaybook, ansible_playbook
from imagepipe.provision.step import Options
from imagepipe.spec.step_models import Ansible
from imagepipe.values import Instance, Reachable
from tests.account import Account
from tests.communicator.sshd import sshd
from tests.local.aws import harness
from tests.spec.conftest import Loader, loaded

__all__ = ["loaded"]
SOURCE = SourceImage("ami-0", "debian-12", "1", "x86_64", "hvm", "/dev/xvda", "ebs", ())


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer without Ansible: an empty PATH, and a Python with nothing beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    return folder


def _add(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "ansible-playbook"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    return os.fspath(program)


def test_it_is_found_on_the_path_and_beside_our_python(empty: Path, tmp_path: Path) -> None:
    beside = _add(tmp_path / "venv" / "bin")
    assert ansible_playbook() == beside
    on_path = _add(empty)
    assert ansible_playbook() == on_path


def test_a_build_that_needs_it_is_refused_before_it_begins(empty: Path, loaded: Loader) -> None:
    files = {"site.yml": "- hosts: all\n"}
    spec = loaded("provision: [{ansible: site.yml}]\n", files=files)
    with pytest.raises(ImagepipeError, match="ansible-playbook was not found on this computer") as refused:
        check_this_computer([spec], None, is_local=True)
    assert "run: machine" in str(refused.value.hint)
    on_machine = loaded("provision: [{ansible: {playbook: site.yml, run: machine}}]\n", files=files)
    check_this_computer([on_machine], None, is_local=True)


ROLE = "- {copy: {content: from the role, dest: '{{ made }}', mode: '0600'}}\n"
HERE = {"is_here": True}
THERE = {"is_here": False}


@pytest.fixture
def play(account: Account, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that runs the playbook `playbooks/site.yml` of a project, whose machine is this computer.

    The spec is in `specs/`. The function returns the content of the file that the role makes.
    """
    with sshd(tmp_path / "sshd", env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}) as server:

        def run(text: str, *, is_here: bool, playbook: str = "../playbooks/site.yml", **more: Any) -> str:
            tasks = tmp_path / "playbooks/roles/web/tasks"
            tasks.mkdir(parents=True)
            (tmp_path / "specs").mkdir()
            (tmp_path / "kept").mkdir()
            (tasks / "main.yml").write_text(ROLE, encoding="utf-8")
            (tmp_path / "kept/site.yml").write_text(text, encoding="utf-8")
            (tmp_path / "playbooks/site.yml").symlink_to("../kept/site.yml")
            made = tmp_path / "made"
            folder = tmp_path / "specs"
            options = Options("site.yml", "web.yaml:9", 300, 0, False, (0,), False, False)
            step = RunPlaybook(
                account.ec2,
                Connections(),
                Ref("machine"),
                Ref("source"),
                options,
                folder=folder,
                playbook=playbook,
                names=ansible_files(Ansible(playbook=playbook), folder),
                is_here=is_here,
                extra_vars={"made": str(made)},
                **more,
            )
            instance = Instance(harness.running(account.cloud.client()), "us-east-1", "t3.small", "/dev/xvda", None)
            try:
                step.run(account.context(machine=Reachable(instance, server.endpoint), source=SOURCE))
            finally:
                step.connections.close()
            return made.read_text(encoding="utf-8") if made.exists() else ""

        yield run


@pytest.mark.parametrize("where", [HERE, THERE], ids=["from here", "on the machine"])
def test_a_playbook_beside_the_folder_of_specs_finds_its_roles_and_leaves_nothing(
    play: Callable[..., str], tmp_path: Path, where: dict[str, bool]
) -> None:
    assert play("- {hosts: all, gather_facts: false, roles: [web]}\n", **where) == "from the role"
    place = Path("/tmp")
    left = [path for path in place.glob("imagepipe-*/extra-vars.json") if str(tmp_path) in path.read_text()]
    assert left == []
    assert not (place / "playbooks").exists()


@pytest.mark.parametrize("where", [HERE, THERE], ids=["from here", "on the machine"])
def test_a_playbook_without_a_play_for_the_machine_did_nothing_and_fails(
    play: Callable[..., str], where: dict[str, bool]
) -> None:
    with pytest.raises(ImagepipeError, match="no play has hosts that match the machine") as refused:
        play("- {hosts: web, gather_facts: false, roles: [web]}\n", **where)
    assert "`groups`" in str(refused.value.hint)


def test_a_playbook_may_have_plays_for_other_machines(play: Callable[..., str]) -> None:
    text = "- {hosts: db, tasks: []}\n- {hosts: web, gather_facts: false, roles: [web]}\n"
    assert play(text, groups=("web",), **HERE) == "from the role"


def test_a_machine_that_ansible_cannot_reach_is_a_broken_connection(play: Callable[..., str]) -> None:
    text = "- {hosts: all, gather_facts: false, remote_user: nobody-of-this-name, tasks: [{ping: }]}\n"
    with pytest.raises(CommandFailed, match="Ansible could not reach the machine") as broken:
        play(text, args=("--user", "nobody-of-this-name", "--extra-vars", "ansible_user=nobody-of-this-name"), **HERE)
    assert "idempotent: true" in str(broken.value.hint)
