"""The workflow, the action, the pipeline and the locked requirements that CI systems use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagepipe.cli.ci_matrix import LEVELS

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/bake.yaml"


def _check(schema: str, file: Path) -> None:
    command = [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", f"vendor.{schema}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("schema", "file"), [("github-workflows", WORKFLOW), ("github-actions", ROOT / "action.yml")])
def test_github_accepts_the_workflow_and_the_action(schema: str, file: Path) -> None:
    _check(schema, file)


def test_gitlab_accepts_the_pipeline_of_a_family(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "imagepipe.cli.main", "ci-matrix", "specs/family", "--all", "--format", "gitlab"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (tmp_path / "pipeline.yml").write_text(done.stdout)
    _check("gitlab-ci", tmp_path / "pipeline.yml")


def _workflow() -> Any:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))


def test_the_workflow_has_a_job_and_an_output_for_each_level() -> None:
    jobs = _workflow()["jobs"]
    names = [f"level{number}" for number in range(LEVELS)]
    assert list(jobs) == ["plan", *names]
    assert list(jobs["plan"]["outputs"]) == names
    for before, name in zip(["plan", *names], names, strict=False):
        assert set(jobs[name]["needs"]) == {"plan", before}
        assert f"needs.plan.outputs.{name} != ''" in jobs[name]["if"]
        assert f"needs.plan.outputs.{name})" in jobs[name]["strategy"]["matrix"]


def test_no_script_of_the_workflow_or_the_action_holds_text_of_its_caller() -> None:
    """An expression in a script becomes a part of the script; in `env` it stays text."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    steps = [step for job in _workflow()["jobs"].values() for step in job["steps"]] + action["runs"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]
    assert scripts
    assert [script for script in scripts if "${{" in script] == []


def test_the_action_passes_its_command_on_and_runs_nothing_else_in_it(tmp_path: Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (tmp_path / "imagepipe").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (tmp_path / "imagepipe").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "COMMAND": "build 'a b.yaml' --var x=$(id);id"}
    script = action["runs"]["steps"][-1]["run"]
    done = subprocess.run(["bash", "-e", "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "build|a b.yaml|--var|x=$(id);id|"


def test_every_locked_requirement_has_a_hash_and_the_version_that_set_up_installs() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    rows = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [row for row in rows if "--hash=sha256:" not in row] == []
    locked = {found[1].lower(): found[2] for row in rows if (found := re.match(r"([\w.-]+)==(\S+)", row))}
    installed = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    both = locked.keys() & installed.keys()
    assert {"botocore", "paramiko", "pydantic", "click"} <= both
    assert {name: locked[name] for name in both} == {name: installed[name] for name in both}
