"""`imagepipe report` and `build --report`: files of a run, whatever state the run, the disk or the locale is in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.graph import unrun_graph
from imagepipe.cli.main import main
from imagepipe.cli.report_folder import FILE_NAMES
from imagepipe.cli.run import planned_events
from imagepipe.clock import SystemClock
from imagepipe.engine import events as ev
from imagepipe.engine.events import FILE_NAME, EventFile
from imagepipe.engine.file_store import JOURNAL
from imagepipe.engine.journal import Journal, Lifetime, RunRecord
from imagepipe.errors import ImagepipeError, UsageError
from imagepipe.masking import Masker
from imagepipe.spec.load import SAMPLE_BUILD, load
from imagepipe.spec.variables import Given
from tests import run_folders
from tests.engine.test_full_disk import full_at
from tests.report.runs import BEGINNING, RUN, SUCCEEDED

ROOT = Path(__file__).resolve().parents[2]
SPEC = """\
imagepipe: 1
name: web
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: web}
"""
IMAGE = {"id": "ami-2", "region": "us-east-1", "name": "web-20261123"}
INSTANCE = {"id": "i-1", "region": "us-east-1", "instance_type": "t3.small", "spot": False}


def _journal(folder: Path, cloud: dict[str, str]) -> Journal:
    """Begin the journal of a run that made an image."""
    record = RunRecord(RUN, "2026-11-23T03:05:07Z", ("web",), {"git_sha": "0a1b2c3"}, cloud)
    journal = run_folders.create(folder, record, SystemClock())
    instance = journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    image = journal.bind(journal.intend("image", "us-east-1", lifetime=Lifetime.PRODUCT, stage="capture"), "ami-2")
    for stage, value in (
        ("source", {"id": "ami-1", "name": "debian-12"}),
        ("inputs", "0123abcd"),
        ("launch", INSTANCE),
        ("keep", [IMAGE]),
    ):
        journal.note("output", stage=stage, fingerprint="f", value=value)
    journal.release(instance)
    journal.keep(image)
    return journal


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run on AWS that succeeded; the working folder is empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("IMAGEPIPE_STATE", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    folder = tmp_path / "state" / "imagepipe" / "runs" / RUN
    journal = _journal(folder, {})
    journal.note("finished", outcome="succeeded", held=[])
    journal.close()
    with EventFile(folder / FILE_NAME) as file:
        for event in SUCCEEDED:
            file(event)
    return folder


def _report(*words: str) -> Result:
    return CliRunner().invoke(main, ["report", *words], standalone_mode=False)


def _written(words: tuple[str, ...] = (RUN,)) -> dict[str, Any]:
    result = _report(*words)
    assert result.exception is None, result.exception
    found: dict[str, Any] = json.loads(Path(f"report-{RUN}/report.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("word", [RUN, "7f3a", "latest"])
def test_all_reports_of_a_run_are_written_and_named(folder: Path, word: str) -> None:
    result = _report(word)
    assert result.exception is None
    assert result.output.splitlines() == [f"report-{RUN}/{name}" for name in FILE_NAMES.values()]
    assert {path.name for path in Path(f"report-{RUN}").iterdir()} == set(FILE_NAMES.values())


def test_the_journal_adds_images_origin_and_the_cost_of_machines(folder: Path) -> None:
    found = _written()
    assert found["images"] == [
        {"spec": "web", "region": "us-east-1", "image_id": "ami-2", "name": "web-20261123", "new": True}
    ]
    assert found["sources"] == [
        {"spec": "web", "image_id": "ami-1", "name": "debian-12", "base": None, "fingerprint": "0123abcd"}
    ]
    [machine] = found["machines"]
    assert (machine["instance_type"], machine["seconds"], machine["hourly_price"]) == ("t3.small", 28.0, 0.0208)
    assert machine["cost"] == round(60 / 3600 * 0.0208, 6), "a minute at least"
    assert (found["currency"], found["commit"]) == ("USD", "0a1b2c3")


def test_the_local_cloud_costs_nothing_so_no_price_is_named(folder: Path) -> None:
    (folder / JOURNAL).unlink()
    _journal(folder, {"local": "/store"}).close()
    found = _written()
    [machine] = found["machines"]
    assert (machine["cost"], found["currency"]) == (None, None)


def test_an_image_that_was_deleted_after_all_is_not_named(folder: Path) -> None:
    with (folder / JOURNAL).open("a") as file:
        file.write('{"type": "released", "claim": "c2"}\n')
    assert _written()["images"] == []


def test_names_of_a_journal_that_cannot_be_written_as_utf_8_are_replaced(folder: Path) -> None:
    image = {"id": "ami-2", "region": "us-east-1", "name": "web-\ud800\u202e"}
    with (folder / JOURNAL).open("a") as file:
        for stage, value in (
            ("keep", [image, 7, {"id": 3}]),
            ("source", {"id": "ami-1", "name": "\udfff"}),
            ("launch", []),
        ):
            file.write(json.dumps({"type": "output", "stage": stage, "fingerprint": "f", "value": value}) + "\n")
    found = _written()
    assert [each["name"] for each in found["images"]] == ["web-\ufffd\ufffd"]
    assert found["sources"][0]["name"] == "\ufffd"


def test_only_the_formats_that_are_named_are_written_into_the_folder_that_is_named(folder: Path) -> None:
    result = _report(RUN, "--format", "json, html", "-o", "a/b")
    assert result.output.splitlines() == ["a/b/report.html", "a/b/report.json"]
    refused = _report(RUN, "--format", "html,pdf")
    assert "'pdf' is not a format: choose from html, json" in str(refused.exception)


def test_an_unknown_run_is_refused(folder: Path) -> None:
    result = _report("abcd")
    assert isinstance(result.exception, UsageError)
    assert "run 'abcd' was not found" in str(result.exception)
    assert not list(Path().iterdir())


def test_a_run_of_an_old_version_has_no_junit(folder: Path) -> None:
    with (folder / FILE_NAME).open("w") as file:
        for event in SUCCEEDED:
            if not isinstance(event, ev.StagePlanned):
                file.write(json.dumps(ev.to_json(event)) + "\n")
    result = _report(RUN)
    assert "note: no junit.xml" in result.output
    assert not Path(f"report-{RUN}/junit.xml").exists()


def test_a_run_in_progress_is_reported_as_it_is(folder: Path) -> None:
    (folder / JOURNAL).unlink()
    journal = _journal(folder, {})
    try:
        (folder / FILE_NAME).unlink()
        with EventFile(folder / FILE_NAME) as file:
            for event in BEGINNING:
                file(event)
            assert _written()["outcome"] == "running"
    finally:
        journal.close()
    found = _written()
    assert (found["outcome"], found["next_command"]) == ("died", f"imagepipe resume {RUN}")


def test_an_event_that_was_not_written_whole_is_left_out(folder: Path) -> None:
    path = folder / FILE_NAME
    path.write_bytes(path.read_bytes()[:-10])
    assert _written()["outcome"] == "succeeded", "the journal has it too"


def test_a_changed_file_is_reported_with_its_line(folder: Path) -> None:
    with (folder / FILE_NAME).open("ab") as file:
        file.write(b'{"event": "Line", "text": "\xff\x00"}\n')
    result = _report(RUN)
    assert isinstance(result.exception, ImagepipeError)
    assert f"line {len(SUCCEEDED) + 1}, cannot be read" in str(result.exception)


def test_a_full_disk_leaves_the_earlier_report_whole(folder: Path) -> None:
    _written()
    page = Path(f"report-{RUN}/report.html")
    before = page.read_bytes()
    with full_at(1000):
        result = _report(RUN)
    assert isinstance(result.exception, ImagepipeError)
    assert f"writing reports of run {RUN} into report-{RUN}: File too large" in str(result.exception)
    assert "free space on the disk" in (result.exception.hint or "")
    assert page.read_bytes() == before
    assert {path.name for path in Path(f"report-{RUN}").iterdir()} == set(FILE_NAMES.values()), "no half file"


def test_a_folder_that_cannot_be_made_is_a_clear_error(folder: Path) -> None:
    Path("file").touch()
    result = _report(RUN, "-o", "file/below")
    assert isinstance(result.exception, ImagepipeError)
    assert "into file/below: Not a directory" in str(result.exception)


def test_reports_are_utf_8_in_a_locale_without_it(folder: Path) -> None:
    with EventFile(folder / FILE_NAME) as file:
        file(ev.Line(SUCCEEDED[0].time, RUN, "step-1", "out", "ünïcode ✓"))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "imagepipe.cli.main", "report", RUN, "-o", "ü"]
    done = subprocess.run(command, env=env, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "ünïcode ✓" in Path("ü/report.html").read_text(encoding="utf-8")


def _build(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Build a spec for a cloud that does not answer, so that its first stages fail."""
    (folder / "web.yaml").write_text(SPEC)
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    state = {"XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "IMAGEPIPE_"))}
    return subprocess.run(
        [sys.executable, "-m", "imagepipe.cli.main", "build", "web.yaml", *words],
        cwd=folder,
        env={**kept, **nowhere, **state, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_build_that_fails_writes_its_reports_and_those_of_its_job(tmp_path: Path) -> None:
    job = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "GITHUB_OUTPUT": str(tmp_path / "output")}
    (tmp_path / "output").write_text("mine=1\n")
    result = _build(tmp_path, "--report", "out", GITHUB_ACTIONS="true", **job)
    assert result.returncode == 3
    assert "reports: out" in result.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILE_NAMES.values())
    found = json.loads((tmp_path / "out/report.json").read_text())
    assert found["outcome"] == "failed"
    assert found["errors"][0]["region"] == "us-east-1"
    assert "Could not connect to the endpoint URL" in found["errors"][0]["message"]
    assert {stage["stage"]: stage["status"] for stage in found["stages"]}["keep"] == "not run"
    assert [each.get("message") for each in ET.parse(tmp_path / "out/junit.xml").getroot().iter("error")] != []
    assert (tmp_path / "summary").read_text().startswith("## web: failed\n")
    assert (tmp_path / "output").read_text().startswith("mine=1\nrun=")


def test_a_report_that_cannot_be_written_does_not_change_the_result_of_a_build(tmp_path: Path) -> None:
    job = {"GITHUB_STEP_SUMMARY": str(tmp_path / "missing" / "summary")}
    result = _build(tmp_path, "--report", "out", GITHUB_ACTIONS="true", **job)
    assert result.returncode == 3
    assert "warning: FileNotFoundError" in result.stderr
    assert "reports: out" not in result.stderr


def test_a_build_that_is_refused_leaves_no_report_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").touch()
    (tmp_path / "out" / "notes.txt").touch()
    result = _build(tmp_path, "--report", "out", "--var", "nothing=1")
    assert result.returncode == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_folder_of_reports_that_cannot_be_written_is_refused_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = _build(tmp_path, "--report", "file/below")
    assert result.returncode == 2
    assert "--report file/below: cannot be written: Not a directory" in result.stderr
    assert not (tmp_path / "state").exists()


def test_a_run_names_every_stage_with_its_needs_its_region_and_its_tests(tmp_path: Path) -> None:
    text = SPEC + "test: [{shell: 'true'}]\npublish: {regions: [us-west-2, eu-west-1], best_effort: [eu-west-1]}\n"
    (tmp_path / "web.yaml").write_text(text)
    loaded = load([tmp_path / "web.yaml"], Given(), build=SAMPLE_BUILD)
    plan = unrun_graph(loaded, None, scans_disks=False)
    found = {event.stage: event for event in planned_events(plan, ev.Events("r", SystemClock(), Masker(())))}
    assert set(found) == set(plan.graph.stages)
    assert found["launch"].needs == tuple(sorted(plan.graph.needs("launch")))
    assert {name for name, event in found.items() if event.is_test} == {"test-boot", "test-1"}
    assert {event.spec for event in found.values()} == {"web"}
    assert {name: found[name].region for name in ("key", "test-1", "copy-us-west-2", "copy-eu-west-1")} == {
        "key": "us-east-1",
        "test-1": "us-east-1",
        "copy-us-west-2": "us-west-2",
        "copy-eu-west-1": "eu-west-1",
    }
    assert {name for name, event in found.items() if event.is_optional} >= {"copy-eu-west-1"}
    assert not found["copy-us-west-2"].is_optional
