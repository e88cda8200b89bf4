"""`imagepipe plan` and `build --plan`: the account is only read, and a plan that no longer holds is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.build import build
from imagepipe.cli.graph import graph
from imagepipe.cli.plan import plan
from imagepipe.cli.why import why
from imagepipe.errors import ImagepipeError, UsageError
from tests.account import Account
from tests.local.aws.harness import KEY_ID, SECRET

SPEC = """\
imagepipe: 1
name: web
variables: {greeting: {default: hello}, token: {sensitive: true, default: s3cr3t-canary}}
source: {ami: {name: "debian-12-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}}
provision: [{shell: "echo {{ var.greeting }}", env: {TOKEN: "{{ var.token }}"}}]
test: [{shell: "true"}]
output: {name: "web-{{ build.id }}"}
publish: {regions: [us-west-2], share: {accounts: ["210987654321"]}}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "web.yaml").write_text(SPEC)
    return tmp_path / "web.yaml"


def _run(command: Any, account: Account, *words: str) -> Result:
    return CliRunner().invoke(command, [*words, "--endpoint-url", account.cloud.endpoint], standalone_mode=False)


def _json(result: Result) -> Any:
    assert result.exception is None, result.output
    return json.loads(result.stdout)


def test_a_plan_names_every_action_with_its_reason_and_changes_nothing(account: Account, spec: Path) -> None:
    document = _json(_run(plan, account, str(spec), "--format", "json"))
    (decision,) = document["decisions"]
    assert (decision["action"], decision["reason"]) == ("bake", "it was not baked yet")
    assert decision["source_image"].startswith("ami-")
    assert sorted((each["verb"], each["what"], each["region"]) for each in document["actions"]) == [
        ("copy", "the image", "us-west-2"),
        ("create", "a key pair", "us-east-1"),
        ("create", "a key pair", "us-east-1"),
        ("create", "a security group", "us-east-1"),
        ("create", "the image and its snapshots", "us-east-1"),
        ("find", "the source image", "us-east-1"),
        ("launch", "a test instance (t3.small)", "us-east-1"),
        ("launch", "an instance (t3.small)", "us-east-1"),
        ("share", "the image with 210987654321", "us-east-1"),
        ("share", "the image with 210987654321", "us-west-2"),
    ]
    calls = account.cloud.admin("GET", "calls")
    assert all(name.partition(":")[2].startswith(("Describe", "Get")) for name in calls), calls
    assert "canary" not in json.dumps(document)


def test_an_unknown_duration_and_unknown_sizes_are_not_zero(account: Account, spec: Path) -> None:
    result = _run(plan, account, str(spec))
    assert "duration of the build: unknown" in result.output
    assert "web: transfer in us-west-2 (from us-east-1): unknown GB x 0.02 USD = unknown" in result.output
    assert "cost of the build on AWS: 0.00 USD, without 3 unknown items" in result.output


def test_the_detailed_exit_code_is_2_for_changes(account: Account, spec: Path) -> None:
    assert _run(plan, account, str(spec)).return_value == 0
    assert _run(plan, account, str(spec), "--detailed-exitcode").return_value == 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("echo", "print"), "web: its inputs have changed since the plan"),
        (lambda text: text.replace("name: web\n", "name: other\n"), "its files have other specs now"),
    ],
    ids=["inputs", "other-spec"],
)
def test_a_plan_is_refused_if_it_no_longer_holds(
    account: Account, spec: Path, tmp_path: Path, edit: Any, message: str
) -> None:
    file = tmp_path / "web.plan"
    assert _run(plan, account, str(spec), "--out", str(file)).exception is None
    assert "canary" not in file.read_text()
    spec.write_text(edit(SPEC))
    before = dict(account.cloud.admin("GET", "calls"))
    with pytest.raises(UsageError, match=message):
        _raised(CliRunner().invoke(build, ["--plan", str(file)], standalone_mode=False))
    after = account.cloud.admin("GET", "calls")
    assert {name for name in after if after[name] != before.get(name)} <= {
        name for name in after if name.partition(":")[2].startswith(("Describe", "Get"))
    }


def _raised(result: Result) -> None:
    assert result.exception is not None, result.output
    raise result.exception


def test_a_plan_cannot_be_combined_with_specs(account: Account, spec: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be combined with specs"):
        _raised(CliRunner().invoke(build, ["--plan", str(tmp_path / "x"), str(spec)], standalone_mode=False))


def test_why_says_that_a_spec_was_not_baked_yet_and_names_a_source_that_does_not_exist(
    account: Account, spec: Path
) -> None:
    assert _run(why, account, str(spec)).output == "web: not baked yet\n"
    with pytest.raises(ImagepipeError, match="ami-0123456789abcdef0"):
        _raised(_run(why, account, str(spec), "ami-0123456789abcdef0"))


def test_why_answers_from_this_computer_without_a_cloud(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(why, [str(spec), "--offline"], standalone_mode=False)
    assert result.output == "web: not baked yet\n"


def test_graph_draws_the_stages_of_a_spec_without_a_cloud(spec: Path) -> None:
    result = CliRunner().invoke(graph, [str(spec)], standalone_mode=False)
    assert result.exception is None
    launch = next(line.split() for line in result.output.splitlines() if line.split()[:1] == ["launch"])
    assert {"key,", "network"} <= set(launch)
