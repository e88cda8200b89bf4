"""Problems of specs as SARIF 2.1.0, which code hosts show beside the lines (OASIS, "Static Analysis Results
Interchange Format")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from imagepipe import __version__
from imagepipe.errors import Problem

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
RULE = "spec"


def sarif(problems: Sequence[Problem], *, folder: Path) -> dict[str, Any]:
    """Return a log with one run; files below `folder` are named relative to it."""
    driver = {
        "name": "imagepipe",
        "version": __version__,
        "rules": [{"id": RULE, "shortDescription": {"text": "The spec cannot be built as it is."}}],
    }
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": [_result(problem, folder) for problem in problems],
            }
        ],
    }


def _result(problem: Problem, folder: Path) -> dict[str, Any]:
    where = f"{problem.path}: " if problem.path else ""
    hint = f"\nhint: {problem.hint}" if problem.hint else ""
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(problem.file, folder)}}
    if problem.line:
        place["region"] = {"startLine": problem.line, "startColumn": max(problem.column, 1)}
    return {
        "ruleId": RULE,
        "level": problem.severity,
        "message": {"text": where + problem.message + hint},
        "locations": [{"physicalLocation": place}],
    }


def _uri(file: str, folder: Path) -> str:
    path = (folder / file).absolute()
    if path.is_relative_to(folder.absolute()):
        return quote(str(PurePath(path.relative_to(folder.absolute())).as_posix()))
    return path.as_uri()
