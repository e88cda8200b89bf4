"""The page: complete without its script, small, and safe with any log."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from imagepipe.engine import events as ev
from imagepipe.report import html
from imagepipe.report.model import MachineReport, RunReport, SourceReport
from tests.report.runs import BEGINNING, SUCCEEDED, at, failed, reported, succeeded

FOLDER = Path(html.__file__).parent
VOID = {"meta", "img", "input", "rect", "br"}


class WholePage(HTMLParser):
    """Collects elements; every one must be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def _full() -> RunReport:
    return replace(
        succeeded(),
        sources=(SourceReport("web", "ami-1", "debian", "", "0123"),),
        machines=(MachineReport("i-1", "us-east-1", "t3.small", 28.0, 0.0208, 0.000347),),
        currency="USD",
        price_date="2026-11-01",
    )


PAGES = {"failed": failed(), "succeeded": _full(), "empty": reported([], None)}


@pytest.mark.parametrize("report", PAGES.values(), ids=PAGES)
def test_a_page_is_well_formed_and_its_links_lead_to_its_own_elements(report: RunReport) -> None:
    page = WholePage(html.page(report))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert {str(target).removeprefix("#") for target in targets} <= set(ids)


@pytest.mark.parametrize("report", PAGES.values(), ids=PAGES)
def test_a_page_names_nothing_that_a_browser_would_load(report: RunReport) -> None:
    page = WholePage(html.page(report))
    assert not [tag for tag, attributes in page.elements if {"src", "srcset", "style", "onclick"} & set(attributes)]
    assert not [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "form", "object", "base")]
    assert "url(" not in (FOLDER / "page.css").read_text()


def test_only_our_own_style_and_script_may_run() -> None:
    page = html.page(failed())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    for tag in ("style", "script"):
        [content] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_our_own_code_has_less_than_30_kb() -> None:
    own = sum((FOLDER / name).stat().st_size for name in ("page.css", "page.js", "html.py"))
    assert own < 30_000
    assert len(html.page(reported([], None)).encode()) < 20_000


def test_a_hostile_log_stays_text() -> None:
    page = html.page(failed())
    assert "<img" not in page
    assert page.count("</script>") == page.count("</template>") == 1
    assert "&lt;/script&gt;&lt;/template&gt;&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_the_failure_comes_first_with_its_last_lines_hint_and_next_command() -> None:
    page = html.page(failed())
    sections = re.findall(r'<section id="([a-z]+)"', page)
    assert sections[:2] == ["failure", "timeline"]
    failure = page[page.index('<section id="failure"') : page.index('<section id="timeline"')]
    for text in (
        "step &#x27;packages&#x27; (web.yaml:7): exit code 100",
        "run apt-get update",
        "Last 20 of 35 lines",
        "unpacking package 29",
        "key-pair key-1 in us-east-1 (denied)",
        "imagepipe clean 7f3a91c2",
    ):
        assert text in failure


def test_a_run_that_succeeded_has_every_other_section() -> None:
    page = html.page(_full())
    assert re.findall(r'<section id="([a-z]+)"', page) == [
        *("images", "timeline", "graph", "tests", "findings", "stages", "resources", "origin", "machines")
    ]
    for text in ("ami-2", "critical path, 29 s", "/opt/&lt;test&gt;.pem", "allowed: a key of the tests", "0.0003"):
        assert text in page


def test_a_page_of_an_old_run_has_no_graph_and_no_tests() -> None:
    report = reported([event for event in SUCCEEDED if not isinstance(event, ev.StagePlanned)], "succeeded")
    page = html.page(report)
    assert re.findall(r'<section id="([a-z]+)"', page) == ["timeline", "findings", "stages"]
    assert "critical path" not in page


def test_bars_are_in_the_timeline_at_their_times() -> None:
    page = html.page(failed())
    assert re.search(
        r"launch t3.small</span><svg[^>]*><rect class=\"succeeded\" x=\"5.56%\" y=\"2\" width=\"55.56%\"", page
    )
    assert '<rect class="span boot" x="11.11%"' in page


def test_a_long_log_is_compressed_and_its_end_is_text() -> None:
    lines: list[ev.AnyEvent] = [ev.Line(*at(12), "step-1", "out", f"line-{number}.") for number in range(3_000)]
    page = html.page(reported([*BEGINNING, *lines], "failed"))
    assert "line-2999." in page
    assert "line-2000." not in page
    packed = re.search(r'<template id="logs">([A-Za-z0-9+/=]*)</template>', page)
    assert packed is not None
    logs = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    assert logs["3"][0] == ["say", "try 1 of 3"]
    assert ["out", "line-2000."] in logs["3"]
    assert len(page) < 80_000


def test_logs_that_are_too_large_for_a_page_are_cut_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MOST_CHARACTERS", 10_000)
    lines: list[ev.AnyEvent] = [ev.Line(*at(12), "step-1", "out", "x" * 90) for _ in range(2_000)]
    page = html.page(reported([*BEGINNING, *lines], "failed"))
    packed = re.search(r'<template id="logs">([A-Za-z0-9+/=]*)</template>', page)
    assert packed is not None
    logs = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    assert logs["3"][0] == ["say", "… earlier lines are left out of this report …"]
    assert len(logs["3"]) == 1 + 10_000 // 90


def test_a_graph_that_is_too_large_is_left_out_with_a_note() -> None:
    many: list[ev.AnyEvent] = [ev.StagePlanned(*at(0), f"s{number}", "t", "web") for number in range(100)]
    assert "The graph is too large for this page" in html.page(reported(many))
