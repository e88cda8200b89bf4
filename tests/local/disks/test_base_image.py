"""The base image: built once, whole or not at all. A stand-in for mmdebstrap makes a small tree quickly."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from imagepipe.cli.local import local
from imagepipe.deletion import mount_points
from imagepipe.errors import LocalCloudError
from imagepipe.local.disks import base_image as room
from imagepipe.local.disks.base_image import built_base, ensure_base, recipe_key, repair
from imagepipe.local.store import Store
from tests.plain_user import plain_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="builds as root")

MMDEBSTRAP = """#!/bin/sh
for tree; do :; done
echo "I: running apt-get update..." >&2
{extra}
mkdir -p $tree/etc/ssh $tree/etc/cloud/cloud.cfg.d $tree/var/log $tree/usr/lib/grub/i386-pc
head -c 512 /dev/zero >$tree/usr/lib/grub/i386-pc/boot.img
echo 12.99 >$tree/etc/debian_version
echo key >$tree/etc/ssh/ssh_host_rsa_key
echo nameserver 192.0.2.1 >$tree/etc/resolv.conf
echo build-host >$tree/etc/hostname
echo 0123456789abcdef >$tree/etc/machine-id
"""
# GRUB's core of the stand-in tree, as grub-mkimage would make it there.
CHROOT = """#!/bin/sh
head -c 1536 /dev/zero | tr '\\0' G >$1/boot/grub/core.img
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str = "") -> None:
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in (("mmdebstrap", MMDEBSTRAP.format(extra=extra)), ("chroot", CHROOT)):
        script = tools / name
        script.write_text(text)
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")


def contents(disk: Path, name: str) -> str:
    done = subprocess.run(["debugfs", "-R", f"cat {name}", str(disk)], capture_output=True, text=True, check=True)
    return done.stdout


