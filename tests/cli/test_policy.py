"""`imagepipe policy` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.policy.specs import FULL, PLAIN

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "plain.yaml").write_text(PLAIN)
    (tmp_path / "full.yaml").write_text(FULL)
    (tmp_path / "homeless.yaml").write_text(PLAIN.replace("region: us-east-1, ", ""))
    return tmp_path


def run(folder: Path, *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    program = f"import sys; sys.argv[0] = 'imagepipe'; {before}\nfrom imagepipe.cli.main import run; run()"
    return subprocess.run(
        [sys.executable, "-c", program, "policy", *words],
        cwd=folder,
        env={**own, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_policy_is_printed_and_nothing_else(project: Path) -> None:
    result = run(project, "plain.yaml")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["Version"] == "2012-10-17"


def test_no_cloud_is_asked_and_no_cloud_library_is_loaded(project: Path) -> None:
    said = "import atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))"
    loaded = run(project, "plain.yaml", before=said).stderr.split()
    assert "imagepipe.policy.generate" in loaded
    assert not {"boto3", "botocore", "paramiko", "networkx", "moto", "rich"} & set(loaded)


def test_a_region_on_the_command_line_is_that_of_the_launch(project: Path) -> None:
    assert "eu-west-1" in run(project, "plain.yaml", "--region", "eu-west-1").stdout
    refused = run(project, "homeless.yaml")
    assert refused.returncode == 2
    assert "spec 'plain' has no region" in refused.stderr


def test_the_role_of_a_profile_is_noted_as_an_assumption_unless_it_is_given(project: Path) -> None:
    guessed, given = run(project, "full.yaml"), run(project, "full.yaml", "--role", "other")
    assert "arn:aws:iam::*:role/reader" in guessed.stdout
    assert "--role names another" in guessed.stderr
    assert "arn:aws:iam::*:role/other" in given.stdout
    assert "--role" not in given.stderr


def test_a_policy_that_is_larger_than_iam_takes_is_printed_in_parts(project: Path) -> None:
    regions = ", ".join(
        f"{each}-{n}" for each in ("us-west", "eu-west", "ap-southeast", "ap-northeast") for n in (1, 2)
    )
    (project / "wide.yaml").write_text(f"{PLAIN}publish: {{regions: [{regions}]}}\n")
    whole = run(project, "wide.yaml")
    assert "a managed policy may have only 6144: print it with --part 1 to --part 2" in whole.stderr
    parts = [json.loads(run(project, "wide.yaml", "--part", str(part)).stdout) for part in (1, 2)]
    together = [statement for part in parts for statement in part["Statement"]]
    assert together == json.loads(whole.stdout)["Statement"]
    assert run(project, "wide.yaml", "--part", "3").returncode == 2


def test_each_action_is_explained_by_who_asks_it(project: Path) -> None:
    lines = run(project, "plain.yaml", "--explain").stdout.splitlines()
    [stops] = [line for line in lines if line.startswith("ec2:StopInstances ")]
    assert stops.split() == ["ec2:StopInstances", "WorkOnOurs", "Stop"]


def test_a_spec_with_mistakes_has_no_policy(project: Path) -> None:
    (project / "plain.yaml").write_text(PLAIN + "lunch: {}\n")
    result = run(project, "plain.yaml")
    assert (result.returncode, result.stdout) == (2, "")
    assert "unknown key 'lunch'" in result.stderr
