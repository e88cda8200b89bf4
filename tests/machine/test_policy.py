"""`imagepipe policy` is neither too narrow nor, action by action, too wide: builds on a cloud that enforces it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from imagepipe.iam.evaluate import AuthorizationRequest, decide, rules_of
from tests.machine.bakery import WITHOUT_BOOT, Bakery, without_boot
from tests.machine.under_policy import Baker, needless, without

pytestmark = pytest.mark.machine

EBS = """\
imagepipe: 1
name: guarded
variables: {break: {default: ""}, user: {default: admin}}
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch:
  region: us-east-1
  ssh: {user: "{{ var.user }}", timeout: 60s}
  iam_instance_profile: reader
  block_devices: [{device: /dev/sdf, size_gib: 1, tags: {use: data}}]
provision:
  - shell: sudo sh -c 'echo baked >/etc/baked'
test:
  - shell: test "{{ var.break }}" != test
output:
  name: "guarded-{{ build.id }}"
  tags: {team: web}
  block_devices: [{device: /dev/sdf, tags: {use: data}}]
publish:
  regions: [us-west-2]
  share: {accounts: ["123456789012", "210987654321"]}
"""
ENCRYPTED = """\
imagepipe: 1
name: sealed
source: {ami: {ssm: /aws/service/debian/release/12/latest/amd64}}
launch: {region: us-east-1, instance_types: [t3.small, t3a.small]}
provision:
  - shell: sudo sh -c 'echo baked >/etc/baked'
output:
  name: "sealed"
  on_name_taken: replace
  encrypt: {kms_key: KEY-EAST, per_region: {us-west-2: {kms_key: alias/images}}}
publish: {regions: [us-west-2]}
"""
BUNDLE = """\
imagepipe: 1
name: bundled
variables: {break: {default: ""}}
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1, instance_types: [m3.medium]}
provision:
  - shell: sudo sh -c 'echo baked >/etc/baked'
test:
  - shell: test "{{ var.break }}" != test
output:
  type: instance-store
  name: "bundled-{{ build.id }}"
  bucket: guarded-east
  prefix: "baked/{{ region }}"
  account: "000000000000"
  bundle_on: controller
  exclude: [/usr/share, /usr/lib/modules, /usr/lib/firmware, /usr/lib/python3, /var/lib/apt, /var/cache]
  size_gib: 1
  per_region: {us-west-2: {bucket: guarded-west}}
