from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagepipe.clock import SystemClock
from imagepipe.engine import events as ev
from imagepipe.masking import MASK, Masker

NOW = datetime(2026, 11, 23, 3, 5, 7, 123456, tzinfo=UTC)
SAMPLES: list[ev.AnyEvent] = [
    ev.RunStarted(NOW, "r", ("web", "base")),
    ev.StagePlanned(NOW, "r", "s", "title", "web", "us-east-1", ("a", "b"), True, False),
    ev.StageStarted(NOW, "r", "s", "title"),
    ev.Line(NOW, "r", "s", "err", "ünïcode \t x"),
    ev.Progress(NOW, "r", "s", "half", 0.5),
    ev.Span(NOW, "r", "s", "boot", 1.5),
    ev.Finding(NOW, "r", "s", "private-key", "/root/key", "a private key", "a test key"),
    ev.Held(NOW, "r", "instance", "us-east-1", "i-1"),
    ev.Released(NOW, "r", "instance", "us-east-1", "i-1"),
    ev.StageFinished(NOW, "r", "s", 1.0, "fine"),
    ev.StageFailed(NOW, "r", "s", 1.0, "broken", None),
    ev.RunFinished(NOW, "r", "failed", 2.0, ("instance i-1",)),
]


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_survives_its_file(event: ev.AnyEvent) -> None:
    assert ev.from_json(json.loads(json.dumps(ev.to_json(event)))) == event


def test_every_kind_has_a_sample() -> None:
    assert {type(event) for event in SAMPLES} == set(ev.KINDS.values())


@pytest.mark.parametrize("data", [{}, {"event": "Nonsense"}, {"event": "Line"}, {"event": "Line", "time": 3}])
def test_what_is_no_event_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not an event"):
        ev.from_json(data)


def _events(*sinks: ev.Sink, secrets: tuple[str, ...] = ()) -> ev.Events:
    return ev.Events("r", SystemClock(), Masker(secrets), sinks)


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_a_secret_is_masked_in_every_text_of_every_event(event: ev.AnyEvent) -> None:
    seen: list[ev.AnyEvent] = []
    texts = {
        f.name: "xx hunter2 yy"
        for f in fields(event)
        if isinstance(getattr(event, f.name), str) and f.name not in ("run", "stream", "label", "outcome")
    }
    from dataclasses import replace
    from typing import Any, cast

    _events(seen.append, secrets=("hunter2",)).emit(replace(cast(Any, event), **texts))
    assert "hunter2" not in repr(seen)
    assert not texts or MASK in repr(seen)


@pytest.mark.parametrize("text", ["caf\udce9.txt", "half \ud83d"])
def test_text_that_is_none_reaches_every_sink_in_letters(tmp_path: Path, text: str) -> None:
    """The name of a file may be any bytes: its event used to end the record of the run."""
    with ev.EventFile(tmp_path / "events.jsonl") as file:
        events = _events(file)
        events.emit(ev.Line(*events.stamp(), "s", "out", text))
        events.emit(ev.Line(*events.stamp(), "s", "out", "the next"))
    said = [event.text for event in ev.read_events(tmp_path / "events.jsonl") if isinstance(event, ev.Line)]
    assert said == [text.encode("utf-8", "backslashreplace").decode(), "the next"]


def test_a_sink_that_raises_is_left_out_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[ev.AnyEvent] = []
    calls: list[int] = []

    def broken(event: ev.AnyEvent) -> None:
        calls.append(1)
        raise OSError("disk full")

    events = _events(broken, seen.append)
    events.emit(SAMPLES[0])
    events.emit(SAMPLES[1])
    assert len(seen) == 2
    assert calls == [1]
    assert "disk full" in caplog.text


def test_the_record_can_be_read_again(tmp_path: Path) -> None:
    with ev.EventFile(tmp_path / "events.jsonl") as file:
        events = _events(file)
        for event in SAMPLES:
            events.emit(event)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [ev.from_json(json.loads(line)) for line in lines] == SAMPLES


def test_a_line_that_is_written_in_two_parts_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / ev.FILE_NAME
    reader = ev.EventFileReader(path)
    assert list(reader.new()) == []
    whole = json.dumps(ev.to_json(SAMPLES[0])).encode() + b"\n"
    path.write_bytes(whole + whole[:20])
    assert list(reader.new()) == [SAMPLES[0]]
    with path.open("ab") as file:
        file.write(whole[20:])
    assert list(reader.new()) == [SAMPLES[0]]
