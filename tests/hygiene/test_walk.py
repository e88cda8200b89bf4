"""Planted files are found by rule and path, and no value is reported. Files that only look like them are not found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from imagepipe.hygiene import walk
from imagepipe.hygiene.content import BLOCK_BYTES
from imagepipe.hygiene.report import Report, ScanRequest
from imagepipe.hygiene.rules import ON_NEW_INSTANCE, RULES
from imagepipe.hygiene.walk import Tree, printable, scan, scan_bytes
from tests.hygiene.planted import (
    AWS_SECRET,
    BUILDER_KEY,
    EVERY_RULE,
    HARMLESS,
    OPENSSH,
    PLANTED,
    RSA,
    SECRET,
    WANTED,
    Harmless,
    Planted,
    put,
)


def _look(root: Path, wanted: ScanRequest = WANTED) -> Report:
    return scan([Tree(str(root))], wanted)


def _found(report: Report) -> set[tuple[str, str]]:
    return {(each.rule, each.path) for each in report.findings}


@pytest.mark.parametrize("planted", PLANTED, ids=lambda each: each.id)
def test_what_is_planted_is_found_by_rule_and_path(tmp_path: Path, planted: Planted) -> None:
    put(tmp_path, planted.path, planted.content)
    assert _found(_look(tmp_path)) == {(rule, planted.path) for rule in planted.rules}


def test_everything_at_once_is_found_and_no_value_is_in_the_report(tmp_path: Path) -> None:
    for planted in PLANTED:
        put(tmp_path, planted.path, planted.content)
    report = _look(tmp_path)
    assert _found(report) == {(rule, planted.path) for planted in PLANTED for rule in planted.rules}
    said = report.line()
    bodies = {each.splitlines()[1] for each in (RSA, OPENSSH)}
    assert not [value for value in (SECRET, AWS_SECRET, BUILDER_KEY, *bodies) if value in said]
    assert [each.path for each in report.findings] == sorted(each.path for each in report.findings)


def test_every_rule_is_planted_but_for_what_cannot_be_read() -> None:
    assert {rule for planted in PLANTED for rule in planted.rules} == {*EVERY_RULE} - {"unreadable"}
    assert len(RULES) - 1 >= 14


@pytest.mark.parametrize("harmless", HARMLESS, ids=lambda each: f"{each.path}: {each.why}")
def test_what_only_looks_like_it_is_no_finding(tmp_path: Path, harmless: Harmless) -> None:
    put(tmp_path, harmless.path, harmless.content)
    assert _look(tmp_path).findings == ()


@pytest.mark.parametrize("before", range(BLOCK_BYTES - 40, BLOCK_BYTES + 8, 6))
def test_a_secret_that_lies_across_two_blocks_is_found(tmp_path: Path, before: int) -> None:
    put(tmp_path, "/secret", bytes(before) + SECRET.encode())
    put(tmp_path, "/key", bytes(before) + RSA.encode())
    assert _found(_look(tmp_path)) == {("build-secret", "/secret"), ("private-key", "/key")}


def test_links_are_not_followed_and_other_names_of_a_file_are_read_once(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    put(outside, "/key.pem", RSA)
    put(root, "/one", RSA)
    (root / "folder").symlink_to(outside)
    (root / "link").symlink_to(outside / "key.pem")
    os.link(root / "one", root / "two")
    os.mkfifo(root / "pipe")
    report = _look(root)
    assert len(report.findings) == 1
    assert report.findings[0].path in ("/one", "/two")
    assert (report.files, report.size) == (1, len(RSA))


def test_a_second_name_does_not_hide_a_file_from_a_rule_by_name(tmp_path: Path) -> None:
    put(tmp_path, "/a", "ls\n")
    (tmp_path / "root").mkdir()
    os.link(tmp_path / "a", tmp_path / "root/.bash_history")
    assert _found(_look(tmp_path)) == {("shell-history", "/root/.bash_history")}


def test_on_an_instance_of_the_image_what_its_boot_makes_is_left_out(tmp_path: Path) -> None:
    for planted in PLANTED:
        put(tmp_path, planted.path, planted.content)
    put(tmp_path, "/var/lib/cloud/instances/i-0a/user-data.txt", OPENSSH)
    found = _found(_look(tmp_path, WANTED._replace(rules=ON_NEW_INSTANCE)))
    assert {rule for rule, _ in found} == {
        "shell-history", "editor-history", "core-dump", "aws-credentials", "credentials", "private-key", "aws-key",
        "build-secret",
    }  # fmt: skip
    assert ("private-key", "/etc/ssh/ssh_host_ed25519_key") not in found
    assert ("private-key", "/var/lib/cloud/instances/i-0a/user-data.txt") not in found


def test_of_a_large_file_the_rest_is_left_out_and_said(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(walk.MOST_BYTES)
        file.seek(0, os.SEEK_END)
        file.write(SECRET.encode())
    report = _look(tmp_path)
    assert report.findings == ()
    assert report.notes == ("only the first GiB of /large was searched",)


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"caf\xe9.pem", "/caf\\xe9.pem"), (b"a\nb.pem", "/a\\nb.pem"), ("naïve.pem".encode(), "/naïve.pem")],
)
def test_a_path_of_any_bytes_can_be_shown(tmp_path: Path, name: bytes, shown: str) -> None:
    (tmp_path / os.fsdecode(name)).write_text(RSA)
    report = _look(tmp_path)
    assert [each.path for each in report.findings] == [shown]
    assert report.line().isprintable()


def test_a_tree_that_is_mounted_elsewhere_is_shown_where_it_will_be(tmp_path: Path) -> None:
    put(tmp_path / "data", "/auth.log", "x")
    put(tmp_path / "root", "/etc/hostname", "x")
    report = scan([Tree(str(tmp_path / "root")), Tree(str(tmp_path / "data"), "/var/log")], WANTED)
    assert _found(report) == {("log", "/var/log/auth.log")}


def test_the_disks_of_this_machine_begin_with_its_root_and_have_none_of_its_memory() -> None:
    trees = walk.disks_of_this_machine()
    assert trees[0] == Tree("/")
    assert not [tree for tree in trees if tree.point.startswith(("/proc", "/sys", "/dev", "/run"))]


def test_bytes_without_a_file_system_are_searched_by_content() -> None:
    report = scan_bytes([bytes(512), RSA.encode(), bytes(512)], "/(the disk from byte 0)", WANTED)
    assert [(each.rule, each.path) for each in report.findings] == [("private-key", "/(the disk from byte 0)")]
    assert report.size == len(RSA) + 1024


def test_what_cannot_be_read_is_a_finding_and_not_passed_over() -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        put(root, "/closed/key.pem", RSA)
        put(root, "/key.pem", RSA)
        (root / "closed").chmod(0o700)
        (root / "key.pem").chmod(0o600)
        with _as_nobody():
            report = _look(root)
    assert _found(report) == {("unreadable", "/closed"), ("unreadable", "/key.pem")}
    assert all("Permission denied" in each.what for each in report.findings)


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Become nobody for the block, because root may read everything."""
    before = os.geteuid()
    if before != 0:
        pytest.skip("only root can become nobody")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_printable_leaves_plain_paths_alone() -> None:
    assert printable("/etc/ssh/sshd_config") == "/etc/ssh/sshd_config"
