"""What `validate --online` tells: each refusal of the cloud, at the place of the spec that it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import Access, Session
from imagepipe.errors import CloudError, Problem
from imagepipe.preflight import check_online
from imagepipe.spec.load import load
from imagepipe.spec.variables import Given
from tests.account import Account
from tests.local.aws import harness
from tests.local.aws.harness import KEY_ID, SECRET
from tests.published import template

SOURCE = 'source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}\n'


def _problems(
    account: Account, folder: Path, rest: str = "", *, source: str = SOURCE, output: str = ""
) -> list[Problem]:
    (folder / "imagepipe.yaml").write_text("defaults: {ssh_user: admin}\n")
    spec = folder / "spec.yaml"
    spec.write_text(f"imagepipe: 1\nname: web\n{source}output: {{name: web-1{output}}}\n{rest}")
    [one] = load([spec], Given())
    assert one.problems == []
    return check_online(one, account.regions, lambda spec: "us-east-1")


def _told(problems: list[Problem], path: str) -> str:
    found = [problem for problem in problems if problem.path == path]
    assert len(found) == 1, [(problem.path, problem.message) for problem in problems]
    return found[0].message


def test_a_spec_that_can_be_built_has_no_problem_and_nothing_is_made(account: Account, tmp_path: Path) -> None:
    ec2 = account.cloud.client()
    before = [ec2.describe_instances()["Reservations"], ec2.describe_key_pairs()["KeyPairs"], _groups(ec2)]
    more = "launch: {instance_types: [t3.small, t3a.small], spot: true}\npublish: {regions: [us-west-2]}\n"
    assert _problems(account, tmp_path, more) == []
    assert before == [ec2.describe_instances()["Reservations"], ec2.describe_key_pairs()["KeyPairs"], _groups(ec2)]


def _groups(ec2: object) -> list[str]:
    return [group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]]  # type: ignore[attr-defined]


def test_no_image_for_the_filter(account: Account, tmp_path: Path) -> None:
    source = 'source: {ami: {name: "debian-99-*", owners: ["136693071363"]}}\n'
    assert "no available image is named debian-99-*" in _told(_problems(account, tmp_path, source=source), "source.ami")


def test_an_ssm_parameter_that_is_no_image(account: Account, tmp_path: Path) -> None:
    account.cloud.client("ssm").put_parameter(Name="/x/y", Value="hello", Type="String")
    problems = _problems(account, tmp_path, source="source: {ami: {ssm: /x/y}}\n")
    assert "holds 'hello', which is not an image id" in _told(problems, "source.ami.ssm")


def test_a_name_that_is_taken_in_one_of_the_regions(account: Account, tmp_path: Path) -> None:
    ec2 = account.cloud.client(region="us-west-2")
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    harness.available(ec2, harness.register(ec2, snapshot, "web-1"))
    problems = _problems(account, tmp_path, "publish: {regions: [us-west-2]}\n")
    assert "name 'web-1' is taken by" in _told(problems, "output.name")
    replaced = _problems(account, tmp_path, "publish: {regions: [us-west-2]}\n", output=", on_name_taken: replace")
    assert replaced == []


@pytest.mark.parametrize(
    ("launch", "path", "says"),
    [
        ("subnets: [subnet-01234567]", "launch.subnets.0", "subnet-01234567"),
        ("subnets: [{tags: {no: such}}]", "launch.subnets.0", "tagged no=such in us-east-1: no subnet has these tags"),
        ("security_groups: [sg-01234567]", "launch.security_groups", "sg-01234567"),
        ("instance_types: [t3.small, t9.huge]", "launch.instance_types.1", "t9.huge"),
        ("instance_types: [t4g.small]", "launch.instance_types.0", "arm64"),
        ("iam_instance_profile: nobody", "launch.iam_instance_profile", "nobody"),
    ],
)
def test_what_a_launch_would_be_refused_for(
    account: Account, tmp_path: Path, launch: str, path: str, says: str
) -> None:
    assert says in _told(_problems(account, tmp_path, f"launch: {{{launch}}}\n"), path)


def test_a_volume_smaller_than_its_snapshot_is_told_once_whatever_the_number_of_types(
    account: Account, tmp_path: Path
) -> None:
    ec2 = account.cloud.client()
    larger = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 3}}]
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2, BlockDeviceMappings=larger))
    image = harness.available(ec2, harness.register(ec2, snapshot, "three"))
    more = "launch: {instance_types: [t3.small, t3a.small], block_devices: [{device: /dev/xvda, size_gib: 2}]}\n"
    problems = _problems(account, tmp_path, more, source=f"source: {{ami: {image}}}\n")
    assert "snapshot" in _told(problems, "launch.block_devices")


def test_a_key_pair_that_there_is_not(account: Account, tmp_path: Path) -> None:
    (tmp_path / "own.key").write_text("")
    more = "launch: {ssh: {key_pair: none, private_key: own.key}}\n"
    problems = _problems(account, tmp_path, more)
    assert "key pair none" in _told(problems, "launch.ssh.key_pair")


def test_a_kms_key_that_there_is_not(account: Account, tmp_path: Path) -> None:
    encrypt = ", encrypt: {kms_key: alias/none, per_region: {us-west-2: {kms_key: alias/nor-this}}}"
    problems = _problems(account, tmp_path, "publish: {regions: [us-west-2]}\n", output=encrypt)
    assert "alias/none" in _told(problems, "output.encrypt.kms_key")
    assert "alias/nor-this" in _told(problems, "output.encrypt.per_region.us-west-2.kms_key")


def test_sharing_where_the_account_encrypts_with_a_key_that_cannot_be_shared(account: Account, tmp_path: Path) -> None:
    account.cloud.client().enable_ebs_encryption_by_default()
    problems = _problems(account, tmp_path, 'publish: {share: {accounts: ["210987654321"]}}\n')
    assert "because the account encrypts by default" in _told(problems, "publish.share")


def test_public_images_where_the_account_blocks_them(account: Account, tmp_path: Path) -> None:
    account.cloud.client().enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
    problems = _problems(account, tmp_path, "publish: {share: {public: true}}\n")
    assert "block public access is block-new-sharing" in _told(problems, "publish.share.public")


ACTIONS = {
    "ImportKeyPair": "launch",
    "CreateSecurityGroup": "launch",
    "AuthorizeSecurityGroupIngress": "launch",
    "StopInstances": "launch",
    "TerminateInstances": "launch",
    "CreateSnapshots": "launch",
    "RegisterImage": "launch",
    "DeregisterImage": "launch",
    "DeleteSnapshot": "launch",
    "DeleteKeyPair": "launch",
    "DeleteSecurityGroup": "launch",
    "CreateTags": "launch",
    "ModifyImageAttribute": "launch",
    "ModifySnapshotAttribute": "launch",
    "CopyImage": "publish.regions",
    "EnableImageDeprecation": "launch",
    "EnableImageDeregistrationProtection": "launch",
    "CreateLaunchTemplateVersion": "launch",
    "ModifyLaunchTemplate": "launch",
}


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_that_these_credentials_may_not_do(account: Account, tmp_path: Path, action: str) -> None:
    account.fault("refuse", action, code="UnauthorizedOperation", status=403, times=1)
    template(account)
    more = (
        'publish: {regions: [us-west-2], share: {accounts: ["210987654321"]}, deprecate_after: 90d,'
        " deregistration_protection: true, launch_templates: [{name: web, region: us-east-1}]}\n"
    )
    message = _told(_problems(account, tmp_path, more), ACTIONS[action])
    assert f"ec2:{action} is missing" in message


def test_a_parameter_that_is_not_ours_and_a_template_that_does_not_exist(account: Account, tmp_path: Path) -> None:
    account.cloud.client("ssm", region="us-west-2").put_parameter(Name="/images/web", Value="hello", Type="String")
    more = "publish: {regions: [us-west-2], ssm_parameter: /images/web, launch_templates: [{name: web}]}\n"
    template(account)
    problems = _problems(account, tmp_path, more)
    assert "/images/web in us-west-2 exists and is not for images: 'hello', type String" in _told(
        problems, "publish.ssm_parameter"
    )
    assert "looking up launch template web in us-west-2" in _told(problems, "publish.launch_templates")


BUNDLE = ", type: instance-store, bucket: bundles, account: '000000000000'"
M3 = "launch: {instance_types: [m3.medium]}\n"


def test_a_bundle_that_can_be_made_has_no_problem_and_nothing_is_put(account: Account, tmp_path: Path) -> None:
    assert _problems(account, tmp_path, M3, output=BUNDLE) == []
    assert not account.s3.has_bucket("bundles"), "the local cloud's is made by a build"
    account.s3.make_bucket("bundles")
    account.cloud.admin("DELETE", "calls")
    assert _problems(account, tmp_path, M3, output=BUNDLE) == []
    calls = account.cloud.admin("GET", "calls")
    assert {name for name in calls if name.startswith("s3:")} == {
        "s3:HeadBucket",
        "s3:GetBucketOwnershipControls",
        "s3:GetBucketEncryption",
    }
    assert not {"ec2:CreateSnapshots", "ec2:StopInstances", "ec2:DeleteSnapshot"} & set(calls), "it needs no such leave"


def test_a_bucket_that_is_in_another_region_than_its_image(account: Account, tmp_path: Path) -> None:
    account.s3.make_bucket("bundles")
    account.s3.make_bucket("other")
    more = f"{M3}publish: {{regions: [us-west-2]}}\n"
    output = f"{BUNDLE}, per_region: {{us-west-2: {{bucket: other}}}}"
    message = _told(_problems(account, tmp_path, more, output=output), "output.per_region.us-west-2.bucket")
    assert message == "bucket other is in us-east-1, but the image will be in us-west-2"


def test_a_bucket_of_the_launch_region_that_ec2_could_not_read_from(account: Account, tmp_path: Path) -> None:
    account.cloud.client("s3").create_bucket(Bucket="bundles", ObjectOwnership="BucketOwnerEnforced")
    assert "ACLs disabled" in _told(_problems(account, tmp_path, M3, output=BUNDLE), "output.bucket")


def test_an_image_of_another_account_than_that_of_the_credentials(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    account.s3.make_bucket("bundles")
    account.regions = Regions(Session(Access(endpoint_url=account.cloud.endpoint, region="us-east-1")), account.clock)
    problems = _problems(account, tmp_path, M3, output=BUNDLE.replace("000000000000", "123456789012"))
    assert _told(problems, "output.account").startswith(
        "output.account is 123456789012, but these credentials belong to"
    )
    assert len(problems) == 1


def test_a_bucket_that_is_nowhere_where_no_build_would_make_it(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    account.regions = Regions(Session(Access(endpoint_url=account.cloud.endpoint, region="us-east-1")), account.clock)
    assert _told(_problems(account, tmp_path, M3, output=BUNDLE), "output.bucket") == "bucket bundles does not exist"


def test_a_bundle_whose_registration_is_not_allowed_in_a_region_of_its_copies(account: Account, tmp_path: Path) -> None:
    account.fault("refuse", "RegisterImage", code="UnauthorizedOperation", status=403, times=2)
    more = f"{M3}publish: {{regions: [us-west-2]}}\n"
    output = f"{BUNDLE}, per_region: {{us-west-2: {{bucket: other}}}}"
    problems = _problems(account, tmp_path, more, output=output)
    for path in ("launch", "publish.regions"):
        assert "ec2:RegisterImage is missing" in _told(problems, path)


@pytest.mark.parametrize(
    ("more", "is_told"),
    [("", True), (", method: block", True), (", method: tree", False), (", size_gib: 8", False)],
    ids=["auto", "block", "tree", "a size of its own"],
)
def test_a_source_with_a_root_that_no_bundle_can_be(account: Account, tmp_path: Path, more: str, is_told: bool) -> None:
    ec2 = account.cloud.client()
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    large = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot, "VolumeSize": 11}}]
    image = harness.available(ec2, harness.register(ec2, snapshot, "large", BlockDeviceMappings=large))
    problems = _problems(account, tmp_path, M3, source=f"source: {{ami: {image}}}\n", output=BUNDLE + more)
    if is_told:
        assert _told(problems, "output").startswith(f"the root of {image} has 11 GiB; an instance-store image has")
    else:
        assert problems == []


def test_credentials_that_are_none_end_it_at_once(account: Account, tmp_path: Path) -> None:
    account.fault("refuse", "DescribeImages", code="AuthFailure", status=401, times=9)
    with pytest.raises(CloudError) as failed:
        _problems(account, tmp_path)
    assert failed.value.code == "AuthFailure"