def processes(words: str) -> list[str]:
    """The commands of this computer's processes that have these words in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace").replace("\0", " "))
    return [command for command in found if words in command]


def test_the_image_has_nothing_of_the_computer_that_built_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch)
    lines: list[str] = []
    image = ensure_base(store, lines.append)
    assert image.name.startswith("debian-12-amd64-")
    assert "12.99" in image.description
    assert image.path.stat().st_size == image.size_gib << 30
    assert contents(image.path, "/etc/resolv.conf") == "nameserver 10.0.2.3\n"
    assert contents(image.path, "/etc/hostname") == "localhost\n"
    assert contents(image.path, "/etc/machine-id") == ""
    assert "name: admin" in contents(image.path, "/etc/cloud/cloud.cfg.d/01_debian_cloud.cfg")
    assert "key" not in contents(image.path, "/etc/ssh/ssh_host_rsa_key")
    subprocess.run(["e2fsck", "-fn", str(image.path)], check=True, capture_output=True)
    assert any("apt-get update" in line for line in lines)
    assert not list(store.base_cache.glob(".build-*"))


def test_the_same_system_is_there_on_a_disk_that_can_boot_by_itself(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch)
    base = ensure_base(store, lambda line: None)
    disk = base.as_disk()
    assert disk is not None
    assert disk.name == base.name.replace("debian", "debian-disk")
    assert built_base(store) == base
    listed = subprocess.run(["sfdisk", "--json", str(disk.path)], capture_output=True, text=True, check=True).stdout
    table = json.loads(listed)["partitiontable"]
    root, bios = (
        {row["node"].removeprefix(str(disk.path)): row for row in table["partitions"]}[n] for n in ("1", "14")
    )
    assert table["label"] == "gpt"
    assert root["start"] > bios["start"]  # last, so that it can grow
    file_system = f"{disk.path}?offset={root['start'] * 512}"
    assert "root=LABEL=rootfs" in contents(Path(file_system), "/boot/grub/grub.cfg")
    assert contents(Path(file_system), "/boot/grub/core.img") == ""
    assert contents(base.path, "/boot/grub/grub.cfg") == ""
    with disk.path.open("rb") as file:
        first = file.read(512)
        file.seek(bios["start"] * 512)
        core = file.read(1536)
    assert struct.unpack_from("<Q", first, 0x5C)[0] == bios["start"]
    assert struct.unpack_from("<QHH", core, 500) == (bios["start"] + 1, 2, 0x820)
    assert core[600:] == b"G" * 936


def test_it_is_built_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch)
    first = ensure_base(store, lambda line: None)
    stand_in(tmp_path, monkeypatch, "exit 1")
    assert ensure_base(store, lambda line: None) == first


def test_processes_that_want_it_at_once_build_it_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, f"echo built >>{tmp_path}/builds; sleep 0.3")
    threads = [threading.Thread(target=ensure_base, args=(store, lambda line: None)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "builds").read_text() == "built\n"


def test_another_recipe_is_another_image(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch)
    ensure_base(store, lambda line: None)
    before = recipe_key()
    monkeypatch.setattr(room, "PACKAGES", (*room.PACKAGES, "one-more"))
    assert recipe_key() != before
    assert built_base(store) is None


def test_a_failed_build_shows_mmdebstraps_error_and_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, 'echo "E: mirror unreachable" >&2; exit 25')
    with pytest.raises(LocalCloudError, match=r"(?s)exited with 25:.*mirror unreachable") as failed:
        ensure_base(store, lambda line: None)
    assert failed.value.hint is not None
    assert [path.name for path in store.base_cache.iterdir()] == ["lock"]


def test_an_interrupted_build_leaves_no_image_and_nothing_running(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, f'echo "I: going on..." >&2; tail -f {tmp_path}/tools/mmdebstrap')

    def interrupt(line: str) -> None:
        if "going on" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_base(store, interrupt)
    assert not processes(f"{tmp_path}/tools/mmdebstrap")
    assert [path.name for path in store.base_cache.iterdir()] == ["lock"]


def test_leftovers_of_a_killed_builder_are_deleted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, f"tail -f {tmp_path}/tools/mmdebstrap")
    code = (
        "from pathlib import Path\nfrom imagepipe.local.disks.base_image import ensure_base\n"
        f"from imagepipe.local.store import Store\nensure_base(Store.open(Path({str(store.root)!r})), print)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as builder:
        end = time.monotonic() + 60
        while not processes(f"tail -f {tmp_path}/tools/mmdebstrap"):
            assert time.monotonic() < end
            time.sleep(0.02)
        builder.kill()
    while processes(f"{tmp_path}/tools/mmdebstrap"):
        assert time.monotonic() < end, "mmdebstrap outlives the process that started it"
        time.sleep(0.02)
    assert list(store.base_cache.glob(".build-*"))
    stand_in(tmp_path, monkeypatch)
    ensure_base(store, lambda line: None)
    assert not list(store.base_cache.glob(".build-*"))


def test_a_full_disk_is_reported_before_anything_is_built(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, f"touch {tmp_path}/asked")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20})())
    with pytest.raises(LocalCloudError, match="1 MiB free"):
        ensure_base(store, lambda line: None)
    assert not (tmp_path / "asked").exists()


def test_nothing_that_is_mounted_in_the_tree_is_seen_outside_of_the_build(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "shared"
    canary.mkdir()
    (canary / "canary").touch()
    mount = f'mkdir -p $tree/dev/shm; mount --bind {canary} $tree/dev/shm; echo "I: going on..." >&2; sleep 60'
    stand_in(tmp_path, monkeypatch, mount)

    def interrupt(line: str) -> None:
        if "going on" in line:
            assert not mount_points(store.base_cache)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_base(store, interrupt)
    assert (canary / "canary").exists()
    assert [path.name for path in store.base_cache.iterdir()] == ["lock"]


IN_NAMESPACE = ("unshare", "--mount", "--propagation", "private")
LEFT = """
mkdir -p "$1/.build-1/tree/dev/shm" "$1/.build-1/tree/proc" shared && touch shared/canary
mount --bind shared "$1/.build-1/tree/dev/shm"
mount -t proc proc "$1/.build-1/tree/proc"
"$2" -c "$3" "$1" && ls shared
"""
REPAIR = (
    "import sys; from pathlib import Path; from imagepipe.local.disks.base_image import repair;"
    " from imagepipe.local.store import Store; repair(Store.open(Path(sys.argv[1]).parent), print)"
)


def test_mounts_that_an_earlier_version_left_are_unmounted_and_nothing_behind_them_is_deleted(
    store: Store, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*IN_NAMESPACE, "sh", "-ec", LEFT, "sh", str(store.base_cache), sys.executable, REPAIR],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("canary\n")
    assert "which a killed build left" in done.stdout
    assert not list(store.base_cache.glob(".build-*"))


def test_a_builder_that_is_at_work_is_left_alone(store: Store) -> None:
    (store.base_cache / ".build-1").mkdir()
    with (store.base_cache / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        repair(store)
        assert (store.base_cache / ".build-1").exists()
    repair(store)
    assert not (store.base_cache / ".build-1").exists()


def test_a_long_step_is_reported_again_and_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "STEP_SECONDS", 0.2)
    stand_in(tmp_path, monkeypatch, "sleep 1")
    lines: list[str] = []
    ensure_base(store, lines.append)
    assert len([line for line in lines if line.startswith("base image: running apt-get update, ")]) >= 2


def test_root_without_the_privilege_to_mount_builds_the_image_too(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the build of a container."""
    stand_in(tmp_path, monkeypatch)
    drop = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    environ = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([*drop, sys.executable, "-c", BUILD], env=environ, capture_output=True, text=True)
    assert contents(Path(done.stdout.strip()), "/etc/hostname") == "localhost\n", done.stderr


