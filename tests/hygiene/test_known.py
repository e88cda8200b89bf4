"""A second scan reads only what has changed, and misses nothing that a first one finds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from imagepipe.hygiene.known import pack, stamp, unpack
from imagepipe.hygiene.report import Report, ScanRequest, read_report
from imagepipe.hygiene.rules import RULES, is_telling, match, may_match
from imagepipe.hygiene.walk import Tree, scan
from tests.hygiene.planted import EVERY_RULE, OPENSSH, PLANTED, WANTED, Planted, put

AGO = 3600


def scan_folder(root: Path, wanted: ScanRequest = WANTED) -> Report:
    return scan([Tree(str(root))], wanted)


def settled(root: Path, count: int = 20) -> Path:
    """A tree of files whose last change is long enough ago to be stamped."""
    for number in range(count):
        put(root, f"/usr/lib/file-{number}", f"content {number:04}\n")
    time.sleep(2.1)  # change times cannot be set
    return root


def again(root: Path, first: Report) -> Report:
    return scan_folder(root, WANTED._replace(known=first.clean))


def test_a_second_scan_reads_nothing_that_is_as_it_was(tmp_path: Path) -> None:
    first = scan_folder(settled(tmp_path))
    assert (first.files, first.read) == (20, 20)
    second = again(tmp_path, first)
    assert (second.files, second.read, second.size) == (20, 0, 0)


def _replace(path: Path, content: str) -> None:
    path.unlink()
    path.write_text(content)


def _overwrite(path: Path, content: str) -> None:
    with path.open("r+") as file:
        file.write(content)


def _move_over(path: Path, content: str) -> None:
    other = path.with_name("other")
    other.write_text(content)
    other.rename(path)


@pytest.mark.parametrize("change", [_replace, _overwrite, _move_over], ids=lambda change: change.__name__.strip("_"))
def test_a_file_with_size_and_time_of_the_one_that_it_replaced_is_read(tmp_path: Path, change: object) -> None:
    root = tmp_path
    place = root / "usr/lib/app.conf"
    put(root, "/usr/lib/app.conf", "x" * len(OPENSSH))
    first = scan_folder(settled(root))
    before = place.stat()
    assert callable(change)
    change(place, OPENSSH)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (place.stat().st_size, place.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = again(root, first)
    assert [(each.rule, each.path) for each in second.findings] == [("private-key", "/usr/lib/app.conf")]
    assert second.read == 1


@pytest.mark.parametrize("planted", PLANTED, ids=lambda each: each.id)
def test_all_that_is_planted_after_a_first_scan_is_found(tmp_path: Path, planted: Planted) -> None:
    put(tmp_path, "/usr/lib/file", "content\n")
    first = scan_folder(tmp_path)._replace(clean=pack([stamp((tmp_path / "usr/lib/file").stat())]))
    put(tmp_path, planted.path, planted.content)
    assert {(each.rule, each.path) for each in again(tmp_path, first).findings} == {
        (rule, planted.path) for rule in planted.rules
    }


def test_what_was_found_once_is_found_again(tmp_path: Path) -> None:
    for planted in PLANTED:
        put(tmp_path, planted.path, planted.content)
    first = scan_folder(settled(tmp_path))
    assert again(tmp_path, first).findings == first.findings
    assert len(first.findings) > len(EVERY_RULE) / 2


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path) -> None:
    put(tmp_path, "/usr/lib/file", "content\n")
    assert scan_folder(tmp_path).clean == "", "it may change again within the tick of the clock"


def test_a_file_with_two_names_needs_one_stamp(tmp_path: Path) -> None:
    put(tmp_path, "/usr/lib/one", "content\n")
    (tmp_path / "usr/lib/two").hardlink_to(tmp_path / "usr/lib/one")
    first = scan_folder(settled(tmp_path, 0))
    assert len(unpack(first.clean)) == 1
    assert again(tmp_path, first).read == 0


def test_stamps_travel_as_text_and_nothing_else_is_taken_for_them() -> None:
    stamps = [bytes([number] * 8) for number in range(3)]
    assert unpack(pack(stamps)) == frozenset(stamps)
    for broken in ("AAA", "A" * 12, "not base64!"):
        with pytest.raises(ValueError, match=r"."):
            unpack(broken)


def test_a_report_with_other_stamps_is_refused() -> None:
    line = Report((), 1, 2, clean="AAAA").line()
    with pytest.raises(ValueError, match="stamps"):
        read_report([line])


def test_no_folder_or_name_that_a_rule_may_match_is_passed_over() -> None:
    for planted in PLANTED:
        if any(place.pattern for rule in RULES if rule.name in planted.rules for place in rule.places):
            folder, _, name = planted.path.rpartition("/")
            assert match(planted.path) is None or may_match(folder) or is_telling(name), planted.path
    for path in ("/x", "/etc/a", "/home/u/.ssh/authorized_keys", "/srv/_netrc", "/srv/.netrc", "/opt/.vim/undo/a/b"):
        folder, _, name = path.rpartition("/")
        assert match(path) is None or may_match(folder) or is_telling(name), path
    assert not may_match("/usr/lib/python3")
    assert not is_telling("__init__.py")
