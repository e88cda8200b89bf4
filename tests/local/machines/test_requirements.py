"""What doctor says of computers that lack this and that."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from imagepipe.local.machines.requirements import (
    Computer,
    Verdict,
    container_problems,
    examine,
    failures,
    install_command,
    qemu_problems,
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
)


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
        (replace(WHOLE, is_root=False), "root"),
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