publish: {regions: [us-west-2], share: {accounts: ["123456789012"]}}
"""
OF_FAILURES = {
    "ReadOnly ec2:DescribeInstanceStatus",
    "ReadOnly ec2:DescribeRouteTables",
    "TagOurs arn:aws:ec2:us-east-1:*:instance/*",
    "TagOurs arn:aws:ec2:us-east-1:*:key-pair/*",
    "TagOurs arn:aws:ec2:us-east-1:*:security-group/*",
    "WorkOnOurs ec2:GetConsoleOutput",
}
"""Asked where SSH reaches nobody, and where what failed is kept: the first test goes there for all."""
OF_LOST_ANSWERS = {"ReadOnly ec2:DescribeKeyPairs", "ReadOnly ec2:DescribeSecurityGroups"}
"""Asked where a call that made something lost its answer; likewise."""
NOT_HERE = {"WorkOnOurs ec2:GetInstanceUefiData"}
"""What EC2 has and the local cloud has not: no machine of it boots by UEFI with variables of its own."""

OF_EXISTING = ("ReadPermissions ", "RetagOurs ")
"""Starts of what is asked where an image that exists is published further: tests/cli/test_publish.py goes there."""
OF_DEFAULT_KEYS = {"ReadOnly ec2:GetEbsDefaultKmsKeyId"}
"""Asked where the account encrypts volumes by default, or the source image is encrypted."""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bakery]:
    with without_boot(tmp_path_factory.mktemp("policy")) as bakery:
        iam = bakery.client("iam")
        iam.create_instance_profile(InstanceProfileName="reader")
        iam.create_role(RoleName="reader", AssumeRolePolicyDocument="{}")
        iam.add_role_to_instance_profile(InstanceProfileName="reader", RoleName="reader")
        for bucket, region in {"guarded-east": "us-east-1", "guarded-west": "us-west-2"}.items():
            where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            s3 = bakery.client("s3", region)
            s3.create_bucket(Bucket=bucket, ObjectOwnership="BucketOwnerPreferred", **where)
        yield bakery


@pytest.fixture
def bakery(cloud: Bakery, tmp_path: Path) -> Iterator[Bakery]:
    cloud.admin("DELETE", "evaluations")
    bakery = Bakery(tmp_path, cloud.store, cloud.cloud, env=WITHOUT_BOOT)
    before = bakery.inventory()
    yield bakery
    bakery.end()
    for region in ("us-east-1", "us-west-2"):
        for image in bakery.client(region=region).describe_images(Owners=["self"])["Images"]:
            bakery("images", "deregister", image["ImageId"], "--local", "--region", region, "--delete-data")
    assert bakery.inventory() == before


@pytest.fixture
def ebs(bakery: Bakery) -> Baker:
    return Baker(bakery, bakery.write("guarded.yaml", EBS))


def _newest(bakery: Bakery) -> str:
    """The id of the last run."""
    return max(bakery.runs.glob("*/journal.jsonl"), key=lambda path: path.stat().st_mtime).parent.name


@contextmanager
def _slow(bakery: Bakery, what: str, seconds: float = 2.0) -> Iterator[None]:
    """While inside, there is time to kill a build while it waits for a `copy` or an `image`."""
    bakery.admin("POST", "delays", {what: seconds})
    try:
        yield
    finally:
        bakery.admin("POST", "delays", {what: 0.0})


def _keys(bakery: Bakery) -> tuple[str, str]:
    """KMS keys of the account's own: the id of one in the first region, and one by its alias in the second."""
    east = bakery.client("kms").create_key()["KeyMetadata"]["KeyId"]
    kms = bakery.client("kms", "us-west-2")
    kms.create_alias(AliasName="alias/images", TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    return str(east), "alias/images"


@contextmanager
def _sold(bakery: Bakery) -> Iterator[None]:
    """While inside, the source image is sold on the Marketplace: images of it are made by CreateImage and CopyImage."""
    base = str(bakery.client().describe_images(Owners=["136693071363"])["Images"][0]["ImageId"])
    bakery.admin("POST", "licences", {"image": base, "product_codes": ["codeofdebian"]})
    try:
        yield
    finally:
        bakery.admin("POST", "licences", {"image": base, "product_codes": []})


def _needless(baker: Baker, asked: list[AuthorizationRequest]) -> set[str]:
    """Return the permissions of a policy that no build of a new image needed."""
    return {each for each in needless(baker.policy, asked) if not each.startswith(OF_EXISTING)}


def _clean(baker: Baker, run: str) -> None:
    """All that a clean-up asks is in the policy that is for it alone, too."""
    baker.bakery.admin("DELETE", "evaluations")
    assert baker.bakery("clean", run).code == 0
    rules = rules_of(baker.printed("--for", "clean"))
    assert [each for each in baker.asked() if not decide(rules, each).is_allowed] == []
    assert "ec2:RunInstances" not in {action for rule in rules for action in rule.actions}


def test_a_build_its_failures_clean_and_resume_need_the_whole_policy_and_no_more(bakery: Bakery, ebs: Baker) -> None:
    asked = []
    with (
        bakery.fault(effect="cut-after", action="ImportKeyPair", times=1),
        bakery.fault(effect="cut-after", action="CreateSecurityGroup", times=1),
    ):
        assert ebs.build().code == 0, "what lost its answer is found by its tag"
    assert ebs.build("--var", "user=nobody").code == 6
    assert ebs.build("--var", "break=test", "--keep-on-failure=2h").code == 7
    kept = _newest(bakery)
    with _slow(bakery, "copy"):
        killed = [ebs.killed(kind="image", region="us-west-2") for _ in range(2)]
        resumed = bakery("resume", killed.pop(), "--format", "json")
    assert resumed.code == 0, resumed.err
    with _sold(bakery):
        sold = ebs.build()
    assert sold.code == 0, sold.err
    asked += ebs.asked()
    assert not ebs.refused()
    for run in (kept, *killed):
        _clean(ebs, run)
        asked += ebs.asked()
    assert _needless(ebs, asked) == NOT_HERE | OF_DEFAULT_KEYS


def test_encryption_replacement_and_a_source_by_parameter_need_what_they_are_allowed(bakery: Bakery) -> None:
    east, _ = _keys(bakery)
    sealed = Baker(bakery, bakery.write("sealed.yaml", ENCRYPTED.replace("KEY-EAST", east)))
    for sold in (nullcontext(), nullcontext(), _sold(bakery)):  # the name is free; it is taken; and so by what is sold
        with sold:
            built = sealed.build()
        assert built.code == 0, built.err
        assert "left in place" not in built.err
    assert not sealed.refused()
    assert _needless(sealed, sealed.asked()) == NOT_HERE | OF_FAILURES | OF_LOST_ANSWERS


def test_bundles_need_what_they_are_allowed(bakery: Bakery) -> None:
    bundled = Baker(bakery, bakery.write("bundled.yaml", BUNDLE))
    built = bundled.build()
    assert built.code == 0, built.err
    assert bundled.build("--var", "break=test").code == 7
    with _slow(bakery, "image", 5.0):
        registered = bundled.killed(kind="image", region="us-west-2")
    copied = bundled.killed(kind="bundle", region="us-west-2")
    resumed = bakery("resume", copied, "--format", "json")
    assert resumed.code == 0, resumed.err
    asked = bundled.asked()
    assert not bundled.refused()
    _clean(bundled, registered)
    asked += bundled.asked()
    assert _needless(bundled, asked) == OF_FAILURES | OF_LOST_ANSWERS


REMOVED = {
    "ReadOnly ec2:DescribeImages": "FindSource",
    "LaunchInstances ec2:RunInstances": "Launch",
    "TagOnCreate ec2:CreateTags": "MakeKey",
    "PassRole iam:PassRole": "Launch",
    "WorkOnOurs ec2:StopInstances": "Stop",
    "MakeOurs ec2:RegisterImage": "CaptureEbs",
    "CopyToRegions ec2:CopyImage": "CopyToRegion",
    "ShareSnapshots ec2:ModifySnapshotAttribute": "ShareImage",
}


@pytest.mark.parametrize("removed", REMOVED)
def test_a_build_without_an_action_fails_names_it_and_gives_everything_back(
    bakery: Bakery, ebs: Baker, removed: str
) -> None:
    sid, action = removed.split()
    failed = ebs.build(policy=without(ebs.policy, sid, "Action", action))
    assert failed.code == 3
    assert f"{action} is missing" in failed.err
    assert "still held" not in failed.err


def test_what_undo_may_not_delete_is_named_with_what_is_missing(bakery: Bakery, ebs: Baker) -> None:
    failed = ebs.build("--var", "break=test", policy=without(ebs.policy, "EndOurs", "Action", "ec2:DeleteSnapshot"))
    assert failed.code == 7
    assert "ec2:DeleteSnapshot is missing" in failed.err
    assert "still held: snapshots" in failed.err
    for snapshot in bakery.client().describe_snapshots(OwnerIds=["self"])["Snapshots"]:
        bakery.client().delete_snapshot(SnapshotId=snapshot["SnapshotId"])


def _denied(call: Any, **values: Any) -> str:
    """The message with which a call is refused."""
    with pytest.raises(ClientError) as refused:
        call(**values)
    assert refused.value.response["Error"]["Code"] in ("UnauthorizedOperation", "AccessDenied")
    return str(refused.value.response["Error"]["Message"])


def test_what_is_not_ours_is_not_touched(bakery: Bakery, ebs: Baker) -> None:
    built = ebs.build()
    assert built.code == 0, built.err
    admin, caller, west = bakery.client(), ebs.client(), ebs.client(region="us-west-2")
    kept = built.images["us-east-1"]
    [snapshot] = {each["SnapshotId"] for each in admin.describe_snapshots(OwnerIds=["self"])["Snapshots"]} - _of(
        admin, kept, but=1
    )
    assert "ec2:DeregisterImage" in _denied(caller.deregister_image, ImageId=kept), "it is kept"
    assert "ec2:DeleteSnapshot" in _denied(caller.delete_snapshot, SnapshotId=snapshot)
    volume = admin.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    admin.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 1})
    foreign = admin.create_snapshot(VolumeId=volume)
    assert "ec2:DeleteSnapshot" in _denied(caller.delete_snapshot, SnapshotId=foreign["SnapshotId"])
    taking = {"Resources": [foreign["SnapshotId"]], "Tags": [{"Key": "imagepipe:spec", "Value": "guarded"}]}
    assert "ec2:CreateTags" in _denied(caller.create_tags, **taking), "or anything could be made ours"
    base = admin.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    instance = admin.run_instances(ImageId=base, InstanceType="t3.small", MinCount=1, MaxCount=1)["Instances"][0]
    for call in (caller.terminate_instances, caller.stop_instances):
        assert instance["InstanceId"] in _denied(call, InstanceIds=[instance["InstanceId"]], DryRun=True)
    admin.terminate_instances(InstanceIds=[instance["InstanceId"]])
    launch = _launch(base)
    assert "instance/*" in _denied(caller.run_instances, **{**launch, "InstanceType": "m5.large"})
    assert "instance/*" in _denied(caller.run_instances, **{**launch, "MetadataOptions": {"HttpTokens": "optional"}})
    assert "instance/*" in _denied(caller.run_instances, **{**launch, "TagSpecifications": []})
    assert "us-west-2" in _denied(west.run_instances, **launch)
    assert "security-group/*" in _denied(caller.run_instances, **launch), "the VPC's own group is not the run's"
    assert "ec2:DescribeInstances" in _denied(ebs.client(region="eu-west-1").describe_instances)
    shared = {"Add": [{"UserId": "999999999999"}]}
    assert "ModifySnapshotAttribute" in _denied(
        caller.modify_snapshot_attribute, SnapshotId=snapshot, CreateVolumePermission=shared
    )
    assert "does not know what ec2:CreateVpc" in _denied(caller.create_vpc, CidrBlock="10.0.0.0/16")
    admin.delete_snapshot(SnapshotId=foreign["SnapshotId"])
    admin.delete_volume(VolumeId=volume)


