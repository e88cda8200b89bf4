from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagepipe.engine.fingerprint import fingerprints
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Context, Ref, Stage


@dataclass(frozen=True)
class Cook(Stage[str]):
    """A stage with all kinds of fields."""

    recipe: str
    paths: tuple[Path, ...] = ()
    needs: tuple[Ref[Any], ...] = ()
    spices: dict[str, int] = field(default_factory=dict)
    tool: object = field(default=None, repr=False, compare=False)
    note: str = field(default="", compare=False)

    def run(self, ctx: Context) -> str:
        return self.recipe

    def files(self) -> tuple[Path, ...]:
        return self.paths


def _mark(*stages: Cook) -> str:
    """Of the last of a chain, in which each takes the one before it."""
    graph, before = Graph(), None
    for number, stage in enumerate(stages):
        needs = (before,) if before else ()
        before = graph.add(f"s{number}", Cook(**{**vars(stage), "needs": needs}))
    return fingerprints(graph)[f"s{len(stages) - 1}"]


def test_the_same_stage_with_the_same_inputs_has_the_same_mark_whatever_it_works_with() -> None:
    assert _mark(Cook("soup", tool=object())) == _mark(Cook("soup", tool=object()))


def test_another_field_another_input_and_another_nested_value_are_another_stage() -> None:
    marks = {
        _mark(Cook("soup")),
        _mark(Cook("stew")),
        _mark(Cook("soup", spices={"salt": 1})),
        _mark(Cook("soup", spices={"salt": 2})),
        _mark(Cook("stock"), Cook("soup")),
        _mark(Cook("water"), Cook("soup")),
    }
    assert len(marks) == 6


def test_files_count_by_their_bytes_and_modes_and_those_below_a_folder_too(tmp_path: Path) -> None:
    file = tmp_path / "folder/sub/file"
    file.parent.mkdir(parents=True)
    marks = [_mark(Cook("x", (tmp_path / "folder",)))]
    for change in (lambda: file.write_text("a"), lambda: file.write_text("b"), lambda: file.chmod(0o755)):
        change()
        marks.append(_mark(Cook("x", (tmp_path / "folder",))))
    assert len(set(marks)) == 4
    assert _mark(Cook("x", (tmp_path / "none",))) != marks[0]


def test_a_field_that_is_not_compared_does_not_count() -> None:
    assert _mark(Cook("soup", note="one")) == _mark(Cook("soup", note="two"))


def test_a_folder_counts_by_its_content_wherever_it_is(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub/file").write_text("a")
    before = _mark(Cook("soup", paths=(tmp_path / "here",)))
    assert _mark(Cook("soup", paths=(tmp_path / "there",))) == before
    (tmp_path / "there/sub/file").rename(tmp_path / "there/file")
    assert _mark(Cook("soup", paths=(tmp_path / "there",))) != before


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A read of a FIFO waits for a writer, in the thread that handles signals."""
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "to").symlink_to("fifo")
    assert _mark(Cook("soup", paths=(folder, folder / "fifo", folder / "to", Path("/dev/zero"))))


def test_a_file_that_is_named_by_a_link_is_what_the_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to("file")
    before = _mark(Cook("soup", paths=(tmp_path / "link",)))
    (tmp_path / "file").write_text("b")
    assert _mark(Cook("soup", paths=(tmp_path / "link",))) != before
