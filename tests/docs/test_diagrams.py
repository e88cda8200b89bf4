"""The diagrams of the docs are those of the code, can be read aloud, and have no text outside its box."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.generate.diagrams import DIAGRAMS, NOTES, PATHS, capture_stages
from tests.report.browser import browser
from tests.test_layers import MAY_IMPORT

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs/images"
SVG = "{http://www.w3.org/2000/svg}"
OUTSIDE = """(() => {
  const inside = (text, box) => text.left >= box.left && text.right <= box.right + 1
    && text.top >= box.top && text.bottom <= box.bottom + 1;
  const page = document.querySelector("svg").getBoundingClientRect();
  return [...document.querySelectorAll("text")].filter((each) => {
    const box = each.parentElement.querySelector(":scope > rect:not(.page):not(.band)");
    const around = each.parentElement.tagName === "g" ? box.getBoundingClientRect() : page;
    return !inside(each.getBoundingClientRect(), around);
  }).map((each) => each.textContent);
})()"""


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_not_stale(name: str) -> None:
    assert (IMAGES / name).read_text(encoding="utf-8") == DIAGRAMS[name](), "run: make docs"


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_screen_reader_finds_a_title_and_a_description(name: str) -> None:
    root = ElementTree.fromstring((IMAGES / name).read_text(encoding="utf-8"))
    assert root.attrib["role"] == "img"
    names = [root.find(f"{SVG}{each}") for each in ("title", "desc")]
    assert root.attrib["aria-labelledby"].split() == [each.attrib["id"] for each in names if each is not None]
    assert all(each is not None and each.text for each in names)


def test_no_text_of_a_diagram_leaves_its_box(tmp_path: Path) -> None:
    with browser(tmp_path) as chromium:
        for name in DIAGRAMS:
            chromium.open(IMAGES / name)
            assert chromium.evaluate(OUTSIDE) == [], name


@pytest.mark.parametrize("image", sorted(IMAGES.iterdir()), ids=lambda path: path.name)
def test_an_image_is_in_a_page_with_a_text_for_those_who_cannot_see_it(image: Path) -> None:
    """The text is one line of the source, because Sphinx drops the end of a line in it."""
    files = [*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"]
    pages = "".join(page.read_text(encoding="utf-8") for page in files)
    uses = re.findall(rf"!\[([^\]]*)\]\(\s*[./a-z]*images/{re.escape(image.name)}\)", pages)
    assert uses
    assert all(len(text) > 20 and "\n" not in text for text in uses)
    assert image.stat().st_size < 150_000


def test_both_capture_paths_are_those_of_the_sample_specs() -> None:
    ebs, instance_store = (capture_stages(spec) for spec in PATHS.values())
    assert ebs == ["scrub", "stop", "capture"]
    assert instance_store == ["bundle", "register"]
    assert set(NOTES) == {*ebs, *instance_store}


def test_the_rooms_are_those_of_the_table_of_imports() -> None:
    root = ElementTree.fromstring((IMAGES / "rooms.svg").read_text(encoding="utf-8"))
    drawn = {each.text for each in root.iter(f"{SVG}text") if each.attrib["class"] == "room"}
    assert drawn == set(MAY_IMPORT) - {"__init__", "__main__"}
