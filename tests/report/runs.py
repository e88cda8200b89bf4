"""Runs for the tests of reports: events as a run emits them, and the journal beside them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from imagepipe.engine import events as ev
from imagepipe.engine.journal import Claim, JournalState, Lifetime, RunRecord, State
from imagepipe.report.fold import report_of
from imagepipe.report.model import ImageReport, RunReport

RUN = "7f3a91c2"
START = datetime(2026, 11, 23, 3, 5, 7, tzinfo=UTC)
HOSTILE = (
    "</script></template><img src=x onerror=alert(1)>",
    "\x1b[1;31mred\x1b[0m and \x07 a bell",
    "caf\\xe9 ``` | <b>bold</b> & more",
    "\u202egnp.exe",
)


def at(seconds: float) -> tuple[datetime, str]:
    """Return the first fields of an event this many seconds after the start of the run."""
    return START + timedelta(seconds=seconds), RUN


def planned(stage: str, title: str, *needs: str, **more: Any) -> ev.StagePlanned:
    return ev.StagePlanned(*at(0), stage, title, "web", "us-east-1", needs, **more)


PLANNED: list[ev.AnyEvent] = [
    planned("key", "make a key pair"),
    planned("source", "find the source image"),
    planned("launch", "launch t3.small", "key", "source"),
    planned("step-1", "packages", "launch"),
    planned("capture", "capture the disks", "step-1"),
    planned("test-1", "the page", "capture", is_test=True),
    planned("test-2", "the port", "capture", is_test=True),
    planned("keep", "keep the images", "test-1", "test-2"),
]
BEGINNING: list[ev.AnyEvent] = [
    ev.RunStarted(*at(0), ("web",)),
    *PLANNED,
    ev.StageStarted(*at(0), "key", "make a key pair"),
    ev.StageStarted(*at(0), "source", "find the source image"),
    ev.Held(*at(0.4), "key-pair", "us-east-1", "key-1"),
    ev.StageFinished(*at(0.5), "key", 0.5, "imagepipe-7f3a91c2-c1"),
    ev.StageFinished(*at(1), "source", 1.0, "ami-1 debian"),
    ev.StageStarted(*at(1), "launch", "launch t3.small"),
    ev.Held(*at(2), "instance", "us-east-1", "i-1"),
    ev.Span(*at(10), "launch", "boot", 8.0),
    ev.StageFinished(*at(11), "launch", 10.0, "i-1 (t3.small)"),
    ev.StageStarted(*at(11), "step-1", "packages"),
    ev.Line(*at(11), "step-1", "say", "try 1 of 3"),
    *(ev.Line(*at(12), "step-1", "out", f"unpacking package {number}") for number in range(30)),
    *(ev.Line(*at(13), "step-1", "err", text) for text in HOSTILE),
]
FAILED: list[ev.AnyEvent] = [
    *BEGINNING,
    ev.StageFailed(*at(15), "step-1", 4.0, "step 'packages' (web.yaml:7): exit code 100", "run apt-get update", "100"),
    ev.Released(*at(17), "instance", "us-east-1", "i-1"),
    ev.RunFinished(*at(18), "failed", 18.0, ("key-pair key-1 in us-east-1 (denied)",)),
]
SUCCEEDED: list[ev.AnyEvent] = [
    *BEGINNING,
    ev.StageFinished(*at(15), "step-1", 4.0),
    ev.StageStarted(*at(15), "capture", "capture the disks"),
    ev.Held(*at(20), "image", "us-east-1", "ami-2"),
    ev.StageFinished(*at(25), "capture", 10.0, "ami-2 in us-east-1"),
    ev.StageStarted(*at(25), "test-1", "the page"),
    ev.StageStarted(*at(25), "test-2", "the port"),
    ev.StageFinished(*at(26), "test-1", 1.0),
    ev.Finding(*at(26), "capture", "private-key", "/opt/<test>.pem", "a private key", "a key of the tests"),
    ev.StageFinished(*at(28), "test-2", 3.0),
    ev.StageStarted(*at(28), "keep", "keep the images"),
    ev.StageFinished(*at(29), "keep", 1.0),
    ev.Released(*at(30), "instance", "us-east-1", "i-1"),
    ev.Released(*at(31), "key-pair", "us-east-1", "key-1"),
    ev.RunFinished(*at(31), "succeeded", 31.0),
]
IMAGES = (ImageReport("web", "us-east-1", "ami-2", "web-20261123", is_new=True),)


def claim(kind: str, id: str | None, state: State, stage: str = "launch") -> Claim:
    return Claim("c1", kind, "us-east-1", f"{RUN}-c1", Lifetime.RUN, stage, state, id)


CLAIMS = (
    claim("key-pair", "key-1", State.BOUND, "key"),
    claim("instance", "i-1", State.RELEASED),
    claim("image", "ami-2", State.KEPT, "capture"),
)


def journal(outcome: str | None = None, *claims: Claim, is_alive: bool = False) -> JournalState:
    record = RunRecord(RUN, "2026-11-23T03:05:07.000000Z", ("web",), {"id": RUN, "git_sha": "0a1b2c3"}, {})
    return JournalState(record, claims, outcome, is_alive)


def failed() -> RunReport:
    return report_of(FAILED, journal("failed", *CLAIMS[:2]))


def succeeded() -> RunReport:
    released = claim("key-pair", "key-1", State.RELEASED, "key")
    return report_of(SUCCEEDED, journal("succeeded", released, *CLAIMS[1:]), IMAGES)


def reported(events: Sequence[ev.AnyEvent], outcome: str | None = "failed", *, is_alive: bool = False) -> RunReport:
    return report_of(events, journal(outcome, is_alive=is_alive))