def test_the_command_builds_the_image_and_prints_its_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch)
    for _ in range(2):
        made = CliRunner().invoke(local, ["--store", str(store.root), "base"])
        built = built_base(store)
        assert built is not None
        assert made.stdout == f"{built.path}\n"


needs_uidmap = pytest.mark.skipif(shutil.which("newuidmap") is None, reason="needs uidmap")
BUILD = """
import sys
from pathlib import Path
from imagepipe.errors import LocalCloudError
from imagepipe.local.disks.base_image import ensure_base
from imagepipe.local.store import Store
try:
    print(ensure_base(Store.open(Path.home() / "store"), lambda line: None).path)
except LocalCloudError as error:
    print(error.message, error.hint, sep="\\n")
"""
OWNERS = """
mkdir -p $tree/var/lib/dbus $tree/var/cache/man/private
echo of-the-mailer >$tree/var/lib/dbus/note
chown -R 8:12 $tree/var/lib/dbus
chown -R 6:12 $tree/var/cache/man
chmod 700 $tree/var/cache/man/private $tree/var/cache/man
"""


@needs_uidmap
def test_a_plain_user_builds_the_image_with_the_owners_that_root_would_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plain_user() as user:
        (user.files / "tools").mkdir()
        stand_in(user.files, monkeypatch, OWNERS)
        path = f"{user.files}/tools:{os.environ['PATH']}"
        image = Path(user.python(BUILD, env={"PATH": path}).strip())
        assert image.is_file()
        done = subprocess.run(["debugfs", "-R", "stat /var/lib/dbus/note", str(image)], capture_output=True, text=True)
        assert re.search(r"User:\s+8\s+Group:\s+12\b", done.stdout)
        done = subprocess.run(["debugfs", "-R", "stat /etc/hostname", str(image)], capture_output=True, text=True)
        assert re.search(r"User:\s+0\s+Group:\s+0\b", done.stdout)
        assert contents(image, "/etc/hostname") == "localhost\n"
        subprocess.run(["e2fsck", "-fn", str(image)], check=True, capture_output=True)
        assert not list(image.parent.glob(".build-*"))


@needs_uidmap
def test_a_build_of_a_plain_user_that_fails_leaves_no_file_of_a_subordinate_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with plain_user() as user:
        (user.files / "tools").mkdir()
        stand_in(user.files, monkeypatch, f"{OWNERS}\nexit 1")
        said = user.python(BUILD, env={"PATH": f"{user.files}/tools:{os.environ['PATH']}"})
        assert "mmdebstrap exited with 1" in said
        owners = {path.lstat().st_uid for path in user.home.rglob("*")}
        assert not [owner for owner in owners if owner in user.subordinates]
        assert not list(user.home.rglob(".build-*"))


@needs_uidmap
def test_a_plain_users_build_that_is_killed_leaves_no_process_and_the_next_deletes_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with plain_user() as user:
        (user.files / "tools").mkdir()
        stand_in(user.files, monkeypatch, f"{OWNERS}\ntouch $tree/begun; exec sleep 600")
        environ = {"PATH": f"{user.files}/tools:{os.environ['PATH']}"}
        with user.popen(sys.executable, "-c", BUILD, env=environ) as build:
            deadline = time.monotonic() + 30
            while not list(user.home.rglob("begun")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            build.kill()
        while user.processes():
            assert time.monotonic() < deadline, user.processes()
            time.sleep(0.05)
        stand_in(user.files, monkeypatch, OWNERS)
        assert Path(user.python(BUILD, env=environ).strip()).is_file()
        assert not list(user.home.rglob(".build-*"))


def test_a_plain_user_without_subordinate_ids_reads_which_line_is_missing() -> None:
    with plain_user(has_ids=False) as user:
        said = user.python(BUILD, env={"PATH": os.environ["PATH"]})
        assert "/etc/subuid: no line gives plain 65535 ids, such as plain:100000:65536" in said
        assert "usermod --add-subgids 100000-165535 plain" in said
