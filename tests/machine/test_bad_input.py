"""Every failure ends in a sentence that names cause and remedy, in the right exit code, and with nothing left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagepipe.cli.main import BUG
from imagepipe.local.client import connect
from imagepipe.local.daemon import rendezvous
from tests.machine.bakery import Baked, Bakery, until

pytestmark = pytest.mark.machine


def _edited(bakery: Bakery, name: str, *changes: tuple[str, str], steps: str = "- shell: 'true'") -> Path:
    path = bakery.spec(name, steps)
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def _fails(baked: Baked, code: int, *words: str) -> None:
    """It failed with this code, said these words, and showed no traceback."""
    assert baked.code == code, baked.err
    for word in words:
        assert word in baked.err, baked.err
    assert "Traceback" not in baked.err
    assert BUG not in baked.err


def _is_sleeping(bakery: Bakery) -> bool | None:
    return any("sleeping" in e.get("text", "") for e in bakery.events()) or None


def _instance(bakery: Bakery) -> str:
    return next(str(r["id"]) for r in bakery.journal() if r["type"] == "bound" and r["id"].startswith("i-"))


def test_a_name_that_is_taken_in_a_copy_region_is_found_before_anything_is_launched(quick: Bakery) -> None:
    fixed = ('name: "taken-{{ build.id }}"', "name: fixed-name")
    west = ("us-east-1", "us-west-2")
    quick.build(_edited(quick, "taken", fixed, ("[us-west-2]", "[]"), west))
    before = quick.inventory()
    spec = _edited(quick, "taken", fixed)
    _fails(
        quick("build", str(spec), "--local"),
        3,
        "name 'fixed-name' is taken by ami-",
        "in us-west-2",
        "hint: put {{ build.timestamp }} into output.name",
    )
    assert quick.inventory() == before
    assert "launch" not in [e["stage"] for e in quick.events() if e["event"] == "StageStarted"]


BEFORE_LAUNCH: dict[str, tuple[tuple[str, str], int, tuple[str, ...]]] = {
    "no image matches": (
        ("debian-12-amd64-*", "no-such-*"),
        3,
        ("no available image is named no-such-* (owner 136693071363) in us-east-1", "hint: compare with `aws ec2"),
    ),
    "an id that there is not": (
        ('{name: "debian-12-amd64-*", owners: ["136693071363"]}', "ami-0123456789abcdef0"),
        3,
        ("ami-0123456789abcdef0", "InvalidAMIID.NotFound", "hint: image ids differ by region"),
    ),
    "script missing": (("shell: 'true'", "shell: {script: nope.sh}"), 2, ("file nope.sh does not exist", ":6:")),
    "undefined variable": (("'true'", "echo {{ var.nope }}"), 2, ("undefined variable 'var.nope'", ":6:")),
}


@pytest.mark.parametrize("case", BEFORE_LAUNCH)
def test_what_is_wrong_before_a_launch_leaves_nothing(quick: Bakery, case: str) -> None:
    change, code, words = BEFORE_LAUNCH[case]
    before = quick.inventory()
    _fails(quick("build", str(_edited(quick, "wrong", change)), "--local"), code, *words)
    assert quick.inventory() == before


def test_several_images_where_only_one_may_match_are_named(quick: Bakery) -> None:
    first, second = quick.build(quick.spec("many", "[]")), quick.build(quick.spec("many", "[]"))
    change = (
        'name: "debian-12-amd64-*", owners: ["136693071363"]',
        'name: "many-*", owners: [self], most_recent: false',
    )
    before = quick.inventory()
    failed = quick("build", str(_edited(quick, "narrow", change)), "--local")
    _fails(failed, 3, "2 images are named many-* (owner self) in us-east-1", "hint: use a narrower name")
    for baked in (first, second):
        assert baked.images["us-east-1"] in failed.err
    assert quick.inventory() == before


def test_without_credentials_the_local_cloud_is_named(quick: Bakery) -> None:
    _fails(quick("build", str(quick.spec("aws", "[]"))), 3, "no AWS credentials", "--local")
    assert not quick.runs.exists() or not list(quick.runs.iterdir())


def test_without_a_usable_driver_doctor_is_named_and_says_what_to_install(bakery: Bakery) -> None:
    tools = bakery.folder / "path"
    tools.mkdir()
    for name in ("git", "mmdebstrap"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    other = {"PATH": str(tools), "IMAGEPIPE_LOCAL_STORE": str(bakery.folder / "other")}
    failed = bakery("build", str(bakery.spec("no-driver", "[]")), "--local", **other)
    _fails(failed, 9, "systemd-nspawn: not found (package systemd-container)", "hint: imagepipe local doctor")
    doctor = bakery("local", "doctor", **other)
    _fails(doctor, 9, "systemd-nspawn")
    install = next(line for line in doctor.out.splitlines() if "apt-get install" in line)
    assert {"systemd-container", "slirp4netns"} <= set(install.split())


def test_a_store_of_a_newer_version_is_refused(quick: Bakery) -> None:
    other = quick.folder / "other"
    other.mkdir()
    (other / "format").write_text("99\n")
    failed = quick("build", str(quick.spec("newer", "[]")), "--local", IMAGEPIPE_LOCAL_STORE=str(other))
    _fails(failed, 9, "written by a newer imagepipe (format 99", "hint: upgrade imagepipe")


def test_a_port_that_is_taken_is_named(quick: Bakery) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        store = str(quick.folder / "other")
        _fails(quick("local", "--store", store, "serve", "--port", port), 9, f"port {port}", "hint: name another port")


def test_a_state_folder_that_cannot_be_written_ends_a_build_before_anything_is_made(quick: Bakery) -> None:
    before = quick.inventory()
    (quick.folder / "file").touch()
    failed = quick("build", str(quick.spec("state", "[]")), "--local", XDG_STATE_HOME=str(quick.folder / "file"))
    _fails(failed, 1, "writing the journal", "Not a directory", "XDG_STATE_HOME")
    assert quick.inventory() == before


@pytest.fixture
def small(bakery: Bakery) -> Iterator[Callable[[int], Path]]:
    """A folder on a file system of its own, of so many MiB."""
    where = bakery.folder / "small"
    where.mkdir()

    def mount(size: int) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(where)], check=True)
        return where / "store"

    yield mount
    bakery("local", "stop", "--force", IMAGEPIPE_LOCAL_STORE=str(where / "store"))
    # The process that said why it does not serve is on its way out.
    until(lambda: subprocess.run(["umount", str(where)], check=False).returncode == 0 or None, "it is unmounted")


def test_a_store_without_room_for_the_base_image_is_one_clear_error(
    bakery: Bakery, small: Callable[[int], Path]
) -> None:
    store = small(100)
    failed = bakery("build", str(bakery.spec("full", "[]")), "--local", IMAGEPIPE_LOCAL_STORE=str(store))
    _fails(failed, 9, "its store is full", "MiB are needed", "hint: free some room")
    assert failed.err.count("error: ") == 1
    assert not bakery.runs.exists() or not list(bakery.runs.iterdir())


def test_a_store_that_is_full_at_launch_says_so_and_nothing_is_held(
    bakery: Bakery, small: Callable[[int], Path]
) -> None:
    store = small(1800)  # room for the base images in any number of regions, and for no volume beside them
    failed = bakery("build", str(bakery.spec("full", "[]")), "--local", IMAGEPIPE_LOCAL_STORE=str(store))
    _fails(failed, 3, "MiB free", "MiB are needed")
    assert failed.err.count("error: ") == 1
    assert bakery("clean", "--all").out == "nothing to delete\n"


def test_a_machine_that_powers_itself_off_in_a_step_is_said_to_be_stopped(bakery: Bakery) -> None:
    before = bakery.inventory()
    spec = bakery.spec("poweroff", "- name: ends\n  shell: sudo systemctl poweroff; sleep 30")
    _fails(
        bakery("build", str(spec), "--local"),
        7,
        "step 'ends' (",
        "is stop",
        "hint: did the step or somebody else power it off",
    )
    assert bakery.inventory() == before


def test_a_machine_that_was_powered_off_on_purpose_is_not_waited_for(bakery: Bakery) -> None:
    before = bakery.inventory()
    step = "- shell: sudo systemctl poweroff; sleep 30\n  expect_disconnect: true"
    began = time.monotonic()
    _fails(bakery("build", str(bakery.spec("poweroff", step)), "--local"), 3, "SSH will not come back", "power it off")
    assert time.monotonic() - began < 60
    assert bakery.inventory() == before


def test_the_last_step_may_reboot_the_machine(bakery: Bakery) -> None:
    bakery.build(bakery.spec("rebooted", "- shell: sudo systemctl reboot; sleep 30\n  expect_disconnect: true"))


@pytest.mark.parametrize("moment", ["connect", "step"])
def test_an_instance_that_somebody_else_terminates_ends_the_build(quick: Bakery, moment: str) -> None:
    before = quick.inventory()
    changes = [("region: us-east-1", "region: us-east-1, ssh: {port: 2222, timeout: 5m}")]
    steps = "- name: long\n  shell: echo sleeping; sleep 120"
    spec = _edited(quick, "robbed", *(changes if moment == "connect" else []), steps=steps)
    process = quick.start("build", str(spec), "--local")

    def came() -> bool | None:
        if moment == "step":
            return _is_sleeping(quick)
        return any("no login yet" in e.get("text", "") for e in quick.events()) or None

    until(came, moment)
    instance = _instance(quick)
    quick.client().terminate_instances(InstanceIds=[instance])
    out, err = process.communicate(timeout=900)
    failed = Baked(process.returncode, out, err)
    if moment == "step":
        _fails(failed, 7, "step 'long' (", f"{instance} is ", "somebody else")
    else:
        _fails(failed, 3, f"{instance} in us-east-1 ended before it was reached")
    assert quick.inventory() == before


def test_an_endpoint_that_dies_ends_the_build_and_clean_cleans_up_what_it_left(quick_bakery: Bakery) -> None:
    bakery = quick_bakery
    before = bakery.inventory()
    process = bakery.start("build", str(bakery.spec("dies", "- shell: echo sleeping; sleep 3; exit 1")), "--local")
    until(lambda: _is_sleeping(bakery), "the step runs")
    serves = connect.find(bakery.store)
    assert serves is not None
    os.kill(serves.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=900)
    _fails(Baked(process.returncode, out, err), 7, "exit code 1", "still held: instance i-", "run: imagepipe clean")
    cleaned = bakery("clean", "--all", "--local")
    assert cleaned.code == 0, cleaned.err
    assert bakery.inventory() == before


def test_two_first_builds_at_once_share_one_cloud(quick: Bakery) -> None:
    store = quick.folder / "shared"
    own: dict[str, Any] = {"IMAGEPIPE_LOCAL_STORE": str(store)}
    specs = [quick.spec(name, "- shell: 'true'") for name in ("one", "two")]
    both = [quick.start("build", str(spec), "--local", **own) for spec in specs]
    for process in both:
        _, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
    assert quick("local", "stop", **own).code == 0
    assert not rendezvous.is_locked(store / "lock")
