"""doctor's findings on computers that lack requirements."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagepipe.local.disks.base_image import recipe_key
from imagepipe.local.host.rootless import Lack
from imagepipe.local.machines.requirements import (
    Computer,
    Verdict,
    auto_problems,
    container_problems,
    examine,
    failures,
    install_command,
    qemu_problems,
    sshd_problems,
)
from imagepipe.local.store import Store

GROUPS = [Path("/")]
WHOLE = Computer(
    which=lambda tool: f"/usr/bin/{tool}",
    has_module=lambda name: True,
    exists=lambda path: True,
    read=lambda path: "",
    system="Linux",
    machine="x86_64",
    is_root=True,
    groups=lambda: GROUPS,
    opens=lambda path: True,
    why_no_namespaces=lambda: "",
    lacks_of_ids=list,
    why_no_kvm=lambda: "",
)
PLAIN = replace(WHOLE, is_root=False)
NO_IDS = [
    Lack("newuidmap", "not found (package uidmap)", "apt-get install uidmap", "uidmap"),
    Lack("/etc/subuid", "no line gives ann 65535 ids", "usermod --add-subuids 100000-165535 ann"),
]


def without(computer: Computer, *missing: str) -> Computer:
    return replace(computer, which=lambda tool: None if tool in missing else f"/usr/bin/{tool}")


NO_QEMU = without(PLAIN, "qemu-system-x86_64", "qemu-img")


def test_a_computer_with_everything_has_no_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: True)
    assert container_problems(WHOLE) == []
    findings = examine(Store.open(tmp_path), WHOLE)
    assert install_command(findings) is None
    assert failures(findings) == []


def test_all_that_is_missing_is_installed_by_one_command(tmp_path: Path) -> None:
    bare = replace(WHOLE, which=lambda tool: None, exists=lambda path: "keyring" not in path.name)
    command = install_command(examine(Store.open(tmp_path), bare))
    assert command is not None
    words = command.split()
    assert words[:2] == ["apt-get", "install"]
    assert {"systemd-container", "slirp4netns", "mmdebstrap", "iproute2", "e2fsprogs"} <= set(words)
    assert "debian-archive-keyring" in words
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("computer", "what"),
    [
        (PLAIN, "root"),
        (replace(WHOLE, system="Darwin"), "system"),
        (replace(WHOLE, machine="aarch64"), "system"),
        (replace(WHOLE, has_module=lambda name: name != "moto"), "python: moto"),
        (replace(WHOLE, exists=lambda path: path.name != "tun"), "/dev/net/tun"),
        (replace(WHOLE, exists=lambda path: path.name != "loop-control"), "/dev/loop-control"),
        (replace(WHOLE, which=lambda tool: None if tool == "slirp4netns" else tool), "slirp4netns"),
        (replace(WHOLE, groups=list), "control groups"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_missing_requirements_are_named(computer: Computer, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: True)
    problems = container_problems(computer)
    assert [problem.partition(": ")[0] for problem in problems if problem.startswith(what)]


def test_a_service_on_port_22_of_every_address_is_noted() -> None:
    line = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0"
    busy = replace(WHOLE, read=lambda path: f"header\n{line}\n" if path.name == "tcp" else "header\n")
    noted = [finding for finding in examine(None, busy) if finding.what == "port 22"]
    assert [finding.verdict for finding in noted] == [Verdict.NOTE]
    assert not [finding for finding in examine(None, WHOLE) if finding.what == "port 22"]


@pytest.mark.parametrize(
    ("computer", "verdict", "said"),
    [
        (replace(WHOLE, why_no_kvm=lambda: ""), Verdict.OK, "with KVM"),
        (replace(WHOLE, why_no_kvm=lambda: "no such device"), Verdict.NOTE, "software emulation.*no such device"),
        (replace(WHOLE, which=lambda tool: None), Verdict.NOTE, "packages qemu-system-x86, qemu-utils"),
    ],
    ids=["KVM works", "KVM does not", "no QEMU"],
)
def test_the_speed_of_qemu_is_a_note_and_not_a_problem(computer: Computer, verdict: Verdict, said: str) -> None:
    (found,) = [finding for finding in examine(None, computer) if finding.what == "qemu"]
    assert found.verdict is verdict
    assert re.search(said, found.detail)


def test_the_qemu_driver_alone_needs_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: True)
    without = replace(WHOLE, which=lambda tool: None if tool.startswith("qemu") else f"/usr/bin/{tool}")
    assert container_problems(without) == []
    assert [problem.partition(":")[0] for problem in qemu_problems(without)] == ["qemu-system-x86_64", "qemu-img"]


@pytest.mark.parametrize(
    ("computer", "missing", "install", "driver"),
    [
        (WHOLE, [], None, "container, sshd and qemu; auto uses qemu for disks with a boot loader"),
        (without(WHOLE, "qemu-system-x86_64"), [], None, "container and sshd; qemu is missing"),
        (without(WHOLE, "slirp4netns"), ["slirp4netns"], "slirp4netns", "none, until"),
        (PLAIN, [], None, "qemu, for every machine; container and sshd need root"),
        (NO_QEMU, ["qemu-system-x86_64", "qemu-img"], "qemu-system-x86 qemu-utils", "none, until .*: then qemu"),
        (replace(PLAIN, lacks_of_ids=lambda: NO_IDS), ["newuidmap", "/etc/subuid"], "uidmap", "none, until"),
        (replace(PLAIN, why_no_namespaces=lambda: "refused"), ["user namespaces"], None, "none, until"),
        (replace(PLAIN, opens=lambda path: path.name != "tun"), ["/dev/net/tun"], None, "none, until"),
        (without(PLAIN, "nsenter", "setpriv"), ["nsenter", "setpriv"], "util-linux", "none, until"),
        (replace(without(PLAIN, "systemd-nspawn"), groups=list), [], None, "qemu, for every machine"),
    ],
    ids=[
        "root", "root without QEMU", "root without slirp4netns", "a plain user", "a plain user without QEMU",
        "a plain user without uidmap", "no user namespaces", "a closed tun", "an old util-linux",
        "without the requirements of containers",
    ],
)  # fmt: skip
def test_doctor_names_the_driver_that_the_user_can_have_and_what_is_missing(
    computer: Computer, missing: list[str], install: str | None, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: True)
    findings = examine(None, computer)
    assert [finding.what for finding in findings if finding.verdict is Verdict.MISSING] == missing
    command = install_command(findings)
    assert (command.partition("--no-install-recommends ")[2] if command else None) == install
    (told,) = [finding for finding in findings if finding.what == "driver"]
    assert re.match(driver, told.detail)
    assert told.verdict is (Verdict.NOTE if missing else Verdict.OK)


def test_doctor_names_the_line_and_the_command_that_give_a_plain_user_ids() -> None:
    findings = examine(None, replace(PLAIN, lacks_of_ids=lambda: NO_IDS))
    (told,) = [finding for finding in findings if finding.what == "/etc/subuid"]
    assert told.detail == "no line gives ann 65535 ids; as root: usermod --add-subuids 100000-165535 ann"


def test_with_a_base_image_a_plain_user_needs_no_subordinate_ids(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    (store.base_cache / f"{recipe_key()}.json").write_text(
        json.dumps(
            {"file": "a.raw", "disk": "b.raw", "name": "n", "description": "d", "architecture": "x86_64",
             "size_gib": 8, "created": "2026-11-01T00:00:00+00:00"}
        )
    )  # fmt: skip
    (store.base_cache / "a.raw").touch()
    findings = examine(store, replace(PLAIN, lacks_of_ids=lambda: NO_IDS))
    assert failures(findings) == []
    assert [f.verdict for f in findings if f.what in ("newuidmap", "/etc/subuid")] == [Verdict.NOTE, Verdict.NOTE]


def test_the_default_driver_asks_for_the_requirements_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: True)
    assert auto_problems(WHOLE) == auto_problems(PLAIN) == []
    assert [problem.partition(":")[0] for problem in auto_problems(NO_QEMU)] == ["qemu-system-x86_64", "qemu-img"]
    assert auto_problems(without(WHOLE, "qemu-system-x86_64")) == []


def test_drivers_that_need_root_name_the_alternative_to_a_plain_user() -> None:
    for problems in (container_problems(PLAIN), sshd_problems(PLAIN)):
        assert len(problems) == 1
        assert "IMAGEPIPE_LOCAL_DRIVER=qemu" in problems[0]


@pytest.mark.parametrize(
    ("free", "verdict", "text"),
    [
        (100 << 30, Verdict.OK, "100 GiB free"),
        (3 << 30, Verdict.NOTE, "5 GiB are good to have: name a folder on another disk in IMAGEPIPE_LOCAL_STORE"),
        (1 << 30, Verdict.MISSING, "1024 MiB free"),
    ],
)
def test_a_full_disk_is_missing_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict, text: str
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    [room] = [each for each in examine(Store.open(tmp_path), WHOLE) if each.what == "room"]
    assert room.verdict is verdict
    assert text in room.detail
