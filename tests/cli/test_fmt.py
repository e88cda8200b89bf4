from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft7Validator

from imagepipe.cli.fmt import fmt
from imagepipe.cli.schema import schema
from imagepipe.errors import SpecError, UsageError

UNTIDY, TIDY = "name:   web # it\n", "name: web   # it\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/web.yaml").write_text(UNTIDY)
    (tmp_path / "specs/tidy.yaml").write_text(TIDY)
    (tmp_path / "specs/notes.txt").write_text(UNTIDY)
    return tmp_path


def test_the_specs_of_a_project_are_formatted_in_place(project: Path) -> None:
    (project / "specs/web.yaml").chmod(0o640)
    done = CliRunner().invoke(fmt, [])
    assert (done.exit_code, done.output) == (0, "specs/web.yaml was formatted\n")
    assert (project / "specs/web.yaml").read_text() == TIDY
    assert (project / "specs/web.yaml").stat().st_mode & 0o777 == 0o640
    assert (project / "specs/notes.txt").read_text() == UNTIDY
    assert CliRunner().invoke(fmt, []).output == ""


def test_a_check_changes_nothing_and_fails(project: Path) -> None:
    done = CliRunner().invoke(fmt, ["--check"], standalone_mode=False)
    assert done.return_value == 1
    assert "specs/web.yaml is not formatted" in done.output
    assert (project / "specs/web.yaml").read_text() == UNTIDY
    assert CliRunner().invoke(fmt, ["--check", "specs/tidy.yaml"], standalone_mode=False).return_value == 0


def test_a_diff_shows_what_would_change(project: Path) -> None:
    done = CliRunner().invoke(fmt, ["specs/web.yaml", "--diff"])
    assert done.exit_code == 0
    assert f"-{UNTIDY}+{TIDY}" in done.output
    assert (project / "specs/web.yaml").read_text() == UNTIDY


def test_standard_input_is_printed_formatted() -> None:
    assert CliRunner().invoke(fmt, ["-"], input=UNTIDY).output == TIDY


def test_a_link_stays_a_link(project: Path) -> None:
    (project / "link.yaml").symlink_to("specs/web.yaml")
    CliRunner().invoke(fmt, ["link.yaml"])
    assert (project / "link.yaml").is_symlink()
    assert (project / "specs/web.yaml").read_text() == TIDY


def test_bad_input_is_named(project: Path) -> None:
    assert isinstance(CliRunner().invoke(fmt, ["absent.yaml"]).exception, UsageError)
    (project / "broken.yaml").write_text("a: [\n")
    assert isinstance(CliRunner().invoke(fmt, ["broken.yaml"]).exception, SpecError)
    (project / "latin.yaml").write_bytes(b"a: \xe9\n")
    refused = CliRunner().invoke(fmt, ["latin.yaml"]).exception
    assert isinstance(refused, UsageError)
    assert "latin.yaml" in str(refused)


def test_a_schema_is_printed_or_written(project: Path) -> None:
    printed = CliRunner().invoke(schema, ["project"]).output
    Draft7Validator.check_schema(json.loads(printed))
    CliRunner().invoke(schema, ["project", "--output", "new/project.schema.json"])
    assert (project / "new/project.schema.json").read_text() == printed


def test_a_schema_that_cannot_be_written_is_named(project: Path) -> None:
    refused = CliRunner().invoke(schema, ["--output", "specs/web.yaml/x"]).exception
    assert isinstance(refused, UsageError)
    assert "writing the schema to specs/web.yaml/x" in str(refused)
