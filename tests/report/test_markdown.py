"""The summary of a CI job."""

from __future__ import annotations

from dataclasses import replace

from imagepipe.engine import events as ev
from imagepipe.report.markdown import CUT, MOST_BYTES, markdown
from imagepipe.report.model import ImageReport
from tests.report.runs import BEGINNING, IMAGES, at, failed, reported, succeeded


def test_a_failure_comes_first_with_its_log_and_the_next_command() -> None:
    text = markdown(failed())
    assert text.startswith("## web: failed\n\nRun 7f3a91c2, started 2026-11-23 03:05:07 UTC, 18 s in all.\n")
    assert text.index("### ❌ packages") < text.index("<details><summary>8 stages</summary>")
    assert "Last 20 of 35 lines" in text
    assert "**Hint:** run apt\\-get update" in text
    assert "Next: `imagepipe clean 7f3a91c2`" in text


def test_images_and_tests_are_tables() -> None:
    text = markdown(succeeded())
    assert "| web | us\\-east\\-1 | ami\\-2 | web\\-20261123 |" in text
    assert "| web | the page | ✅ succeeded | 1.0 s |" in text
    assert "❌" not in text


def test_a_log_cannot_leave_its_block_of_code() -> None:
    fence = ev.Line(*at(14), "step-1", "out", "`````\n# a heading")
    text = markdown(reported([*BEGINNING, fence, ev.StageFailed(*at(15), "step-1", 4.0, "exit code 1")]))
    assert "``````text\n" in text, "the fence is longer than that of the log"
    assert "\n`````\n" not in text.replace("`````\ufffd", "")


def test_a_name_has_no_meaning_in_markdown_or_html() -> None:
    images = (ImageReport("web", "us-east-1", "ami-2", "a|b <img src=x> [c](d) @team", is_new=True), *IMAGES)
    text = markdown(replace(succeeded(), images=images))
    assert "a\\|b \\<img src=x\\> \\[c\\]\\(d\\) \\@team" in text


def test_a_summary_that_is_too_long_is_cut_after_a_whole_line_and_closes_what_is_open() -> None:
    error = "".join(f"ünïcode line {number}\n" for number in range(80_000))
    events: list[ev.AnyEvent] = [
        event
        for number in range(60)
        for event in (ev.StageFailed(*at(number), f"s{number}", 1.0, f"{number}\n{error}"),)
    ]
    text = markdown(reported(events))
    assert len(text.encode()) <= MOST_BYTES
    assert text.endswith(f"```\n{CUT}")
    assert text.count("```") % 2 == 0


def test_a_table_that_is_too_long_is_cut_within_its_details() -> None:
    events: list[ev.AnyEvent] = [
        ev.StagePlanned(*at(0), f"stage-{number}", "t" * 60, "web") for number in range(12_000)
    ]
    text = markdown(reported(events))
    assert len(text.encode()) <= MOST_BYTES
    assert text.endswith(f"\n</details>\n{CUT}")
