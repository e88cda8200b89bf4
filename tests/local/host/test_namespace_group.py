"""The processes of a plain user's machine are found by their process namespace, and end with its first process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagepipe.local.host.namespace_group import NamespaceGroup
from imagepipe.local.host.processes import start_time
from imagepipe.local.host.waiting import tries
from imagepipe.local.machines.launch import OWN_NAMESPACES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")

SUPERVISOR = "import subprocess, sys; c = subprocess.Popen(['sleep', '600']); print('up', flush=True); c.wait()"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor of the machine i-0ab, with a child, in namespaces of its own."""
    command = [*OWN_NAMESPACES, sys.executable, "-c", SUPERVISOR, str(tmp_path / "i-0ab")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"up\n":
            pytest.skip("no user namespaces here")
        yield process
        process.kill()


def commands(group: NamespaceGroup) -> list[str]:
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in group.processes()]


def is_empty(group: NamespaceGroup) -> bool:
    return any(not list(group.processes()) for _ in tries(10))


def test_the_supervisor_and_its_children_are_the_members(started: subprocess.Popen[bytes]) -> None:
    group = NamespaceGroup("i-0ab")
    assert len(commands(group)) == 2
    assert "sleep" in commands(group)
    assert group.leader() in list(group.processes())
    assert started.pid not in list(group.processes())
    assert list(NamespaceGroup("i-0a").processes()) == []


def test_to_kill_the_group_is_to_end_all_members(started: subprocess.Popen[bytes]) -> None:
    group = NamespaceGroup("i-0ab")
    members = list(group.processes())
    group.kill()
    assert started.wait(10) != 0
    assert group.wait_empty(10)
    assert [start_time(pid) for pid in members] == ["", ""]


def test_the_members_end_with_the_process_that_made_their_namespaces(started: subprocess.Popen[bytes]) -> None:
    group = NamespaceGroup("i-0ab")
    members = list(group.processes())
    started.kill()
    started.wait(10)
    assert is_empty(group)
    assert any(all(start_time(pid) == "" for pid in members) for _ in tries(10))


def test_a_group_without_processes_is_empty_and_killed() -> None:
    group = NamespaceGroup("i-0cd")
    group.make()
    group.kill()
    assert group.wait_empty(0)
    group.remove()
