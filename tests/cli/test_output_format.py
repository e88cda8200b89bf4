"""`--format json`: one JSON value on standard output, and nothing else there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from imagepipe.cli.main import COMMANDS, main
from imagepipe.clock import SystemClock
from imagepipe.engine.file_store import JOURNAL as FILE_NAME
from imagepipe.engine.journal import Lifetime, RunRecord
from imagepipe.local.machines import requirements
from imagepipe.local.machines.requirements import Finding, Verdict
from tests import run_folders

ROOT = Path(__file__).resolve().parents[2]
HELD = {"kind": "instance", "id": "i-1", "region": "us-east-1"}
NO_RESULT = {
    *("demo", "ssh", "bundle pack", "bundle unpack", "bundle verify"),
    *("local serve", "local stop", "local images import", "local reset", "local run", "local ssh"),
    *("worker", "init", "fmt", "ui"),
}
"""Commands whose exit code says it all."""
ONE_LINE = {
    *("local account add", "local account env", "local account key", "local base", "local console"),
    *("completion", "schema", "logs"),
}
"""Commands that print an id, a path, lines for a shell, a file, or lines as they came."""


def _commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def test_every_command_with_a_result_takes_a_format_and_none_another_option_for_json() -> None:
    seen = dict(_commands(main))
    assert len(seen) > len(COMMANDS)
    for name, command in seen.items():
        options = {word for param in command.params for word in param.opts}
        assert "--json" not in options, name
        assert ("--format" in options) is (name not in NO_RESULT | ONE_LINE), name


def test_the_old_option_names_the_new_one() -> None:
    command = [sys.executable, "-m", "imagepipe.cli.main", "build", "x", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "error: no such option '--json'. Did you mean '--format json'?" in result.stderr


@pytest.fixture
def dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that holds an instance, and whose process is gone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "imagepipe" / "runs" / "aaaa1111"
    record = RunRecord(
        "aaaa1111", "2026-11-23T03:00:00Z", ("web",), {}, {"local": str(tmp_path / "store")}, {"files": []}
    )
    journal = run_folders.create(folder, record, SystemClock())
    journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    journal.close()
    return folder


def _json(*words: str) -> object:
    result = CliRunner().invoke(main, [*words, "--format", "json"], standalone_mode=False)
    return json.loads(result.stdout)


def test_runs_are_listed_with_their_resources_and_unreadable_ones_with_the_reason(dead: Path) -> None:
    (dead.parent / "bbbb2222").mkdir()
    (dead.parent / "bbbb2222" / FILE_NAME).write_text("not json\n")
    rows = _json("runs")
    assert isinstance(rows, list)
    first, second = sorted(rows, key=lambda row: str(row["run"]))
    assert (first["run"], first["state"], first["specs"]) == ("aaaa1111", "dead", ["web"])
    assert [{key: held[key] for key in HELD} for held in first["held"]] == [HELD]
    assert (second["run"], second["state"]) == ("bbbb2222", "unreadable")
    assert "journal" in second["error"]


def test_a_run_is_shown_with_the_next_command(dead: Path) -> None:
    shown = _json("show", "aaaa")
    assert isinstance(shown, dict)
    assert (shown["run"], shown["state"], shown["errors"]) == ("aaaa1111", "dead", [])
    assert "imagepipe resume aaaa1111" in shown["next"]
    assert shown["folder"] == str(dead)


def test_a_dry_run_of_clean_lists_the_resources(dead: Path) -> None:
    assert _json("clean", "--all", "--dry-run") == {
        "dry_run": True,
        "resources": [{"run": "aaaa1111", **HELD, "state": "would be deleted"}],
        "runs_left_alone": [],
    }


def test_clean_lists_the_runs_that_it_leaves_alone(dead: Path) -> None:
    (dead / FILE_NAME).write_text("not json\n")
    cleaned = _json("clean", "--all")
    assert isinstance(cleaned, dict)
    (row,) = cleaned["runs_left_alone"]
    assert row["run"] == "aaaa1111"
    assert "journal" in row["reason"]


def test_a_policy_is_explained_for_programs_too(tmp_path: Path) -> None:
    spec = tmp_path / "web.yaml"
    spec.write_text(
        "imagepipe: 1\nname: web\nsource: {ami: ami-12345678}\n"
        "launch: {region: us-east-1, ssh: {user: admin}}\noutput: {name: web-1}\n"
    )
    rows = _json("policy", str(spec), "--explain")
    assert isinstance(rows, list)
    assert {"ec2:RunInstances", "ec2:CreateSnapshots"} <= {row["action"] for row in rows}
    assert all(row["statements"] and row["stages"] for row in rows)
    policy = _json("policy", str(spec))
    assert isinstance(policy, dict)
    assert policy["Version"] == "2012-10-17"


def test_the_status_of_a_store_without_a_cloud(tmp_path: Path) -> None:
    status = _json("local", "--store", str(tmp_path / "store"), "status")
    assert status == {"store": str(tmp_path / "store"), "process": None, "disks_bytes": 0}


def test_doctor_lists_missing_packages_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = [Finding("slirp4netns", Verdict.MISSING, "not found", "slirp4netns")]
    monkeypatch.setattr(requirements, "examine", lambda store: lacks)
    words = ["local", "--store", str(tmp_path), "doctor", "--format", "json"]
    result = CliRunner().invoke(main, words, standalone_mode=False)
    found = json.loads(result.stdout)
    assert found["can_run"] is False
    assert found["findings"][0]["package"] == "slirp4netns"
    assert found["install"].endswith("slirp4netns")
    assert result.exception is not None
