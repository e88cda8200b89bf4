from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagepipe.cli.help_texts import FOLDER, help_text


def test_help_is_the_text_that_click_makes_on_a_wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = help_text("/usr/bin/imagepipe", ["images", "list", "--help"])
    assert text == Path(FOLDER, "images_list.txt").read_text(encoding="utf-8")
    assert text == help_text("imagepipe", ["images", "list", "-h"])


@pytest.mark.parametrize(
    "words",
    [[], ["build"], ["build", "web.yaml"], ["build", "web.yaml", "--help"], ["--help", "build"], ["bild", "--help"]],
    ids=" ".join,
)
def test_other_command_lines_are_clicks(words: list[str]) -> None:
    assert help_text("imagepipe", words) is None


@pytest.mark.parametrize("word", ["../../main", "a/b", ".", "", "x\0y"])
def test_a_word_that_is_no_command_leaves_the_folder_alone(word: str) -> None:
    assert help_text("imagepipe", [word, "--help"]) is None


def test_help_under_another_name_shows_that_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imagepipe", "fmt", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: python -m imagepipe fmt ")


def test_help_fits_a_narrow_terminal() -> None:
    code = "import sys; sys.argv[0] = 'imagepipe'; from imagepipe.cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "fmt", "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "60"},
    )  # fmt: skip
    assert max(map(len, done.stdout.splitlines())) <= 60
