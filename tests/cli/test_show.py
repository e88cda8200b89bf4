"""`imagepipe show`: a run's output, from its files alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from imagepipe.cli.end import Closing
from imagepipe.cli.show import show
from imagepipe.clock import SystemClock
from imagepipe.engine.events import FILE_NAME, EventFile, StageFailed
from imagepipe.engine.file_store import JOURNAL, FileStore
from imagepipe.engine.journal import Lifetime, RunRecord
from imagepipe.engine.journal_store import CLOSING
from imagepipe.errors import ImagepipeError, UsageError
from imagepipe.masking import Masker
from tests import run_folders
from tests.engine.test_events import SAMPLES

ENDS = """\
7f3a91c2: failed
still held: instance i-1 in us-east-1
delete what it holds: imagepipe clean 7f3a91c2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a failed run that could not delete an instance."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "imagepipe" / "runs" / "7f3a91c2"
    record = RunRecord("7f3a91c2", "2026-11-23T03:05:07Z", ("web",), {}, {}, {"files": ["specs/web.yaml"]})
    journal = run_folders.create(folder, record, SystemClock())
    journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    journal.note("finished", outcome="failed", held=[])
    journal.close()
    with EventFile(folder / FILE_NAME) as file:
        for event in SAMPLES:
            file(event)
    return folder


def test_a_run_is_shown_with_its_log_and_its_resources(folder: Path) -> None:
    result = CliRunner().invoke(show, ["7f3a"])
    assert "web, base" in result.output
    assert "| ünïcode" in result.output
    assert "failed in 2.0 s" in result.output
    assert result.output.endswith(ENDS)


def test_an_event_that_was_not_written_whole_is_left_out(folder: Path) -> None:
    path = folder / FILE_NAME
    path.write_bytes(path.read_bytes()[:-10])
    result = CliRunner().invoke(show, ["7f3a91c2"])
    assert result.exit_code == 0
    assert "failed in 2.0 s" not in result.output
    assert "broken" in result.output


def test_a_changed_file_is_reported_with_its_line(folder: Path) -> None:
    with (folder / FILE_NAME).open("a") as file:
        file.write('{"event": "Line"}\n')
    result = CliRunner().invoke(show, ["7f3a91c2"])
    assert isinstance(result.exception, ImagepipeError)
    assert f"line {len(SAMPLES) + 1}, cannot be read: not an event" in str(result.exception)


def test_a_run_that_died_before_its_first_event_is_shown_with_its_resources(folder: Path) -> None:
    (folder / FILE_NAME).unlink()
    result = CliRunner().invoke(show, ["7f3a91c2"])
    assert result.output == ENDS


@pytest.mark.parametrize("name", [FILE_NAME, JOURNAL])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_folder_in_place_of_a_file_is_refused(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    (folder / name).unlink()
    make(folder / name)
    result = CliRunner().invoke(show, ["7f3a91c2"])
    assert isinstance(result.exception, UsageError)
    assert f"{folder / name} is not a regular file" in str(result.exception)


def test_the_last_lines_of_the_run_are_printed_again(folder: Path) -> None:
    lines = ["error: step-1: exit 1", "  hint: look", "kept: i-1 in us-east-1: ssh -i key admin@127.0.0.1"]
    (folder / CLOSING).write_text("".join(f"{line}\n" for line in lines))
    result = CliRunner().invoke(show, ["7f3a91c2"])
    assert result.output.endswith("\n".join(["", *lines, ENDS]))


def test_the_errors_of_a_run_that_died_before_its_last_lines_are_printed_whole(folder: Path) -> None:
    with EventFile(folder / FILE_NAME) as file:
        file(StageFailed(datetime.now(UTC), "r", "step-2", 1.0, "exit code 1\n  the last line", "look"))
    result = CliRunner().invoke(show, ["7f3a91c2"])
    assert result.output.endswith(f"error: step-2: exit code 1\n  the last line\n  hint: look\n{ENDS}")


def test_a_run_whose_process_died_can_be_resumed(folder: Path) -> None:
    journal = folder / JOURNAL
    journal.write_text("".join(line for line in journal.read_text().splitlines(True) if '"finished"' not in line))
    result = CliRunner().invoke(show, ["7f3a91c2"])
    assert "`imagepipe resume 7f3a91c2` continues it" in result.output


def test_a_name_of_any_bytes_in_the_last_lines_is_kept(folder: Path) -> None:
    closing = Closing(Masker(["hunter2"]))
    odd = os.fsdecode(b"odd-\xff")
    closing.print(f"error: step-1: {odd} hunter2")
    FileStore(folder.parent).put(folder.name, CLOSING, closing.content())
    kept = (folder / CLOSING).read_text(encoding="utf-8")
    assert (folder / CLOSING).stat().st_mode & 0o777 == 0o600
    assert "odd-" in kept
    assert "hunter2" not in kept


def test_a_run_is_shown_as_traces_for_opentelemetry(folder: Path) -> None:
    result = CliRunner().invoke(show, ["7f3a91c2", "--otlp"])
    assert result.exit_code == 0
    spans = json.loads(result.stdout)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert spans[0]["name"] == "BUILD web, base"
    assert len(spans) > 1


def test_an_instance_whose_launch_died_cannot_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "imagepipe" / "runs" / "7f3a91c2"
    journal = run_folders.create(folder, RunRecord("7f3a91c2", "2026-11-23T03:05:07Z", (), {}, {}), SystemClock())
    journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
    journal.close()
    output = CliRunner().invoke(show, ["7f3a91c2"]).output
    assert "imagepipe clean 7f3a91c2" in output
    assert "resume" not in output
