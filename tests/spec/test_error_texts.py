"""The texts of problems: each case is NAME.yaml beside NAME.txt, which has the exact text of its problems.

`IMAGEPIPE_REWRITE_CASES=1 pytest tests/spec/test_error_texts.py` writes the texts again; then read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagepipe.spec.load import load
from imagepipe.spec.variables import Given

CASES = Path(__file__).resolve().parent.parent / "cases" / "spec"
REWRITE = bool(os.environ.get("IMAGEPIPE_REWRITE_CASES"))


def names() -> list[str]:
    return sorted(path.stem for path in CASES.glob("*.yaml"))


@pytest.mark.parametrize("name", names())
def test_a_broken_spec_is_explained_with_this_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES)
    problems = [problem for spec in load([Path(f"{name}.yaml")], Given()) for problem in spec.problems]
    text = "".join(problem.text() + "\n" for problem in problems)
    expected = CASES / f"{name}.txt"
    if REWRITE:
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")
    assert problems, "a case that finds nothing shows nothing"


@pytest.mark.parametrize("name", names())
def test_every_problem_points_into_its_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES)
    for spec in load([Path(f"{name}.yaml")], Given()):
        for problem in spec.problems:
            if problem.line:
                line = Path(problem.file).read_text(encoding="utf-8").split("\n")[problem.line - 1]
                assert problem.excerpt == line[:500]
                assert 1 <= problem.column <= len(line) + 1


def test_every_text_has_its_spec() -> None:
    assert sorted(path.stem for path in CASES.glob("*.txt")) == names()


@pytest.mark.parametrize("name", names())
def test_a_case_describes_its_mistake_in_its_first_line(name: str) -> None:
    assert (CASES / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")
