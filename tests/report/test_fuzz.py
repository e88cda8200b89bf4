"""Whatever values a file of events has: if it can be read, every format of its report can be made."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from imagepipe.cli.report_folder import FILE_NAMES, content_of
from imagepipe.engine import events as ev
from tests.engine.test_events import SAMPLES
from tests.fuzzing import BOUNDED
from tests.report.runs import SUCCEEDED, reported
from tests.report.test_html import WholePage

NUMBERS = st.floats() | st.integers() | st.just(10**400)
TEXTS = st.text(max_size=40) | st.sampled_from(["", "\n", "a/b", "step-1", "\x1b[", "```", "</script>", "<!--", "|"])
DATES = st.sampled_from(["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-23T03:05:08Z"])
VALUES: st.SearchStrategy[Any] = NUMBERS | TEXTS | DATES | st.lists(TEXTS, max_size=3) | st.booleans() | st.none()


@BOUNDED
@given(data=st.data())
def test_every_format_of_any_events_can_be_made(data: st.DataObject) -> None:
    lines = [ev.to_json(event) for event in (*SUCCEEDED, *SAMPLES)]
    for line in data.draw(st.lists(st.sampled_from(lines), min_size=1, max_size=4)):
        line[data.draw(st.sampled_from(sorted(set(line) - {"event"})))] = data.draw(VALUES)
    events = []
    for line in lines:
        try:
            events.append(ev.from_json(json.loads(json.dumps(line))))
        except ValueError:
            continue
    report = reported(events, data.draw(st.sampled_from(["succeeded", "failed", None])))
    for format in FILE_NAMES:
        assert content_of(report, format)
    ET.fromstring(content_of(report, "junit"))
    WholePage(content_of(report, "html").decode())
    json.loads(content_of(report, "json"), parse_constant=_refuse)
    json.loads(content_of(report, "trace"), parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
