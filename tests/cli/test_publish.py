"""`imagepipe publish` as a user runs it: the differences, the question, the run, and the images afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.policy import policy
from imagepipe.cli.publish import publish
from imagepipe.errors import CloudError, UsageError
from tests.account import Account
from tests.local.aws import harness
from tests.local.aws.harness import KEY_ID, SECRET
from tests.published import kept_image, parameter, template, versions

SPEC = """\
imagepipe: 1
name: web
source: {ami: {name: "debian-12-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: "web-{{ build.timestamp }}", tags: {team: web, built: "{{ build.timestamp }}"}}
"""
PUBLISH = """\
publish:
  regions: [us-west-2]
  share: {accounts: ["210987654321"]}
  deprecate_after: 90d
  deregistration_protection: true
  launch_templates: [{name: web, region: us-east-1}]
  ssm_parameter: /images/web
"""
READS = ("Describe", "Get", "List", "Head")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def _spec(more: str = PUBLISH, *, name: str = "web.yaml") -> None:
    Path(name).write_text(SPEC + more)


def _publish(account: Account, *words: str) -> Result:
    call = [*(words or ("web.yaml", "--yes")), "--endpoint-url", account.cloud.endpoint]
    result = CliRunner().invoke(publish, call, standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _changing_calls(account: Account) -> Counter[str]:
    calls = account.cloud.admin("GET", "calls")
    return Counter({name: n for name, n in calls.items() if not name.rpartition(":")[2].startswith(READS)})


def _copy(account: Account, region: str = "us-west-2") -> dict[str, Any]:
    [image] = account.cloud.client(region=region).describe_images(Owners=["self"])["Images"]
    return dict(image)


def test_an_image_gets_everything_that_it_lacks_in_every_region_and_then_nothing(account: Account) -> None:
    image = kept_image(account)
    template(account)
    _spec()
    result = _publish(account)
    assert result.return_value == 0, result.output
    assert f"web: {image.id} in us-east-1\n" in result.output
    assert "  + 210987654321 may launch it\n" in result.output
    assert "web: no image in us-west-2\n  + a copy" in result.output
    copy = _copy(account)
    assert parameter(account, "/images/web")["Value"] == image.id
    assert parameter(account, "/images/web", "us-west-2")["Value"] == copy["ImageId"]
    assert versions(account)[-1]["LaunchTemplateData"]["ImageId"] == image.id
    for described in (harness.image(account.cloud.client(), image.id), copy):
        tags = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
        assert (tags["team"], tags["imagepipe:state"]) == ("web", "kept")
        assert "built" not in tags, "the time of a build is not that of its publication"
        assert described["DeregistrationProtection"] == "enabled-without-cooldown"
        assert described["DeprecationTime"]

    before = _changing_calls(account)
    again = _publish(account)
    assert again.output.splitlines() == [
        f"web: {image.id} in us-east-1: as the spec wants it",
        f"web: {copy['ImageId']} in us-west-2: as the spec wants it",
    ]
    assert _changing_calls(account) == before


def test_what_the_spec_no_longer_has_is_removed(account: Account) -> None:
    image = kept_image(account)
    template(account)
    _spec()
    _publish(account)
    _spec("publish: {regions: [us-west-2], deprecate_after: never, deregistration_protection: false}\n")
    seen = _publish(account, "web.yaml", "--dry-run").output
    assert f"  - 210987654321 may no longer copy {image.snapshots[0]}\n" in seen
    assert seen.count("no longer") == 8, seen
    assert account.ec2.images.permissions(image.id)
    assert _publish(account).return_value == 0
    for region, id in (("us-east-1", image.id), ("us-west-2", _copy(account)["ImageId"])):
        described = harness.image(account.cloud.client(region=region), id)
        assert account.regions[region].images.permissions(id) == []
        assert "DeprecationTime" not in described
        assert described["DeregistrationProtection"] == "disabled"


def test_one_spec_of_a_file_is_published_though_another_was_never_baked(account: Account) -> None:
    """As a CI job of `ci-matrix` does it."""
    image = kept_image(account)
    more = "publish: {regions: [us-west-2]}\n"
    _spec(f"{more}---\n{SPEC.replace('name: web', 'name: other').replace('web-', 'other-')}")
    with pytest.raises(CloudError, match="other"):
        _publish(account)
    result = _publish(account, "web.yaml", "--only", "web", "--yes")
    assert result.return_value == 0, result.output
    assert _copy(account)["SourceImageId"] == image.id


def test_nothing_is_changed_without_a_confirmation(account: Account) -> None:
    kept_image(account)
    _spec("publish: {ssm_parameter: /images/web}\n")
    before = _changing_calls(account)
    with pytest.raises(UsageError, match="there is no terminal to ask on") as error:
        _publish(account, "web.yaml")
    assert "--yes" in str(error.value.hint)
    result = _publish(account, "web.yaml", "--dry-run", "--format", "json")
    assert _changing_calls(account) == before
    answer = json.loads(result.stdout)
    assert (answer["run"], answer["dry_run"]) == (None, True)
    assert [(each["spec"], each["region"], each["change"]) for each in answer["changes"]] == [
        ("web", "us-east-1", "tag"),
        ("web", "us-east-1", "parameter"),
    ]


def test_the_result_in_json_has_the_images_and_the_changes(account: Account) -> None:
    image = kept_image(account)
    _spec("publish: {regions: [us-west-2], ssm_parameter: /images/web}\n")
    answer = json.loads(_publish(account, "web.yaml", "--yes", "--format", "json").stdout)
    assert [(row["image_id"], row["unchanged"]) for row in answer["images"]] == [
        (image.id, True),
        (_copy(account)["ImageId"], False),
    ]
    assert {row["change"] for row in answer["changes"]} == {"tag", "parameter"}


def test_the_newest_kept_image_is_published_or_the_one_that_is_named(account: Account) -> None:
    old, new = kept_image(account, "web-1", run="r1"), kept_image(account, "web-2", run="r2")
    kept_image(account, "web-3", run="r3", **{"imagepipe:state": "unfinished"})
    kept_image(account, "web-4", run="r4", **{"imagepipe:variant": "size=m"})
    other = kept_image(account, "db-1", spec="db", run="r5")
    _spec("publish: {ssm_parameter: /images/web}\n")
    _publish(account)
    assert parameter(account, "/images/web")["Value"] == new.id
    _publish(account, "web.yaml", old.id, "--yes")
    assert parameter(account, "/images/web")["Value"] == old.id, "a rollback"
    with pytest.raises(CloudError, match=f"{other.id} is not one of its images"):
        _publish(account, "web.yaml", other.id, "--yes")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ami-12345678",), "name the spec of ami-12345678"),
        (("web.yaml", "ami-12345678", "ami-87654321"), "only one image can be named"),
        (("web.yaml", "db.yaml", "ami-12345678"), "belongs to one spec, but 2 are named: web, db"),
    ],
)
def test_an_image_is_named_with_its_one_spec(account: Account, words: tuple[str, ...], says: str) -> None:
    _spec()
    _spec("", name="db.yaml")
    Path("db.yaml").write_text(Path("db.yaml").read_text().replace("name: web", "name: db").replace("web-{", "db-{"))
    with pytest.raises(UsageError, match=says):
        _publish(account, *words)


def test_a_layer_is_published_without_its_base(account: Account) -> None:
    image = kept_image(account, "app-1", spec="app")
    _spec("")
    layer = SPEC.replace("name: web\n", "name: app\n").replace("web-{", "app-{")
    start, end = layer.index("source:"), layer.index("launch:")
    Path("app.yaml").write_text(
        f"{layer[:start]}source: {{image: web}}\n{layer[end:]}publish: {{ssm_parameter: /app}}\n"
    )
    assert _publish(account, "app.yaml", "--yes").return_value == 0
    assert parameter(account, "/app")["Value"] == image.id


def test_a_spec_without_an_image_is_an_error(account: Account) -> None:
    _spec()
    with pytest.raises(CloudError, match="looking for the image of web to publish: there is none in us-east-1"):
        _publish(account)


def test_a_parameter_of_somebody_else_is_refused_before_anything_is_changed(account: Account) -> None:
    kept_image(account)
    _spec('publish: {share: {accounts: ["210987654321"]}, ssm_parameter: /images/web}\n')
    account.cloud.client("ssm").put_parameter(Name="/images/web", Value="hello", Type="String")
    before = _changing_calls(account)
    with pytest.raises(CloudError, match="exists and is not for images: 'hello'"):
        _publish(account)
    assert _changing_calls(account) == before


def test_a_region_that_may_fail_fails_alone_and_is_named_and_made_good_later(account: Account) -> None:
    image = kept_image(account)
    west = account.cloud.client(region="us-west-2")
    in_the_way = west.copy_image(SourceImageId=image.id, SourceRegion="us-east-1", Name="web-1")["ImageId"]
    harness.available(west, in_the_way)
    _spec("publish: {regions: [us-west-2], best_effort: [us-west-2], ssm_parameter: /images/web}\n")
    result = _publish(account, "web.yaml", "--yes", "--format", "json")
    assert result.return_value == 0
    assert "warning: web: us-west-2 failed alone: copy-us-west-2: copying" in result.stderr
    assert "to try again: imagepipe publish web.yaml" in result.stderr
    [failed] = json.loads(result.stdout)["failed_regions"]
    assert (failed["spec"], failed["region"], failed["stage"]) == ("web", "us-west-2", "copy-us-west-2")
    assert parameter(account, "/images/web")["Value"] == image.id
    assert [each["ImageId"] for each in west.describe_images(Owners=["self"])["Images"]] == [in_the_way]

    west.deregister_image(ImageId=in_the_way)
    assert _publish(account).return_value == 0
    assert parameter(account, "/images/web", "us-west-2")["Value"] == _copy(account)["ImageId"]


def test_a_failed_run_deletes_its_copies_and_one_that_failed_after_it_kept_them_is_finished_by_the_next(
    account: Account,
) -> None:
    image = kept_image(account)
    _spec("publish: {regions: [us-west-2], ssm_parameter: /images/web}\n")
    account.fault("fail", "CopyImage")
    assert _publish(account).return_value == CloudError.exit_code
    west = account.cloud.client(region="us-west-2")
    assert west.describe_images(Owners=["self"])["Images"] == []
    assert west.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []

    account.fault("refuse", "PutParameter", code="InternalServerError", status=400)
    result = _publish(account)
    assert result.return_value == CloudError.exit_code
    copy = _copy(account)
    assert f"finished before that, and kept: {copy['ImageId']} in us-west-2" in result.stderr
    assert _publish(account).return_value == 0
    assert _copy(account)["ImageId"] == copy["ImageId"]
    assert parameter(account, "/images/web")["Value"] == image.id
    assert parameter(account, "/images/web", "us-west-2")["Value"] == copy["ImageId"]


def test_the_printed_policy_is_enough_to_publish(account: Account) -> None:
    kept_image(account)
    template(account)
    _spec()
    assert _publish(account, "web.yaml", "--yes", "--assume-role", _role(account)).return_value == 0
    withdrawn = "publish: {regions: [us-west-2], deprecate_after: never, deregistration_protection: false}\n"
    _spec(withdrawn)
    assert _publish(account, "web.yaml", "--yes", "--assume-role", _role(account)).return_value == 0
    assert "no longer" not in _publish(account, "web.yaml", "--dry-run").output


def _role(account: Account) -> str:
    """The ARN of a new role that may publish the spec, and nothing else."""
    iam, name = account.cloud.client("iam"), f"publisher-{len(list(Path().glob('*.json')))}"
    printed = CliRunner().invoke(policy, ["web.yaml", "--for", "publish"], standalone_mode=False)
    trust = {"Effect": "Allow", "Principal": {"AWS": harness.ACCOUNT}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="spec", PolicyDocument=printed.stdout)
    Path(f"{name}.json").write_text(printed.stdout)
    return str(arn)


@pytest.mark.parametrize("command", ["resume", "clean"])
def test_a_killed_run_is_resumed_or_cleaned(account: Account, command: str) -> None:
    image = kept_image(account)
    _spec("publish: {regions: [us-west-2], ssm_parameter: /images/web}\n")
    account.cloud.gateway.backend.job_queues.set_delay("copy", 60.0)
    west = account.cloud.client(region="us-west-2")
    run = subprocess.Popen(
        [*COMMAND, "publish", "web.yaml", "--yes", "--endpoint-url", account.cloud.endpoint],
        env=os.environ,
        stdout=subprocess.DEVNULL,
    )
    harness.until(lambda: bool(west.describe_images(Owners=["self"])["Images"]))
    run.send_signal(signal.SIGKILL)
    run.wait(10)
    account.cloud.gateway.backend.job_queues.set_delay("copy", 0.0)
    done = subprocess.run([*COMMAND, command, "latest"], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if command == "clean":
        assert west.describe_images(Owners=["self"])["Images"] == []
        assert account.ec2.parameters.value("/images/web") in (None, image.id)
    else:
        assert parameter(account, "/images/web", "us-west-2")["Value"] == _copy(account)["ImageId"]
    assert harness.image(account.cloud.client(), image.id)["State"] == "available"


COMMAND = [sys.executable, "-m", "imagepipe.cli.main"]
