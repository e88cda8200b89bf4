"""Parts: how they are called, cut, and put into a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagepipe.bundle.deflate import gzipped, worst_case
from imagepipe.bundle.pack import pack
from imagepipe.bundle.parts import PART_BYTES, FolderSink, Part, cut, folder_source, width_for
from imagepipe.errors import BundleError
from tests.bundle.samples import LABEL, image_of, recipients

GIB = 1 << 30


@pytest.mark.parametrize(
    ("most", "width"),
    [(1, 2), (PART_BYTES, 2), (100 * PART_BYTES, 2), (100 * PART_BYTES + 1, 3), (10 * GIB, 4), (1000 * PART_BYTES, 3)],
)
def test_names_are_as_wide_as_the_worst_case_needs(most: int, width: int) -> None:
    assert width_for(most) == width


@pytest.mark.parametrize(
    ("blocks", "sizes"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([b"x"], [1], id="one byte"),
        pytest.param([bytes(PART_BYTES)], [PART_BYTES], id="exactly one part, and no empty one"),
        pytest.param([bytes(PART_BYTES), b""], [PART_BYTES], id="an empty block at the end"),
        pytest.param([bytes(PART_BYTES), b"x"], [PART_BYTES, 1], id="one byte more"),
        pytest.param([bytes(3 * PART_BYTES)], [PART_BYTES] * 3, id="three parts in one block"),
        pytest.param([bytes(PART_BYTES - 1)] * 2, [PART_BYTES, PART_BYTES - 2], id="across blocks"),
    ],
)
def test_a_stream_is_cut_into_full_parts_and_never_an_empty_one(blocks: list[bytes], sizes: list[int]) -> None:
    found = list(cut(blocks, "x", width=3))
    assert [len(content) for _, content in found] == sizes
    assert [part.filename for part, _ in found] == [f"x.part.{number:03}" for number in range(len(sizes))]


@pytest.mark.parametrize("size", [0, 1, 65_535, 1 << 20, (1 << 20) + 1, 3_000_001])
def test_noise_deflates_to_no_more_than_the_worst_case(size: int) -> None:
    noise = os.urandom(size)
    blocks = [noise[at : at + (1 << 20)] for at in range(0, size, 1 << 20)]
    assert size < sum(map(len, gzipped(blocks))) <= worst_case(size)


def test_nothing_has_its_name_before_all_is_there(tmp_path: Path) -> None:
    with FolderSink(tmp_path / "new", "image") as sink:
        sink.put(Part(0, "image.part.00", ""), b"part")
        assert all(path.name.startswith(".") for path in (tmp_path / "new").iterdir())
        sink.finish("image.manifest.xml", b"manifest")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {
        "image.part.00": b"part",
        "image.manifest.xml": b"manifest",
    }


@pytest.mark.parametrize("error", [BundleError("damaged"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_a_failure_leaves_no_files(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with FolderSink(tmp_path, "image") as sink:
            sink.put(Part(0, "image.part.00", ""), b"part")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["image.manifest.xml", "image.part.0", "image.part.00", "image.part.1234"])
def test_a_bundle_that_is_there_is_replaced_only_with_force(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("old")
    (tmp_path / "image.part.list").write_text("somebody's")
    with pytest.raises(BundleError, match=f"{there} already exists"), FolderSink(tmp_path, "image"):
        pass
    with opened_sink(tmp_path) as sink:
        pack(image_of(b"new"), sink, label=LABEL, recipients=recipients())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "image.manifest.xml",
        "image.part.00",
        "image.part.list",
    ]


def opened_sink(folder: Path) -> FolderSink:
    return FolderSink(folder, "image", is_forced=True)


def test_a_failure_with_force_keeps_the_old_bundle(tmp_path: Path) -> None:
    (tmp_path / "image.manifest.xml").write_text("old")
    with pytest.raises(ZeroDivisionError), opened_sink(tmp_path):
        _ = 1 / 0
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["../image", "-image", "a/b", ".."])
def test_a_sink_writes_into_its_folder_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="cannot be called"):
        FolderSink(tmp_path, name)
    with pytest.raises(BundleError, match="cannot be called"), FolderSink(tmp_path, "image") as sink:
        sink.put(Part(0, name, ""), b"")


def test_a_source_reads_files_of_its_folder_only(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    source = folder_source(tmp_path)
    for name, message in (("../x", "cannot be called"), ("folder", "is missing"), ("pipe", "is missing")):
        with pytest.raises(BundleError, match=message):
            list(source(name))
