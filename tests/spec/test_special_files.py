"""Files that a spec names and that are no regular ones: found by validate, and not read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.spec.conftest import Loader

STEP = "provision:\n  - {step}\n"


def _make(kind: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))  # a long path does not fit into an address
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["a FIFO", "a socket"])
@pytest.mark.parametrize(
    ("src", "place"),
    [("tree", "tree/sub/special"), ("tree/", "tree/.special"), ("special", "special"), ("to", "tree/special")],
)
def test_a_special_file_in_an_uploaded_folder_is_a_problem_with_its_path(
    loaded: Loader, tmp_path: Path, kind: str, src: str, place: str
) -> None:
    _make(kind, tmp_path / place)
    (tmp_path / "to").symlink_to("tree")
    problems = loaded(f"provision:\n  - file: {{src: {src}, dest: /srv/x}}\n").problems
    [problem] = [each for each in problems if each.path == "provision.0.file.src"]
    shown = place.replace("tree", src) if src == "to" else place
    assert problem.message == f"{shown} is {kind}: only regular files, folders and links can be uploaded"


def test_links_in_a_folder_are_uploaded_as_links_wherever_they_lead(loaded: Loader, tmp_path: Path) -> None:
    _make("a device", tmp_path / "tree/zero")
    (tmp_path / "tree/dangling").symlink_to("nowhere")
    assert not loaded("provision:\n  - file: {src: tree, dest: /srv/x}\n").problems


@pytest.mark.parametrize(
    "step",
    ["file: {src: special, dest: /x}", "shell: {script: special}", "template: {src: special, dest: /x}"],
)
@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a device"])
def test_a_step_that_names_one_is_a_problem(loaded: Loader, tmp_path: Path, kind: str, step: str) -> None:
    _make(kind, tmp_path / "special")
    problems = loaded(f"provision:\n  - {step}\n").problems
    assert ["special is" in each.message for each in problems] == [True]
