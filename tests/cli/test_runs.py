"""`imagepipe runs`: a list with filters; and the words that stand for a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.main import main
from imagepipe.engine.file_store import JOURNAL as FILE_NAME
from imagepipe.engine.journal import Journal, Lifetime, RunRecord
from imagepipe.errors import UsageError
from tests import run_folders

NAME = {"us-east-1": {"name": "web-1", "description": "", "tags": {}}}
KEPT = [{"id": "ami-1", "region": "us-east-1", "name": "web-1", "snapshots": ["snap-1"], "bundle": None}]


@dataclass
class StoppedClock:
    """A clock that a test sets."""

    time: datetime

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0

    def wait(self, event: Event, seconds: float) -> bool:
        return event.wait(seconds)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "imagepipe" / "runs"


def _run(
    folder: Path,
    id: str,
    started: str,
    *specs: str,
    outcome: str | None = None,
    seconds: float = 0,
    outputs: Mapping[str, Any] | None = None,
    holds: bool = False,
) -> Journal:
    """Write the journal of a run that took so long, and leave it open."""
    clock = StoppedClock(datetime.fromisoformat(started).replace(tzinfo=UTC))
    record = RunRecord(id, f"{started}Z", specs, {}, {})
    journal = run_folders.create(folder / id, record, clock)
    if holds:
        journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    clock.time += timedelta(seconds=seconds)
    for stage, value in (outputs or {}).items():
        journal.note("output", stage=stage, fingerprint="f", value=value)
    if outcome:
        journal.note("finished", outcome=outcome, held=[])
    return journal


@pytest.fixture
def history(folder: Path) -> Path:
    """Four runs: one that succeeded, a failed one that holds an instance, a dead one, and an unreadable one."""
    outputs = {"web/name": NAME, "web/keep": KEPT}
    _run(folder, "aaaa1111", "2026-11-23T03:00:00", "web", outcome="succeeded", seconds=247, outputs=outputs).close()
    _run(folder, "aabb2222", "2026-11-24T03:00:00", "web", "db", outcome="failed", seconds=8, holds=True).close()
    _run(folder, "cccc3333", "2026-11-22T03:00:00", "base", seconds=7500, outputs={"name": NAME}).close()
    (folder / "dddd4444").mkdir()
    (folder / "dddd4444" / FILE_NAME).write_text("not json\n")
    return folder


def _call(*words: str) -> Result:
    return CliRunner().invoke(main, words, standalone_mode=False)


def _ids(*words: str) -> list[str]:
    return [row["run"] for row in json.loads(_call("runs", "--format", "json", *words).stdout)]


def test_runs_are_listed_newest_first_below_a_header(history: Path) -> None:
    unreadable, *lines = _call("runs", "-n", "9").output.splitlines()[1:]
    assert unreadable.startswith("dddd4444")
    assert "cannot be read" in lines.pop(0)
    assert lines == [
        "aabb2222  2026-11-24 03:00:00  8s        failed      web, db",
        "          still held: instance i-1 in us-east-1",
        "aaaa1111  2026-11-23 03:00:00  4m 07s    succeeded   web      web-1",
        "cccc3333  2026-11-22 03:00:00  2h 05m    dead        base     web-1",
    ]
    header = _call("runs").output.splitlines()[0]
    assert header == "RUN       STARTED (UTC)        DURATION  STATE       SPECS    IMAGES"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["-n", "2"], ["dddd4444", "aabb2222"]),
        (["--status", "failed", "--status", "dead"], ["aabb2222", "cccc3333"]),
        (["--status", "unreadable"], ["dddd4444"]),
        (["--spec", "db"], ["aabb2222"]),
        (["--spec", "w*"], ["aabb2222", "aaaa1111"]),
        (["--spec", "web", "--status", "succeeded", "-n", "1"], ["aaaa1111"]),
        (["--spec", "nothing"], []),
    ],
)
def test_filters_select_runs(history: Path, words: list[str], found: list[str]) -> None:
    assert _ids(*words) == found


def test_a_filter_that_selects_nothing_differs_from_no_runs(history: Path, tmp_path: Path) -> None:
    assert _call("runs", "--spec", "nothing").output == "no run matches\n"
    assert CliRunner().invoke(main, ["runs"], env={"XDG_STATE_HOME": str(tmp_path / "x")}).output == "no runs yet\n"


@pytest.mark.parametrize("words", [["-n", "0"], ["-n", "x"], ["--status", "done"]])
def test_bad_options_are_refused(history: Path, words: list[str]) -> None:
    assert _call("runs", *words).exit_code != 0


def test_a_run_in_json_has_its_times_and_images(history: Path) -> None:
    (row,) = json.loads(_call("runs", "--format", "json", "--status", "succeeded").stdout)
    assert (row["seconds"], row["image_names"]) == (247.0, ["web-1"])
    assert row["ended"] == "2026-11-23T03:04:07.000000Z" or row["ended"].startswith("2026-11-23T03:04:07")
    assert row["images"] == [{"image_id": "ami-1", "region": "us-east-1", "name": "web-1"}]


def test_a_run_in_progress_has_a_duration_so_far_and_no_end(folder: Path) -> None:
    started = (datetime.now(UTC) - timedelta(seconds=90)).strftime("%Y-%m-%dT%H:%M:%S")
    journal = _run(folder, "eeee5555", started, "web", holds=True)
    (row,) = json.loads(_call("runs", "--format", "json").stdout)
    output = _call("runs").output
    journal.close()
    assert (row["state"], row["ended"]) == ("running", None)
    assert 90 <= row["seconds"] < 150
    assert "1m 3" in output
    assert "still held" not in output


def test_what_is_cleaned_up_later_does_not_change_when_a_run_ended(history: Path) -> None:
    clock = StoppedClock(datetime(2026, 12, 24, tzinfo=UTC))
    journal = run_folders.reopen(history / "aabb2222", clock)
    journal.release(journal.claims()[0])
    journal.close()
    (row,) = json.loads(_call("runs", "--format", "json", "--status", "failed").stdout)
    assert (row["seconds"], row["held"]) == (8.0, [])


def test_the_name_of_a_replaced_image_is_the_one_that_it_took_over(folder: Path) -> None:
    outputs = {"name": {"us-east-1": {"name": "web-r1"}}, "keep": KEPT, "replaced": [{**KEPT[0], "name": "web"}]}
    _run(folder, "aaaa1111", "2026-11-23T03:00:00", "web", outcome="succeeded", outputs=outputs).close()
    (row,) = json.loads(_call("runs", "--format", "json").stdout)
    assert (row["image_names"], [image["name"] for image in row["images"]]) == (["web"], ["web"])


def test_each_spec_of_a_run_has_its_own_images(folder: Path) -> None:
    outputs = {
        "web/name": NAME,
        "web/keep": KEPT,
        "web/replaced": [{**KEPT[0], "name": "web"}],
        "db[size=s/m]/keep": [{**KEPT[0], "id": "ami-2", "name": "db-1"}],
        "base/name": {"us-east-1": {"name": "base-1"}},
    }
    _run(folder, "aaaa1111", "2026-11-23T03:00:00", "web", "db", "base", outcome="failed", outputs=outputs).close()
    (row,) = json.loads(_call("runs", "--format", "json").stdout)
    assert row["image_names"] == ["web", "db-1", "base-1"]
    assert [image["image_id"] for image in row["images"]] == ["ami-1", "ami-2"]


def test_latest_is_the_run_that_began_last_and_can_be_read(history: Path) -> None:
    assert json.loads(_call("show", "latest", "--format", "json").stdout)["run"] == "aabb2222"
    cleaned = json.loads(_call("clean", "latest", "--dry-run", "--format", "json").stdout)
    assert [row["run"] for row in cleaned["resources"]] == ["aabb2222"]
    refused = _call("resume", "latest").exception
    assert isinstance(refused, UsageError)
    assert "run aabb2222" in str(refused)


def test_latest_is_refused_if_there_is_no_run(folder: Path) -> None:
    refused = _call("show", "latest").exception
    assert isinstance(refused, UsageError)
    assert "there is no latest run" in str(refused)


def test_the_start_of_an_id_must_be_that_of_one_run(history: Path) -> None:
    assert json.loads(_call("show", "aab", "--format", "json").stdout)["run"] == "aabb2222"
    several = _call("show", "aa").exception
    assert isinstance(several, UsageError)
    assert "several runs begin with 'aa'" in str(several)
    missing = _call("show", "f00").exception
    assert isinstance(missing, UsageError)
    assert missing.hint == "imagepipe runs lists them"
