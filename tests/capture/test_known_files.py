"""Stamps of clean files between builds: for one image, one version of the scan and one set of secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagepipe.capture.known_files import KEPT_IMAGES, KnownFiles
from imagepipe.hygiene.known import pack, unpack
from imagepipe.hygiene.report import Report, ScanRequest

IMAGE = "ami-0123456789abcdef0"
STAMPS = [bytes([number] * 8) for number in range(10)]
REPORT = Report((), 10, 100, read=10, clean=pack(STAMPS))
WANTED = ScanRequest(("private-key",), (), "the builder's key")
SECRET = "correct horse battery staple"


def kept(folder: Path, wanted: ScanRequest = WANTED) -> KnownFiles:
    known = KnownFiles(folder)
    known.keep(wanted, REPORT, IMAGE)
    return known


def test_the_next_scan_of_an_image_knows_what_the_last_one_found_clean(tmp_path: Path) -> None:
    assert unpack(kept(tmp_path).add_to(WANTED, IMAGE).known) == set(STAMPS)


def test_another_builder_key_is_no_reason_to_read_everything(tmp_path: Path) -> None:
    assert kept(tmp_path).add_to(WANTED._replace(builder_key="another"), IMAGE).known


def test_a_key_of_the_account_s_own_may_be_in_the_source_image(tmp_path: Path) -> None:
    known = KnownFiles(tmp_path, own_key=True)
    known.keep(WANTED, REPORT, IMAGE)
    assert known.add_to(WANTED, IMAGE).known
    assert not known.add_to(WANTED._replace(builder_key="another"), IMAGE).known


@pytest.mark.parametrize("wanted", [WANTED._replace(secrets=(SECRET,)), WANTED._replace(secrets=(SECRET, "other"))])
def test_other_secrets_are_looked_for_everywhere(tmp_path: Path, wanted: ScanRequest) -> None:
    assert not kept(tmp_path).add_to(wanted, IMAGE).known


def test_the_same_secrets_are_known_and_nothing_on_the_disk_tells_them(tmp_path: Path) -> None:
    wanted = WANTED._replace(secrets=(SECRET,))
    assert kept(tmp_path, wanted).add_to(wanted, IMAGE).known
    files = list(tmp_path.iterdir())
    assert all(SECRET.encode() not in each.read_bytes() + each.name.encode() for each in files)
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}


def test_another_image_has_files_of_its_own(tmp_path: Path) -> None:
    assert not kept(tmp_path).add_to(WANTED, "ami-1").known


def test_stamps_of_several_builds_add_up_to_a_limit(tmp_path: Path) -> None:
    known = kept(tmp_path)
    for build in range(1, 60):
        more = [bytes([build] * 7 + [number]) for number in range(10)]
        known.keep(known.add_to(WANTED, IMAGE), REPORT._replace(clean=pack(more)), IMAGE)
    assert 10 <= len(unpack(known.add_to(WANTED, IMAGE).known)) <= 4 * REPORT.files


def test_only_the_newest_images_are_kept(tmp_path: Path) -> None:
    known = KnownFiles(tmp_path)
    for number in range(KEPT_IMAGES + 3):
        known.keep(WANTED, REPORT, f"ami-{number}")
        for each in tmp_path.glob(f"ami-{number}-*"):
            os.utime(each, (number, number))
    assert len(list(tmp_path.glob("ami-*"))) == KEPT_IMAGES
    assert not known.add_to(WANTED, "ami-0").known


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 801])
def test_a_damaged_file_costs_time_alone(tmp_path: Path, content: bytes) -> None:
    known = kept(tmp_path)
    [path] = tmp_path.glob("ami-*")
    path.write_bytes(content)
    assert not known.add_to(WANTED, IMAGE).known


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    known = KnownFiles(tmp_path / "file" / "scans")
    known.keep(WANTED, REPORT, IMAGE)
    assert known.add_to(WANTED, IMAGE) == WANTED
