"""The driver that `auto` starts a machine with, by its root disk and its user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagepipe.local.disks.contents import EXT_MAGIC_AT, MIN_DISK_BYTES
from imagepipe.local.host import foreign
from imagepipe.local.machines.auto import AutoDriver
from imagepipe.local.machines.driver import Disk, Machine, Seed

ROOT, PLAIN = 0, 1000


@pytest.fixture
def auto(tmp_path: Path) -> Iterator[AutoDriver]:
    driver = AutoDriver(tmp_path / "machines")
    yield driver
    driver.close()


def machine(disk: Path, *, is_bare: bool, is_foreign: bool) -> Machine:
    with disk.open("wb") as file:
        file.truncate(MIN_DISK_BYTES)
        if is_bare:
            file.seek(EXT_MAGIC_AT)
            file.write(b"\x53\xef")
    if is_foreign:
        foreign.mark(disk)
    return Machine("i-0ab", "127.42.1.4", (Disk("/dev/xvda", disk),), Seed("i-0ab", "a", "us-east-1", b"", ()))


@pytest.mark.parametrize(
    ("user", "is_bare", "is_foreign", "driver"),
    [
        (ROOT, True, False, "container"),
        (ROOT, False, False, "qemu"),
        (ROOT, True, True, "qemu"),
        (PLAIN, True, False, "qemu"),
        (PLAIN, False, False, "qemu"),
        (PLAIN, True, True, "qemu"),
    ],
    ids=[
        "root, a bare file system", "root, a boot loader", "root, an imported disk",
        "a plain user, a bare file system", "a plain user, a boot loader", "a plain user, an imported disk",
    ],
)  # fmt: skip
def test_only_root_gets_a_container_and_only_for_a_bare_file_system_of_our_own(
    auto: AutoDriver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    is_bare: bool,
    is_foreign: bool,
    driver: str,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert auto.choose(machine(tmp_path / "a.raw", is_bare=is_bare, is_foreign=is_foreign)).name == driver
