from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from imagepipe.errors import SpecError
from imagepipe.spec.formatting import formatted

ROOT = Path(__file__).resolve().parents[2]
OURS = sorted([*(ROOT / "specs").rglob("*.yaml"), *(ROOT / "provisioners").rglob("*.yaml")])
UNTIDY = """\
# The top comment.
imagepipe:   1
name: web    # beside a value
provision:
- shell: |
    echo  two  spaces
      and more

- file: {src:   a,  dest: /b, mode: "0644"}
  # below the last step
launch:
    region:   eu-west-1
"""
TIDY = """\
# The top comment.
imagepipe: 1
name: web    # beside a value
provision:
  - shell: |
      echo  two  spaces
        and more

  - file: {src: a, dest: /b, mode: "0644"}
  # below the last step
launch:
  region: eu-west-1
"""


def test_layout_changes_and_nothing_else() -> None:
    assert formatted(UNTIDY, "web.yaml") == TIDY


def test_a_formatted_file_stays_as_it_is() -> None:
    assert formatted(TIDY, "web.yaml") == TIDY


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.relative_to(ROOT)))
def test_our_own_files_are_formatted(file: Path) -> None:
    text = file.read_text()
    assert formatted(text, str(file)) == text, "run: imagepipe fmt"


@pytest.mark.parametrize("value", ["0644", "yes", "1.10", "~", "12:30:45", "1_000", "0o17", "'x'", '"\\t"', "[a, 'b']"])
def test_a_value_is_written_as_it_was_read(value: str) -> None:
    text = f"a: {value}\n"
    assert formatted(text, "x.yaml") == text


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "---\na: 1\n", "a: &x {b: 1}\nc: *x\n", "a: >-\n  b\n  c\n"]
)
def test_unusual_files_are_left_alone(text: str) -> None:
    assert formatted(text, "x.yaml") == text


def test_a_long_line_is_not_wrapped() -> None:
    text = f"a: {'word ' * 100}end\n"
    assert formatted(text, "x.yaml") == text


def test_line_ends_of_windows_become_those_of_unix() -> None:
    assert formatted("a: 1\r\nb:   2\r\n", "x.yaml") == "a: 1\nb: 2\n"


@pytest.mark.parametrize("text", ["a: [1", "a: b: c\n", "\ta: 1\n", "a: 1\na: 2\n"])
def test_a_file_that_is_not_yaml_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(SpecError) as refused:
        formatted(text, "x.yaml")
    (problem,) = refused.value.problems
    assert problem.file == "x.yaml"
    assert problem.line > 0


def test_what_is_formatted_has_the_same_values() -> None:
    assert yaml.safe_load(formatted(UNTIDY, "x")) == yaml.safe_load(UNTIDY)
