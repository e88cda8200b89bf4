"""Unpacking a bundle gives the packed image, whatever its layout."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagepipe.bundle.pack import pack
from imagepipe.bundle.parts import PART_BYTES
from imagepipe.bundle.sparse import Image, data_extents, opened_image
from imagepipe.errors import BundleError
from tests.bundle.samples import LABEL, Memory, extents, packed, recipients, unpacked
from tests.fuzzing import NO_CHECKS

RUNS = st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 40_000)), max_size=8)


def _content(runs: list[tuple[int, int]], end: int) -> bytes:
    """Holes and data in turn, and a hole at the end."""
    noise = random.Random(7)
    return b"".join(bytes(hole) + noise.randbytes(data) for hole, data in runs) + bytes(end)


@settings(max_examples=40, deadline=None, suppress_health_check=NO_CHECKS)
@given(runs=RUNS, end=st.integers(1, 20_000))
def test_any_layout_of_data_and_holes_comes_back(tmp_path: Path, runs: list[tuple[int, int]], end: int) -> None:
    content = _content(runs, end)
    assert unpacked(packed(content), tmp_path) == content


@settings(max_examples=30, deadline=None, suppress_health_check=NO_CHECKS)
@given(runs=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), max_size=6), odd=st.integers(0, 5000))
def test_the_extents_of_a_file_have_all_of_its_data(tmp_path: Path, runs: list[tuple[int, int]], odd: int) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        at = 0
        for hole, data in runs:
            os.pwrite(file.fileno(), os.urandom(data * 4096), at + hole * 4096)
            at += (hole + data) * 4096
        file.truncate(at + odd)
    with path.open("rb") as file:
        found = list(data_extents(file.fileno(), at + odd))
        content = file.read()
    rebuilt = bytearray(len(content))
    for extent in found:
        rebuilt[extent.offset : extent.end] = content[extent.offset : extent.end]
    assert rebuilt == content
    assert all(one.end + (64 << 10) <= other.offset for one, other in pairwise(found))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"x", id="one byte"),
        pytest.param(bytes(1), id="one zero"),
        pytest.param(bytes(3 << 20), id="nothing but zeros"),
        pytest.param(os.urandom(4096), id="one block"),
        pytest.param(bytes(4096) + b"x", id="a last block of one byte"),
        pytest.param(b"x" + bytes(5 << 20), id="a hole at the end"),
        pytest.param(b"".join(b"x" * 4096 + bytes(4096) for _ in range(60)), id="three extensions of the sparse map"),
    ],
)
def test_the_ends_of_the_range_come_back(tmp_path: Path, content: bytes) -> None:
    bundle = packed(content)
    assert unpacked(bundle, tmp_path) == content
    assert bundle.read().bundled_size == sum(map(len, bundle.files.values()))


def test_a_bundle_of_noise_has_full_parts_and_a_last_one(tmp_path: Path) -> None:
    content = os.urandom(22 << 20)
    bundle = packed(content)
    sizes = [len(part) for part in bundle.files.values()]
    assert sizes[:-1] == [PART_BYTES] * 2
    assert 0 < sizes[-1] < PART_BYTES
    assert list(bundle.files) == ["image.part.00", "image.part.01", "image.part.02"]
    assert unpacked(bundle, tmp_path) == content


def test_the_file_system_s_holes_and_blocks_of_zeros_are_both_left_out(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(b"a" * 4096 + bytes(1 << 20) + b"b" * 4096)
        file.seek(10 << 20, os.SEEK_CUR)
        file.write(b"c")
    with opened_image(path) as image:
        assert [extent.length for extent in image.extents] == [4096, 4096, 1]
        assert image.data_bytes == 8193


def test_an_image_given_by_extents_and_a_reader_is_packed(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def read(at: int, count: int) -> bytes:
        asked.append((at, count))
        return b"d" * count

    image = Image(20_000, extents((4096, 100), (9000, 700)), read)
    memory = Memory()
    pack(image, memory, label=LABEL, recipients=recipients())
    assert asked == [(4096, 100), (9000, 700)]
    expected = bytes(4096) + b"d" * 100 + bytes(4804) + b"d" * 700 + bytes(10_300)
    assert unpacked(memory, tmp_path) == expected


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([(0, 10), (5, 10)], id="overlapping"),
        pytest.param([(50, 10), (0, 10)], id="out of order"),
        pytest.param([(95, 10)], id="beyond the end"),
        pytest.param([(0, 0)], id="empty"),
    ],
)
def test_extents_that_are_none_are_refused(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(BundleError, match="an image of 100 bytes cannot have"):
        Image(100, extents(*pairs), lambda _at, _count: b"")


def test_a_reader_that_gives_less_than_was_asked_is_refused() -> None:
    with pytest.raises(BundleError, match="reading 100 bytes at 0 of the image returned 1"):
        pack(Image(100, extents((0, 100)), lambda _at, _count: b"x"), Memory(), label=LABEL, recipients=recipients())


def test_an_image_that_becomes_shorter_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(os.urandom(1 << 20))
    with opened_image(path) as image:
        os.truncate(path, 4096)
        with pytest.raises(BundleError, match="became shorter"):
            pack(image, Memory(), label=LABEL, recipients=recipients())


def test_more_than_ec2_takes_is_refused_unless_it_is_wanted() -> None:
    image = Image((10 << 30) + 1, (), lambda _at, _count: b"")
    with pytest.raises(BundleError, match=r"has 10\.0 GiB; EC2's limit is 10"):
        pack(image, Memory(), label=LABEL, recipients=recipients())
    memory = Memory()
    pack(image, memory, label=LABEL, recipients=recipients(), limit_bytes=None)
    assert memory.read().size == image.size


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(BundleError, match="empty"):
        packed(b"")


def test_what_progress_raises_ends_the_packing_and_leaves_no_manifest() -> None:
    memory = Memory()

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(
            Image(12 << 20, extents((0, 12 << 20)), lambda _at, count: os.urandom(count)),
            memory,
            label=LABEL,
            recipients=recipients(),
            progress=stop,
        )
    assert not memory.manifest
