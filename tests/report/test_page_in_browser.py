"""The page in a real browser: no script errors, nothing loaded, search, keyboard, contrast and a phone's width.

All tests share one browser, which takes some two seconds of a processor to start.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from imagepipe.engine import events as ev
from imagepipe.report.html import page
from tests.report.browser import Browser, browser
from tests.report.runs import BEGINNING, at, reported, succeeded

MANY: list[ev.AnyEvent] = [ev.Line(*at(12), "step-1", "out", f"package-{number} <b>") for number in range(3_000)]
CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const style = getComputedStyle(each);
      const isBox = each.tagName === "g";
      const colour = isBox ? getComputedStyle(each.querySelector("rect")).fill : style.backgroundColor;
      const parts = rgb(colour);
      if (parts.length === 3 || parts[3] === 1) return parts;
    }
    return rgb(getComputedStyle(document.body).backgroundColor);
  };
  for (const each of document.querySelectorAll("details")) each.open = true;
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.matches("script, template, title, style")) continue;
    const style = getComputedStyle(element);
    const text = rgb(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(text), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.className || element.tagName}: ${element.textContent}`);
  }
  return poor;
})()"""
TYPE = """((text) => {
  const field = document.getElementById("search");
  field.value = text;
  field.dispatchEvent(new Event("input"));
})"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def failure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with a hostile log of 3,000 lines."""
    error = ev.StageFailed(*at(15), "step-1", 4.0, "exit code 1", "look")
    finding = ev.Finding(*at(16), "step-1", "private-key", "/root/key", "a private key")
    file = tmp_path_factory.mktemp("pages") / "failure.html"
    file.write_text(page(reported([*BEGINNING, *MANY, finding, error])), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def success(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pages") / "success.html"
    file.write_text(page(succeeded()), encoding="utf-8")
    return file


def test_the_script_runs_without_errors_and_nothing_is_loaded(chromium: Browser, failure: Path) -> None:
    chromium.open(failure)
    chromium.wait("!document.querySelector('.search').hidden")
    assert chromium.problems() == []
    assert chromium.requests() == [failure.as_uri()]
    assert chromium.evaluate("document.images.length + document.querySelectorAll('pre b').length") == 0


def test_the_whole_of_a_long_log_is_shown_when_its_stage_is_opened(chromium: Browser, failure: Path) -> None:
    chromium.open(failure)
    chromium.wait("!document.querySelector('.search').hidden")
    assert chromium.evaluate("document.querySelectorAll('#stage-3 .lines span').length") == 100
    chromium.evaluate("document.querySelector('a.bar[href=\"#stage-3\"]').click()")
    chromium.wait("document.querySelectorAll('#stage-3 .lines span').length === 3035")
    assert chromium.evaluate("document.querySelector('#stage-3').open")
    assert chromium.evaluate("document.querySelector('#stage-3 .lines').textContent.startsWith('try 1 of 3\\n')")


def test_a_search_shows_the_lines_that_match_and_its_end_shows_all(chromium: Browser, failure: Path) -> None:
    chromium.open(failure)
    chromium.wait("!document.querySelector('.search').hidden")
    chromium.evaluate(f"{TYPE}('PACKAGE-299 <')")
    chromium.wait("document.getElementById('hits').textContent === '1 line in 1 stage'")
    visible = "[...document.querySelectorAll('details.stage')].filter((each) => !each.hidden).map((each) => each.id)"
    assert chromium.evaluate(visible) == ["stage-3"]
    assert chromium.evaluate("document.querySelector('#stage-3 .lines').textContent") == "package-299 <b>\n"
    assert chromium.evaluate("document.querySelector('#stage-3 mark').textContent") == "package-299 <"
    chromium.evaluate(f"{TYPE}('key pair')")
    chromium.wait("document.getElementById('hits').textContent === '0 lines in 1 stage'")
    chromium.evaluate(f"{TYPE}('')")
    chromium.wait("document.getElementById('hits').textContent === ''")
    assert chromium.evaluate(f"{visible}.length") == 8
    assert chromium.evaluate("document.querySelectorAll('details.stage[open]').length") == 0


def test_the_page_works_with_the_keyboard_alone(chromium: Browser, success: Path) -> None:
    chromium.open(success)
    chromium.wait("!document.querySelector('.search').hidden")
    chromium.press("Tab")
    assert chromium.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert chromium.evaluate("document.activeElement.getBoundingClientRect().width") > 50
    chromium.press("/", "/")
    assert chromium.evaluate("document.activeElement.id") == "search"
    assert chromium.evaluate("document.activeElement.value") == ""
    chromium.press("Tab")
    assert chromium.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert chromium.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    chromium.press("Enter", "\r")
    assert chromium.evaluate("document.activeElement.parentElement.open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_text_can_be_read_at_every_width(
    chromium: Browser, failure: Path, success: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    for file in (failure, success):
        chromium.open(file, width=width, scheme=scheme)
        chromium.wait("!document.querySelector('.search').hidden")
        assert chromium.evaluate(CONTRAST) == []
        assert chromium.evaluate("document.documentElement.scrollWidth") <= width


def test_a_page_is_whole_where_scripts_are_not_allowed(chromium: Browser, failure: Path) -> None:
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(failure)
        text = chromium.evaluate("document.body.innerText")
        assert chromium.evaluate("document.querySelector('.search').hidden")
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "package-2999 <b>" in text
