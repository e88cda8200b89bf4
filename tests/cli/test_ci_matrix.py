"""`imagepipe ci-matrix` in an account: only what a build would change has a job, and nothing is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.ci_matrix import ci_matrix
from imagepipe.cli.plan import plan
from imagepipe.cloud import tags
from imagepipe.errors import UsageError
from tests.account import Account
from tests.local.aws.harness import KEY_ID, SECRET
from tests.published import kept_image

FAMILY = """\
imagepipe: 1
name: base
source: {ami: {name: "debian-12-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: "base-{{ build.id }}"}
---
imagepipe: 1
name: app
source: {image: base}
provision: [{shell: "true"}]
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: "app-{{ build.id }}"}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "family.yaml").write_text(FAMILY)
    return tmp_path / "family.yaml"


def _call(command: Any, account: Account, *words: str) -> Result:
    return CliRunner().invoke(command, [*words, "--endpoint-url", account.cloud.endpoint], standalone_mode=False)


def _matrix(account: Account, *words: str) -> Any:
    result = _call(ci_matrix, account, *words, "--format", "json")
    assert result.exception is None, result.output
    return json.loads(result.stdout)


def _bake(account: Account, file: Path, key: str) -> None:
    """Leave an image of this spec, as a build with today's inputs does."""
    document = json.loads(_call(plan, account, str(file), "--format", "json").stdout)
    [mark] = [row["fingerprint"] for row in document["decisions"] if row["spec"] == key]
    kept_image(account, f"{key}-1", spec=key, **{tags.FINGERPRINT: mark})


def test_only_specs_that_have_changed_have_a_job(account: Account, file: Path) -> None:
    before = _matrix(account, str(file))
    assert [[job["key"] for job in level] for level in before["levels"]] == [["base"], ["app"]]
    assert before["levels"][1][0]["reason"] == "its base base is baked"
    _bake(account, file, "base")
    after = _matrix(account, str(file))
    assert [[(job["command"], job["key"]) for job in level] for level in after["levels"]] == [[("build", "app")]]
    assert after["unchanged"] == ["base"]
    calls = account.cloud.admin("GET", "calls")
    assert "up to date: base" in _call(ci_matrix, account, str(file)).output
    more = {name for name, count in account.cloud.admin("GET", "calls").items() if count != calls.get(name)}
    assert all(name.partition(":")[2].startswith(("Describe", "Get")) for name in more), more


def test_an_image_without_a_region_of_its_spec_is_published(account: Account, file: Path) -> None:
    _bake(account, file, "base")
    file.write_text(FAMILY.partition("---\n")[0] + "publish: {regions: [us-west-2]}\n")
    [[job]] = _matrix(account, str(file))["levels"]
    assert (job["command"], job["key"]) == ("publish", "base")
    assert "is not in us-west-2 yet" in job["reason"]


def test_all_specs_have_a_job_without_a_cloud(file: Path) -> None:
    result = CliRunner().invoke(ci_matrix, [str(file), "--all", "--format", "github"], standalone_mode=False)
    assert result.exception is None
    assert result.output.startswith('levels=2\nlevel0={"include":[{"file":"')
    assert result.output.endswith("level2=\nlevel3=\n")


def test_options_that_a_format_does_not_take_are_refused(file: Path) -> None:
    refused = CliRunner().invoke(ci_matrix, [str(file), "--all", "--include", "a.yml"], standalone_mode=False).exception
    assert isinstance(refused, UsageError)
    assert str(refused) == "--include is for --format gitlab"
