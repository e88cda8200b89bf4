"""`imagepipe images prune`: what is superfluous is retired step by step, and nothing that is in use."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from imagepipe.cloud import tags
from imagepipe.errors import CloudError, UsageError
from tests.local.aws import harness
from tests.local.aws.harness import may
from tests.retention.baked import HOME, SECOND, Workshop

COMPONENT = f"arn:aws:imagebuilder:us-east-1:{harness.ACCOUNT}:component/web/1.0.0/1"


def test_a_dry_run_prints_each_step_with_its_reason_and_changes_nothing(workshop: Workshop) -> None:
    old, _ = workshop.bake("r1"), workshop.bake("r2")
    result = workshop.prune()
    assert result.return_value == 0, result.output
    assert "deprecate: web: web-r1" in result.output
    assert "because: 1 newer, 1 kept" in result.output
    assert "1 image kept by the rules" in result.output
    assert "1 to deprecate; nothing was changed: --yes does it" in result.output
    assert "DeprecationTime" not in workshop.described(old)


def test_the_three_steps_delete_an_image_with_its_copies_and_snapshots(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    copied = workshop.copy(old)
    new = workshop.bake("r2")
    snapshots = [
        harness.only_snapshot(workshop.client(), old),
        harness.only_snapshot(workshop.client(region=SECOND), copied),
    ]
    result = workshop.prune("--yes")
    assert f"deprecated {old} in {HOME}" in result.output
    assert f"deprecated {copied} in {SECOND}" in result.output
    assert workshop.described(old)["DeprecationTime"]
    for image, region in ((old, HOME), (copied, SECOND)):
        workshop.deprecate(image, region)  # a minute later
    result = workshop.prune("--yes")
    assert f"disabled {old} in {HOME}" in result.output
    assert workshop.described(copied, SECOND)["State"] == "disabled"
    assert tags.mapping(workshop.described(old)["Tags"])[tags.DISABLED]
    result = workshop.prune("--yes")
    assert f"deregistered {old} in {HOME}, deleted {snapshots[0]}" in result.output
    assert f"deregistered {copied} in {SECOND}, deleted {snapshots[1]}" in result.output
    assert "freed" in result.output
    assert not workshop.exists(old)
    assert not workshop.exists(copied, SECOND)
    assert workshop.exists(new)
    left = workshop.client().describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert [each["SnapshotId"] for each in left] == [harness.only_snapshot(workshop.client(), new)]
    assert "nothing to retire" in workshop.prune().output


def _instance(workshop: Workshop, image: str) -> str:
    return harness.running(workshop.client(), ImageId=image)


def _stopped_instance(workshop: Workshop, image: str) -> str:
    return harness.stopped(workshop.client(), ImageId=image)


def _launch_template(workshop: Workshop, image: str) -> str:
    """A template whose eleven newest versions name another image: EC2 looks at ten unless told otherwise."""
    ec2 = workshop.client()
    made = ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"ImageId": image})
    for _ in range(11):
        data = {"ImageId": harness.base_image(ec2)}
        ec2.create_launch_template_version(LaunchTemplateName="web", LaunchTemplateData=data)
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def _parameter(workshop: Workshop, image: str) -> str:
    workshop.client("ssm").put_parameter(Name="/images/web", Value=image, Type="String", DataType="aws:ec2:image")
    return "parameter /images/web"


def _template_with_an_old_parameter(workshop: Workshop, image: str) -> str:
    ssm, ec2 = workshop.client("ssm"), workshop.client()
    ssm.put_parameter(Name="/images/web", Value=image, Type="String", DataType="aws:ec2:image")
    ssm.put_parameter(
        Name="/images/web", Value=harness.base_image(ec2), Type="String", DataType="aws:ec2:image", Overwrite=True
    )
    data = {"ImageId": "resolve:ssm:/images/web:1", "InstanceType": "t3.small"}
    ec2.create_launch_template(LaunchTemplateName="pinned", LaunchTemplateData=data)
    return "launch template pinned"


def _launch_configuration(workshop: Workshop, image: str) -> str:
    workshop.client("autoscaling").create_launch_configuration(
        LaunchConfigurationName="old-web", ImageId=image, InstanceType="t3.small"
    )
    return "launch configuration old-web"


def _scaling_group(workshop: Workshop, image: str) -> str:
    ec2 = workshop.client()
    data = {"ImageId": harness.base_image(ec2), "InstanceType": "t3.small"}
    ec2.create_launch_template(LaunchTemplateName="mixed", LaunchTemplateData=data)
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {"LaunchTemplateName": "mixed", "Version": "1"},
            "Overrides": [{"InstanceType": "t3.small", "ImageId": image}],
        }
    }
    workshop.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="fleet",
        MinSize=0,
        MaxSize=1,
        AvailabilityZones=["us-east-1a"],
        MixedInstancesPolicy=policy,
    )
    return "Auto Scaling group fleet"


def _image_recipe(workshop: Workshop, image: str) -> str:
    workshop.client("imagebuilder").create_image_recipe(
        name="derived", semanticVersion="1.0.0", parentImage=image, components=[{"componentArn": COMPONENT}]
    )
    return "image recipe derived/1.0.0"


def _container_recipe(workshop: Workshop, image: str) -> str:
    workshop.client("imagebuilder").create_container_recipe(
        name="box",
        semanticVersion="1.0.0",
        containerType="DOCKER",
        parentImage="amazonlinux:latest",
        components=[{"componentArn": COMPONENT}],
        instanceConfiguration={"image": image},
        targetRepository={"service": "ECR", "repositoryName": "web"},
    )
    return "container recipe box/1.0.0"


def _layer(workshop: Workshop, image: str) -> str:
    return f"image {workshop.bake('r9', 'app', **{tags.SOURCE: image})} (app-r9) in us-east-1, which is built on it"


def _image_of_an_instance(workshop: Workshop, image: str) -> str:
    """CreateImage of an instance that is gone: only the image itself remains."""
    ec2 = workshop.client()
    instance = harness.stopped(ec2, ImageId=image)
    made = harness.available(ec2, ec2.create_image(InstanceId=instance, Name="by hand")["ImageId"])
    ec2.terminate_instances(InstanceIds=[instance])
    harness.until(lambda: harness.state(ec2, instance) == "terminated")
    return f"image {made} (by hand)"


USES: dict[str, Callable[[Workshop, str], str]] = {
    "a running instance": _instance,
    "a stopped instance": _stopped_instance,
    "an old version of a launch template": _launch_template,
    "a parameter": _parameter,
    "a launch template that pins a parameter": _template_with_an_old_parameter,
    "a launch configuration": _launch_configuration,
    "an override of an Auto Scaling group": _scaling_group,
    "an image recipe": _image_recipe,
    "a container recipe": _container_recipe,
    "an image that is built on it": _layer,
    "an image of an instance": _image_of_an_instance,
}


@pytest.mark.parametrize("kind", USES)
def test_prune_refuses_an_image_in_use(kind: str, workshop: Workshop) -> None:
    old = workshop.bake("r1")
    copied = workshop.copy(old)
    user = USES[kind](workshop, old)
    workshop.bake("r2")
    for image, region in ((old, HOME), (copied, SECOND)):
        workshop.disable(image, region)
    assert user in workshop.prune().output
    result = workshop.prune("--yes")
    assert result.return_value == 0, result.output
    assert "in use: web: web-r1" in result.output
    assert user in result.output
    assert workshop.exists(old)
    assert workshop.exists(copied, SECOND), "the copies of a bake stay together"


@pytest.mark.parametrize("kind", ["a running instance", "a parameter", "an override of an Auto Scaling group"])
def test_prune_refuses_the_first_step_too(kind: str, workshop: Workshop) -> None:
    old = workshop.bake("r1")
    user = USES[kind](workshop, old)
    workshop.bake("r2")
    assert user in workshop.prune("--yes").output
    assert "DeprecationTime" not in workshop.described(old)


def test_an_image_whose_instance_is_terminated_is_not_in_use(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    instance = _instance(workshop, old)
    workshop.client().terminate_instances(InstanceIds=[instance])
    harness.until(lambda: harness.state(workshop.client(), instance) == "terminated")
    workshop.bake("r2")
    assert f"deprecated {old}" in workshop.prune("--yes").output


def test_prune_refuses_an_image_that_another_account_uses_and_deletes_its_report(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    harness.share(workshop.client(), old)
    harness.launch(workshop.client(other=True), ImageId=old)
    workshop.bake("r2")
    result = workshop.prune("--yes")
    assert f"in use: web-r1 is left: account {harness.OTHER_ACCOUNT} (1 x instance) in us-east-1" in result.output
    assert "DeprecationTime" not in workshop.described(old)
    assert workshop.client().describe_image_usage_reports()["ImageUsageReports"] == []


def test_a_shared_image_that_nobody_uses_is_retired(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    harness.share(workshop.client(), old)
    workshop.bake("r2")
    assert f"deprecated {old}" in workshop.prune("--yes").output
    assert workshop.client().describe_image_usage_reports()["ImageUsageReports"] == []


@pytest.mark.parametrize("effect", ["fail", "hang"])
def test_a_usage_report_that_says_nothing_means_in_use(
    effect: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagepipe.retention.uses.REPORT_SECONDS", 0.3)
    old = workshop.bake("r1")
    harness.share(workshop.client(), old)
    workshop.bake("r2")
    workshop.account.fault(effect, "CreateImageUsageReport", message="no capacity")
    result = workshop.prune("--yes")
    assert result.return_value == CloudError.exit_code
    assert "the usage report of" in result.output
    assert "DeprecationTime" not in workshop.described(old)
    assert workshop.client().describe_image_usage_reports()["ImageUsageReports"] == []


def test_a_usage_report_that_is_shown_late_is_awaited(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    harness.share(workshop.client(), old)
    workshop.bake("r2")
    workshop.account.fault("hide", "CreateImageUsageReport", calls=2)
    assert f"deprecated {old}" in workshop.prune("--yes").output


def test_prune_refuses_an_image_with_deregistration_protection(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    workshop.client().enable_image_deregistration_protection(ImageId=old)
    workshop.bake("r2")
    result = workshop.prune("--yes")
    assert f"because: {old} in us-east-1 has deregistration protection" in result.output
    assert "DeprecationTime" not in workshop.described(old)


def test_protection_that_still_cools_down_is_reported_and_nothing_is_lost(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    ec2 = workshop.client()
    ec2.enable_image_deregistration_protection(ImageId=old, WithCooldown=True)
    ec2.disable_image_deregistration_protection(ImageId=old)
    workshop.bake("r2")
    workshop.disable(old)
    result = workshop.prune("--yes")
    assert result.return_value == CloudError.exit_code
    assert "OperationNotPermitted" in result.output
    assert workshop.exists(old)


def test_a_recent_launch_protects_an_image_and_an_old_one_condemns_none(workshop: Workshop) -> None:
    workshop.spec(more=", launched_within: 30d")
    old = workshop.bake("r1")
    instance = _instance(workshop, old)
    workshop.client().terminate_instances(InstanceIds=[instance])
    harness.until(lambda: harness.state(workshop.client(), instance) == "terminated")
    workshop.bake("r2")
    workshop.account.cloud.admin("POST", "clock", {"advance": 25 * 3600})  # EC2 reports a launch a day late
    result = workshop.prune("--yes")
    assert f"because: {old} in us-east-1 was launched on" in result.output
    assert "DeprecationTime" not in workshop.described(old)


def test_the_last_image_is_kept_however_old_it_is(workshop: Workshop) -> None:
    workshop.spec(more=", max_age: 1s")
    last = workshop.bake("r1")
    harness.until(lambda: "1 image kept by the rules" in workshop.prune("--yes").output)
    assert "DeprecationTime" not in workshop.described(last)


def test_a_disabled_image_does_not_count_so_the_last_usable_one_is_kept(workshop: Workshop) -> None:
    good, broken = workshop.bake("r1"), workshop.bake("r2")
    workshop.client().disable_image(ImageId=broken)
    assert "2 images kept by the rules" in workshop.prune("--yes").output
    assert "DeprecationTime" not in workshop.described(good)


def test_an_unfinished_image_does_not_push_out_a_kept_one(workshop: Workshop) -> None:
    good = workshop.bake("r1")
    workshop.bake("r2", **{tags.STATE: tags.UNFINISHED})
    assert "nothing to retire" in workshop.prune().output
    assert "DeprecationTime" not in workshop.described(good)


def test_images_of_other_specs_and_images_without_our_tags_are_not_touched(workshop: Workshop) -> None:
    for run in ("r1", "r2"):
        workshop.bake(run, "other")
    workshop.client()
    rows = json.loads(workshop.prune("--format", "json").stdout)["images"]
    assert rows == []


@pytest.mark.parametrize("retention", ["retention: {newest: 1}\n", ""], ids=["with-retention", "without"])
def test_the_bases_of_a_named_spec_are_left_alone(workshop: Workshop, retention: str) -> None:
    base = workshop.spec("base")
    base.write_text(base.read_text().partition("retention:")[0] + retention)
    layer = workshop.spec("web")
    layer.write_text(layer.read_text().replace("{ami: ami-0123456789abcdef0}", "{image: base}"))
    for run in ("r1", "r2"):
        workshop.bake(run, "base")
        workshop.bake(run, "web")
    result = workshop.prune(str(layer))
    assert result.exception is None, result.output
    assert "deprecate: web: web-r1" in result.output
    assert "base-r1" not in result.output


def test_a_forged_tag_on_another_accounts_image_changes_nothing(workshop: Workshop) -> None:
    other = workshop.client(other=True)
    forged = harness.bake(other, "web-forged")
    other.modify_image_attribute(ImageId=forged, LaunchPermission={"Add": [{"UserId": harness.ACCOUNT}]})
    own = {tags.SPEC: "web", tags.RUN: "r0", tags.STATE: tags.KEPT}
    for client in (other, workshop.client()):
        try:
            client.create_tags(Resources=[forged], Tags=tags.pairs(own))
        except ClientError:
            assert client is not other
    workshop.bake("r1")
    rows = json.loads(workshop.prune("--yes", "--format", "json").stdout)["images"]
    assert [row["run"] for row in rows] == ["r1"]
    assert harness.image(other, forged)["State"] == "available"


CHECKS = [
    "ec2:DescribeImageReferences",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeLaunchTemplateVersions",
    "ssm:DescribeParameters",
    "imagebuilder:ListImageRecipes",
    "imagebuilder:ListContainerRecipes",
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeLaunchConfigurations",
]


@pytest.mark.parametrize("action", CHECKS)
def test_without_the_permission_for_a_check_nothing_is_retired_and_the_action_is_named(
    action: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = workshop.bake("r1"), workshop.bake("r2")
    workshop.limited(monkeypatch, may("*"), {"Effect": "Deny", "Action": action, "Resource": "*"})
    result = workshop.prune("--yes")
    assert isinstance(result.exception, CloudError)
    assert "nothing was retired" in str(result.exception)
    assert action in str(result.exception)
    assert "DeprecationTime" not in workshop.described(old)


def test_a_region_that_is_denied_leaves_the_images_that_may_have_copies_there_and_names_them(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.spec(text="publish: {regions: [us-west-2]}\n")
    workshop.spec("db")
    old = workshop.bake("r1")
    workshop.copy(old)
    workshop.copy(workshop.bake("r2"))
    alone, _ = workshop.bake("r1", "db"), workshop.bake("r2", "db")
    west = {"StringEquals": {"aws:RequestedRegion": SECOND}}
    workshop.limited(monkeypatch, may("*"), {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": west})
    result = workshop.prune("--yes")
    assert result.return_value == CloudError.exit_code
    assert "left: web: web-r1" in result.output
    assert "us-west-2 does not answer" in result.output
    assert f"deprecated {alone}" in result.output, "it was never in that region"
    assert "DeprecationTime" not in workshop.described(old)


def test_a_region_that_is_down_leaves_its_images(workshop: Workshop) -> None:
    workshop.spec(text="publish: {regions: [us-west-2]}\n")
    old = workshop.bake("r1")
    copied = workshop.copy(old)
    workshop.copy(workshop.bake("r2"))
    workshop.account.fault("refuse", "DescribeImages", code="UnsupportedOperation", status=400)
    result = workshop.prune("--yes")
    assert result.return_value == CloudError.exit_code
    assert "DeprecationTime" not in workshop.described(old)
    assert "DeprecationTime" not in workshop.described(copied, SECOND)


def test_uses_are_checked_again_right_before_the_step(workshop: Workshop) -> None:
    """A reference that appears between the first look and the step."""
    from imagepipe.retention.retire import Retirer

    old, _ = workshop.bake("r1"), workshop.bake("r2")
    before = Retirer.retire_all

    def late(self: Retirer, decisions: object) -> object:
        _parameter(workshop, old)
        return before(self, decisions)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Retirer, "retire_all", late)
        result = workshop.prune("--yes")
    assert "in use: web-r1 is left: parameter /images/web in us-east-1" in result.output
    assert "DeprecationTime" not in workshop.described(old)


def test_a_snapshot_that_another_image_uses_is_left_and_named(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    snapshot = harness.only_snapshot(workshop.client(), old)
    other = harness.available(workshop.client(), harness.register(workshop.client(), snapshot, "other"))
    workshop.bake("r2")
    workshop.disable(old)
    result = workshop.prune("--yes")
    assert f"left {snapshot}: another image uses it" in result.output
    assert not workshop.exists(old)
    assert workshop.exists(other)


def test_it_says_until_when_an_image_can_be_restored_and_restores_it(workshop: Workshop) -> None:
    old = workshop.bake("r1")
    for kind in ("EC2_IMAGE", "EBS_SNAPSHOT"):
        harness.retain(workshop.account.cloud, kind, 30 if kind == "EC2_IMAGE" else 7)
    harness.retain(
        workshop.account.cloud, "EC2_IMAGE", 90, ResourceTags=[{"ResourceTagKey": "no", "ResourceTagValue": "1"}]
    )
    workshop.bake("r2")
    workshop.disable(old)
    row = next(each for each in json.loads(workshop.prune("--format", "json").stdout)["images"] if each["run"] == "r1")
    [storage] = row["storage"]
    assert storage["restorable_is_known"]
    assert "can be restored from Recycle Bin until" in workshop.prune("--yes").output
    assert not workshop.exists(old)


def test_without_the_permission_to_read_rules_the_time_is_unknown_and_the_image_is_retired(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = workshop.bake("r1"), workshop.bake("r2")
    workshop.disable(old)
    workshop.limited(monkeypatch, may("*"), {"Effect": "Deny", "Action": "rbin:*", "Resource": "*"})
    assert "whether Recycle Bin keeps it is unknown" in workshop.prune("--yes").output
    assert not workshop.exists(old)


def test_an_unknown_price_is_never_a_zero(workshop: Workshop) -> None:
    table = workshop.folder / "prices.json"
    table.write_text('{"format_version": 1, "date": "2026-01-01", "currency": "EUR"}')
    old, _ = workshop.bake("r1"), workshop.bake("r2")
    workshop.disable(old)
    result = workshop.prune("--prices", str(table))
    assert "an unknown amount of money a month" in result.output
    total = json.loads(workshop.prune("--prices", str(table), "--format", "json").stdout)["freed"]["monthly"]
    assert total["unknown_items"] == 1


def test_a_variant_is_pruned_on_its_own(workshop: Workshop) -> None:
    (workshop.folder / "specs" / "web.yaml").write_text(
        (workshop.folder / "specs" / "web.yaml").read_text().replace("web-{{", "web-{{ matrix.size }}-{{")
        + "matrix: {size: [s, m]}\n"
    )
    small = [workshop.bake(f"s{run}", **{tags.VARIANT: "size=s"}) for run in (1, 2)]
    workshop.bake("m1", **{tags.VARIANT: "size=m"})
    gone = [workshop.bake(f"x{run}", **{tags.VARIANT: "size=xl"}) for run in (1, 2)]
    rows = json.loads(workshop.prune("web[size=s]", "--format", "json").stdout)["images"]
    assert [(row["variant"], row["verdict"]) for row in rows] == [("size=s", "keep"), ("size=s", "retire")]
    result = workshop.prune("--yes")
    assert f"deprecated {small[0]}" in result.output
    assert f"deprecated {gone[0]}" in result.output, "a variant that the matrix no longer has"
    assert "3 images kept" in result.output


def test_a_spec_without_retention_is_refused_with_a_hint(workshop: Workshop) -> None:
    file = workshop.spec("db")
    file.write_text(file.read_text().partition("retention")[0])
    result = workshop.prune("db")
    assert isinstance(result.exception, UsageError)
    assert "no spec has a retention: db" in str(result.exception)
    assert "retention: {newest: 5" in str(result.exception.hint)


def test_a_bundle_is_deleted_with_its_image(workshop: Workshop) -> None:
    from tests import bundled

    account = workshop.account
    image = bundled.registered(account, bundled.put(account, "web/t1"))
    workshop.tag([image.id], {tags.SPEC: "web", tags.RUN: "r1", tags.STATE: tags.KEPT})
    workshop.bake("r2")
    workshop.disable(image.id)
    result = workshop.prune("--yes")
    assert f"deregistered {image.id} in us-east-1, deleted" in result.output
    assert bundled.keys(account) == []


def test_the_policy_for_prune_is_enough_for_all_steps(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from imagepipe.iam.document import document
    from imagepipe.policy.context import PolicyContext
    from imagepipe.policy.generate import statements
    from imagepipe.spec.load import SAMPLE_BUILD, load
    from imagepipe.spec.variables import Given

    [loaded] = load([workshop.folder / "specs" / "web.yaml"], Given(), build=SAMPLE_BUILD)
    policy = document(statements([PolicyContext(loaded.checked(), HOME)], "prune"))
    old = workshop.bake("r1")
    harness.share(workshop.client(), old)
    _template_with_an_old_parameter(workshop, harness.base_image(workshop.client()))
    workshop.bake("r2")
    workshop.limited(monkeypatch, *policy["Statement"])
    assert f"deprecated {old}" in (first := workshop.prune("--yes")).output, first.exception
    workshop.deprecate(old)
    assert f"disabled {old}" in (second := workshop.prune("--yes")).output, second.output
    third = workshop.prune("--yes")
    assert f"deregistered {old} in {HOME}, deleted snap-" in third.output, third.output
    assert "rules cannot be read" not in third.output
