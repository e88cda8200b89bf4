"""The JSON report keeps to its published schema."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagepipe.report.model import MachineReport, SourceReport
from imagepipe.report.summary_json import FORMAT_VERSION, summary
from tests.report.runs import BEGINNING, failed, reported, succeeded

SCHEMA = Path(__file__).resolve().parents[2] / "docs/reference/report.schema.json"


def _strict(schema: Any) -> Any:
    """Return the schema with every object closed, so that an undocumented field is an error."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "properties" in schema and "required" in schema else {}
    return {key: _strict(value) for key, value in schema.items()} | closed


def test_every_report_keeps_to_the_schema(tmp_path: Path) -> None:
    full = replace(
        succeeded(),
        sources=(SourceReport("web", "ami-1", "debian", "base", "0123"),),
        machines=(MachineReport("i-1", "us-east-1", "t3.small", 28.0, None, None),),
    )
    reports = {
        "failed": failed(),
        "full": full,
        "running": reported(BEGINNING, None, is_alive=True),
        "empty": reported([], None),
    }
    (tmp_path / "schema.json").write_text(json.dumps(_strict(json.loads(SCHEMA.read_text()))))
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(summary(report)))
    checker = str(Path(sys.executable).parent / "check-jsonschema")
    files = [str(tmp_path / f"{name}.json") for name in reports]
    done = subprocess.run(
        [checker, "--schemafile", str(tmp_path / "schema.json"), *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_error_has_stage_step_region_code_message_and_hint() -> None:
    [error] = summary(failed())["errors"]
    lines = error.pop("last_lines")
    assert error == {
        "stage": "step-1",
        "spec": "web",
        "step": "step-1",
        "title": "packages",
        "region": "us-east-1",
        "code": "100",
        "message": "step 'packages' (web.yaml:7): exit code 100",
        "hint": "run apt-get update",
        "optional": False,
    }
    assert len(lines) == 20


def test_the_version_of_the_format_is_the_one_of_the_schema() -> None:
    assert json.loads(SCHEMA.read_text())["properties"]["format_version"]["const"] == FORMAT_VERSION
