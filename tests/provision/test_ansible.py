"""The search for ansible-playbook. Playbooks on machines are in tests/machine/test_ansible.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from imagepipe.cli.loading import check_this_computer
from imagepipe.errors import ImagepipeError
from imagepipe.provision.ansible import ansible_playbook
from tests.spec.conftest import Loader, loaded

__all__ = ["loaded"]


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