def _of(ec2: Any, image: str, *, but: int) -> set[str]:
    """The snapshots of an image, but for so many."""
    mappings = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"]
    return set([each["Ebs"]["SnapshotId"] for each in mappings][but:])


def _launch(image: str) -> dict[str, Any]:
    """Return the parameters of a launch that the policy allows, except that the group is missing."""
    tags = [{"Key": "imagepipe:spec", "Value": "guarded"}, {"Key": "imagepipe:run", "Value": "r"}]
    return {
        "ImageId": image,
        "InstanceType": "t3.small",
        "MinCount": 1,
        "MaxCount": 1,
        "IamInstanceProfile": {"Name": "reader"},
        "MetadataOptions": {"HttpTokens": "required"},
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }


def test_outside_the_prefix_nothing_is_put_or_read(bakery: Bakery) -> None:
    bundled = Baker(bakery, bakery.write("bundled.yaml", BUNDLE))
    s3 = bundled.client("s3")
    put = {"Bucket": "guarded-east", "Body": b"x", "ACL": "aws-exec-read"}
    s3.put_object(**put, Key="baked/us-east-1/a/part")
    assert "s3:PutObject" in _denied(s3.put_object, **put, Key="baked/us-west-2/a/part")
    assert "s3:PutObject" in _denied(s3.put_object, **put, Key="other/part")
    assert "s3:PutObject" in _denied(s3.put_object, **{**put, "ACL": "public-read"}, Key="baked/us-east-1/a/part")
    assert "s3:GetObject" in _denied(s3.get_object, Bucket="guarded-east", Key="other/part")
    assert "s3:ListBucket" in _denied(s3.list_objects_v2, Bucket="guarded-east", Prefix="other/")
    wanted = {"Objects": [{"Key": "baked/us-east-1/a/part"}, {"Key": "other/part"}]}
    assert "s3:DeleteObject" in _denied(s3.delete_objects, Bucket="guarded-east", Delete=wanted)
    s3.delete_object(Bucket="guarded-east", Key="baked/us-east-1/a/part")
