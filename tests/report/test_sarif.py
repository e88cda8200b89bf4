from __future__ import annotations

from pathlib import Path

from imagepipe.errors import Problem
from imagepipe.report.sarif import sarif

PROBLEM = Problem("specs/my web.yaml", 3, 5, "unknown region 'eu-wast-1'", "launch.region", hint="eu-west-1?")


def test_a_problem_is_a_result_at_its_line_in_a_file_relative_to_the_project(tmp_path: Path) -> None:
    log = sarif([PROBLEM], folder=tmp_path)
    assert log["version"] == "2.1.0"
    [run] = log["runs"]
    assert run["tool"]["driver"]["name"] == "imagepipe"
    [result] = run["results"]
    assert result["level"] == "error"
    assert result["message"]["text"] == "launch.region: unknown region 'eu-wast-1'\nhint: eu-west-1?"
    [location] = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "specs/my%20web.yaml"},
        "region": {"startLine": 3, "startColumn": 5},
    }
    assert result["ruleId"] in {rule["id"] for rule in run["tool"]["driver"]["rules"]}


def test_specs_without_problems_are_a_run_without_results(tmp_path: Path) -> None:
    assert sarif([], folder=tmp_path)["runs"][0]["results"] == []
