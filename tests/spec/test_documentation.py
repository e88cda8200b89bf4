"""The YAML of the documentation is in the language of today."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagepipe.spec.load import load
from imagepipe.spec.models import Spec
from imagepipe.spec.variables import Given

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BASE = """\
imagepipe: 1
name: web
source: {ami: ami-0123456789abcdef0}
launch: {ssh: {user: admin}}
output: {name: web-1}
"""
WRONG_KEY = re.compile(r"unknown key|is replaced by|is now a mapping|must be |expected ")


def _blocks() -> list[tuple[str, str]]:
    """Every YAML block of the pages that is a spec, a part of one, or a list of steps."""
    found = []
    for page in PAGES:
        texts = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for number, text in enumerate(texts, start=1):
            value = yaml.safe_load(text)
            is_part = isinstance(value, dict) and set(value) <= set(Spec.model_fields)
            if is_part or (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
                found.append((f"{page.relative_to(ROOT)}-{number}", text))
    return found


@pytest.mark.parametrize(("name", "text"), _blocks(), ids=[name for name, _ in _blocks()])
def test_yaml_of_the_documentation_has_no_key_that_the_language_lacks(name: str, text: str, tmp_path: Path) -> None:
    value = yaml.safe_load(text)
    part = value if isinstance(value, dict) else {"provision": value}
    tried = [_wrong_keys(part, kind, tmp_path) for kind in ("ebs", "instance-store")]
    assert min(tried, key=len) == []


def _wrong_keys(part: dict[str, Any], kind: str, folder: Path) -> list[str]:
    """Problems of keys and kinds in a part of a spec; what is missing, or named only, is elsewhere on the page."""
    spec = {**yaml.safe_load(BASE), **part}
    if "output" in part:
        spec["output"] = {"type": kind, **part["output"]}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    loaded = load([folder / "spec.yaml"], Given())
    return [problem.text() for each in loaded for problem in each.problems if WRONG_KEY.search(problem.message)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_whole_spec_of_the_documentation_names_its_user(page: Path) -> None:
    for name, text in _blocks():
        if name.startswith(str(page.relative_to(ROOT))) and text.startswith("imagepipe:"):
            assert yaml.safe_load(text)["launch"]["ssh"]["user"]


def test_there_are_such_blocks() -> None:
    assert len(_blocks()) > 20
