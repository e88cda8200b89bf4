"""`imagepipe images list`, `show`, `launch` and `restore`, and the patterns of `deregister`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagepipe.cloud import tags
from imagepipe.errors import CloudError, UsageError
from tests import run_folders
from tests.account import Account
from tests.local.aws import harness
from tests.local.aws.harness import may
from tests.retention.baked import HOME, SECOND, Workshop
from tests.retention.conftest import workshop

__all__ = ["workshop"]


def _limits() -> list[str]:
    return ["--region", HOME, "--region", SECOND]


def test_list_has_one_line_for_the_copies_of_a_bake_with_state_and_uses(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    workshop.copy(old)
    workshop.deprecate(old)
    new = workshop.bake("r2", **{tags.STATE: tags.UNFINISHED})
    instance = harness.running(workshop.client(), ImageId=old)
    result = workshop.run("list", *_limits())
    assert result.return_value == 0, result.output
    header, first, second = result.output.splitlines()
    assert header.split()[:4] == ["SPEC", "IMAGE", "NAME", "KIND"]
    assert new in first
    assert "unfinished" in first
    assert f"{HOME} +1" in second
    assert "deprecated, available" in second
    assert f"instance {instance} in {HOME}" in second
    assert "1 GiB" in second
    [row] = json.loads(workshop.run("list", "--region", HOME, "--unused", "--format", "json").stdout)["images"]
    assert row["run"] == "r2"
    assert row["used_by"] == []


def test_list_filters_by_spec_and_variant(workshop: Workshop) -> None:
    workshop.bake("r1")
    workshop.bake("r2", "base", **{tags.VARIANT: "size=s"})
    workshop.bake("r3", "base", **{tags.VARIANT: "size=m"})

    def runs(*words: str) -> list[str]:
        out = workshop.run("list", "--region", HOME, "--format", "json", *words).stdout
        return [row["run"] for row in json.loads(out)["images"]]

    assert runs("--spec", "web") == ["r1"]
    assert runs("--spec", "base[size=s]") == ["r2"]
    assert sorted(runs("--spec", "base", "--spec", "web")) == ["r1", "r2", "r3"]
    assert runs("--spec", "nobody") == []
    assert isinstance(workshop.run("list", "--spec", "no spec").exception, UsageError)


def test_list_says_unknown_if_uses_may_not_be_read_and_unused_is_an_error(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.bake("r1")
    deny = {"Effect": "Deny", "Action": "autoscaling:*", "Resource": "*"}
    workshop.limited(monkeypatch, may("*"), deny)
    result = workshop.run("list", "--region", HOME)
    assert result.return_value == CloudError.exit_code
    assert "autoscaling:DescribeLaunchConfigurations is missing" in result.output
    assert "unknown" in result.output
    assert "the unused images are not known" in str(workshop.run("list", "--region", HOME, "--unused").exception)


def test_show_has_the_lineage_in_both_directions(workshop: Workshop) -> None:
    debian = harness.base_image(workshop.client())
    base = workshop.bake("r1", "base", **{tags.SOURCE: debian, tags.COMMIT: "c0ffee", tags.FINGERPRINT: "f1"})
    copied = workshop.copy(base)
    middle = workshop.bake("r2", "runtime", **{tags.SOURCE: base})
    top = workshop.bake("r3", "app", **{tags.SOURCE: middle})
    shown = json.loads(workshop.run("show", base, *_limits(), "--format", "json").stdout)
    assert [row["image_id"] for row in shown["built_on"]] == [debian]
    assert [row["image_id"] for row in shown["layers"]] == [middle, top]
    assert (shown["commit"], shown["fingerprint"], shown["spec"], shown["tests"]) == ("c0ffee", "f1", "base", None)
    assert {row["image_id"] for row in shown["images"]} == {base, copied}
    text = workshop.run("show", top, *_limits()).output
    assert f"built on:\n  {middle} 'runtime-r2' in {HOME} (spec runtime)\n  {base} 'base-r1'" in text
    assert "tests passed: unknown: the run is not on this computer" in text
    by_name = workshop.run("show", "base-r1", *_limits()).output
    assert f"{copied} in {SECOND}: available" in by_name
    assert "used by:" in by_name


def test_show_of_an_unknown_image_has_a_hint(workshop: Workshop) -> None:
    error = workshop.run("show", "ami-00000000000000001", "--region", HOME).exception
    assert isinstance(error, CloudError)
    assert "imagepipe images list" in str(error.hint)


def test_restore_enables_a_disabled_image(workshop: Workshop) -> None:
    image = workshop.bake("r1")
    workshop.disable(image)
    result = workshop.run("restore", image)
    assert result.return_value == 0, result.exception
    assert f"enabled {image}" in result.output
    assert workshop.described(image)["State"] == "available"
    assert "DeprecationTime" not in workshop.described(image)
    assert "nothing to do" in workshop.run("restore", image).output


def test_restore_brings_a_pruned_image_back_from_recycle_bin_with_its_snapshots(workshop: Workshop) -> None:
    for kind in ("EC2_IMAGE", "EBS_SNAPSHOT"):
        harness.retain(workshop.account.cloud, kind)
    old, _ = workshop.bake("r1"), workshop.bake("r2")
    snapshot = harness.only_snapshot(workshop.client(), old)
    workshop.disable(old)
    assert f"deregistered {old}" in workshop.prune("--yes").output
    result = workshop.run("restore", old)
    assert result.return_value == 0, result.exception
    assert f"restored {old} in {HOME} from Recycle Bin with {snapshot}" in result.output
    assert workshop.described(old)["State"] == "available"
    assert workshop.described(old)["Tags"]


def test_restore_of_an_image_that_is_gone_says_so(workshop: Workshop) -> None:
    error = workshop.run("restore", "ami-00000000000000001").exception
    assert isinstance(error, CloudError)
    assert "is not in Recycle Bin" in str(error)


def test_launch_makes_a_run_that_clean_deletes_when_it_is_named(workshop: Workshop, tmp_path: Path) -> None:
    image = workshop.bake("r1")
    result = workshop.run("launch", image, "--user", "admin", "--format", "json")
    assert result.return_value == 0, result.exception
    launched = json.loads(result.stdout)
    described = harness.instance(workshop.client(), launched["instance_id"])
    own = tags.mapping(described["Tags"])
    assert (described["ImageId"], own[tags.RUN], own[tags.STATE]) == (image, launched["run"], tags.TEMPORARY)
    assert launched["ssh"].endswith(f"admin@{launched['address']}")
    past = run_folders.read(tmp_path / "state" / "imagepipe" / "runs" / launched["run"])
    assert {claim.kind for claim in past.open_claims()} == {"key-pair", "security-group", "instance"}
    assert past.outcome == "succeeded"
    # `clean` opens the cloud of the journal.
    from click.testing import CliRunner

    from imagepipe.cli.clean import clean

    spared = CliRunner().invoke(clean, ["--all"], standalone_mode=False)
    assert f"{launched['run']}: left alone: `imagepipe images launch` made it" in spared.output
    assert harness.state(workshop.client(), launched["instance_id"]) == "running"
    cleaned = CliRunner().invoke(clean, [launched["run"]], standalone_mode=False)
    assert cleaned.return_value == 0, cleaned.output
    harness.until(lambda: harness.state(workshop.client(), launched["instance_id"]) == "terminated")
    assert workshop.client().describe_key_pairs()["KeyPairs"] == []


def test_launch_deletes_everything_after_a_failure(workshop: Workshop, account: Account) -> None:
    image = workshop.bake("r1")
    account.fault("refuse", "RunInstances", code="UnauthorizedOperation", status=403)
    result = workshop.run("launch", image, "--user", "admin")
    assert isinstance(result.exception, CloudError)
    assert workshop.client().describe_key_pairs()["KeyPairs"] == []
    groups = workshop.client().describe_security_groups()["SecurityGroups"]
    assert [group["GroupName"] for group in groups if group["GroupName"].startswith("imagepipe")] == []


def test_launch_refuses_a_disabled_image_and_an_unknown_user_with_hints(workshop: Workshop) -> None:
    image = workshop.bake("r1")
    error = workshop.run("launch", image).exception
    assert isinstance(error, UsageError)
    assert "pass --user NAME. Debian has admin" in str(error.hint)
    workshop.disable(image)
    error = workshop.run("launch", image, "--user", "admin").exception
    assert isinstance(error, UsageError)
    assert error.hint == f"imagepipe images restore {image}"


def test_deregister_asks_before_it_applies_a_pattern(workshop: Workshop) -> None:
    first, second, other = workshop.bake("r1"), workshop.bake("r2"), workshop.bake("r3", "db")
    error = workshop.run("deregister", "web-*").exception
    assert isinstance(error, UsageError)
    assert "would deregister 2 images, and nobody can be asked" in str(error)
    assert "--yes" in str(error.hint)
    assert workshop.exists(first)
    assert f"would deregister {first}" in workshop.run("deregister", "web-*", "--dry-run").output
    result = workshop.run("deregister", "web-*", "--yes", "--delete-data")
    assert result.return_value == 0, result.output
    assert not workshop.exists(first)
    assert not workshop.exists(second)
    assert workshop.exists(other)


def test_deregister_leaves_an_image_in_use_unless_it_is_forced(workshop: Workshop) -> None:
    image = workshop.bake("r1")
    instance = harness.running(workshop.client(), ImageId=image)
    result = workshop.run("deregister", image)
    assert result.return_value == CloudError.exit_code
    assert f"{image} in {HOME} is in use: instance {instance}" in result.output
    assert workshop.exists(image)
    assert workshop.run("deregister", image, "--force").return_value == 0
    assert not workshop.exists(image)


def test_deregister_without_the_permission_for_a_check_names_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = workshop.bake("r1")
    deny = {"Effect": "Deny", "Action": "ec2:DescribeImageReferences", "Resource": "*"}
    workshop.limited(monkeypatch, may("*"), deny)
    error = workshop.run("deregister", image).exception
    assert isinstance(error, CloudError)
    assert "ec2:DescribeImageReferences" in str(error)
    assert workshop.exists(image)
