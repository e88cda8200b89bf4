import threading
from pathlib import Path

import pytest

from imagepipe.local.host import cgroup
from imagepipe.local.host.cgroup import MachineGroup


def test_groups_that_come_and_go_do_not_hide_the_processes_of_those_that_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that boots makes and removes groups while its processes are looked for."""
    monkeypatch.setattr(cgroup, "hierarchies", lambda: [tmp_path])
    group = MachineGroup("i-0ab")
    group.make()
    stays = tmp_path / "imagepipe-i-0ab" / "payload"
    stays.mkdir()
    (stays / "cgroup.procs").write_text("17\n")
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            for number in range(20):
                (stays / f"{number}.service").mkdir()
            for number in range(20):
                (stays / f"{number}.service").rmdir()

    systemd = threading.Thread(target=come_and_go)
    systemd.start()
    try:
        seen = [list(group.processes()) for _ in range(200)]
    finally:
        done.set()
        systemd.join()
    assert seen == [[17]] * 200


def test_a_removed_group_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "hierarchies", lambda: [tmp_path])
    group = MachineGroup("i-0ab")
    group.make()
    (tmp_path / "imagepipe-i-0ab" / "payload" / "system.slice").mkdir(parents=True)
    group.remove()
    assert list(tmp_path.iterdir()) == []
