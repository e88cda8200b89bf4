from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_of_commands_is_not_stale(tmp_path: Path) -> None:
    # In a process of its own: click keeps a command's help option as its first caller wanted it.
    made = tmp_path / "commands.md"
    subprocess.run([sys.executable, "-m", "docs.generate.commands", str(made)], check=True, cwd=ROOT)
    page = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    assert page == made.read_text(encoding="utf-8"), "run: make docs"


def test_the_files_that_help_prints_are_not_stale(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "docs.generate.help", str(tmp_path)], check=True, cwd=ROOT)
    kept, made = (_texts(folder) for folder in (ROOT / "imagepipe/cli/help", tmp_path))
    assert kept == made, "run: make docs"


def _texts(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


def test_the_man_page_is_not_stale(tmp_path: Path) -> None:
    made = tmp_path / "imagepipe.1"
    subprocess.run([sys.executable, "-m", "docs.generate.man", str(made)], check=True, cwd=ROOT)
    page = (ROOT / "docs/reference/imagepipe.1").read_text(encoding="utf-8")
    assert page == made.read_text(encoding="utf-8"), "run: make docs"


def test_the_reference_of_the_local_cloud_is_not_stale() -> None:
    from docs.generate.local_cloud import lines

    page = (ROOT / "docs/reference/local-cloud.md").read_text(encoding="utf-8")
    assert page.splitlines() == list(lines()), "run: make docs"


def _pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_the_docs_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    anchors = {page: _anchors(text)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor:
            found = anchors.get(place) or _anchors(place.read_text(encoding="utf-8"))
            assert anchor in found, f"{page.name}: {target}"


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {"".join(c for c in t.lower() if c.isalnum() or c in " -_").replace(" ", "-") for t in titles}
