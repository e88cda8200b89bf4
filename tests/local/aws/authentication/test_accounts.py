"""Several accounts in one store: what one shares, and the others see."""

from __future__ import annotations

import urllib.error
from typing import Any

import pytest

from tests.local.aws.harness import (
    ACCOUNT,
    OTHER_ACCOUNT,
    Cloud,
    available,
    image,
    launch,
    refused,
    register,
    running,
    snapshot_of,
    stopped,
    until,
)

ORGANIZATION = "arn:aws:organizations::111122223333:organization/o-a1b2c3d4e5"
UNIT = "arn:aws:organizations::111122223333:ou/o-a1b2c3d4e5/ou-f6g7-h8i9j0k1"
OTHER_UNIT = "arn:aws:organizations::111122223333:ou/o-a1b2c3d4e5/ou-f6g7-l2m3n4o5"


@pytest.fixture
def baked(ec2: Any) -> str:
    return available(ec2, register(ec2, snapshot_of(ec2, stopped(ec2)), "web-1"))


def snapshot_id_of(ec2: Any, image_id: str) -> str:
    return str(image(ec2, image_id)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])


def test_an_added_account_is_another_one_with_a_network_of_its_own_and_outlives_a_restart(cloud: Cloud) -> None:
    made = cloud.added_account()
    cloud.restart()
    assert cloud.client("sts", keys=made).get_caller_identity()["Account"] == made["Account"] != ACCOUNT
    [vpc] = cloud.client(keys=made).describe_vpcs()["Vpcs"]
    assert vpc["VpcId"] not in {own["VpcId"] for own in cloud.client().describe_vpcs()["Vpcs"]}
    running(cloud.client(keys=made))
    assert cloud.client().describe_instances()["Reservations"] == []


def test_accounts_are_listed_with_their_keys_to_the_first_alone(cloud: Cloud) -> None:
    made = cloud.added_account(ORGANIZATION)
    listed = {row["account"]: row for row in cloud.admin("GET", "accounts")}
    assert set(listed) == {ACCOUNT, OTHER_ACCOUNT, made["Account"]}
    assert listed[made["Account"]]["secret_access_key"] == made["SecretAccessKey"]
    assert listed[ACCOUNT]["secret_access_key"] == ""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method="GET", url=f"{cloud.endpoint}/_imagepipe/accounts")
    SigV4Auth(Credentials(made["AccessKeyId"], made["SecretAccessKey"]), "ec2", "us-east-1").add_auth(request)
    prepared = urllib.request.Request(request.url, headers=dict(request.headers))
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(prepared, timeout=10)
    assert (caught.value.code, b"AccessDenied" in caught.value.read()) == (403, True)


@pytest.mark.parametrize("body", [{"account": "42"}, {"memberships": ["o-a1b2c3d4e5"]}])
def test_an_account_that_cannot_be_is_refused(cloud: Cloud, body: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        cloud.admin("POST", "accounts", body)
    assert b"InvalidParameterValue" in caught.value.read()


@pytest.mark.parametrize(
    ("memberships", "permission", "is_seen"),
    [
        pytest.param([], {"OrganizationArn": ORGANIZATION}, False, id="outside the organization"),
        pytest.param([ORGANIZATION], {"OrganizationArn": ORGANIZATION}, True, id="in the organization"),
        pytest.param([ORGANIZATION, UNIT], {"OrganizationalUnitArn": UNIT}, True, id="in the unit"),
        pytest.param([ORGANIZATION, UNIT], {"OrganizationalUnitArn": OTHER_UNIT}, False, id="in another unit"),
        pytest.param([], {"Group": "all"}, True, id="public"),
        pytest.param([], {"UserId": "999988887777"}, False, id="for somebody else"),
    ],
)
def test_a_shared_image_is_seen_and_launched_and_another_is_not(
    cloud: Cloud, ec2: Any, baked: str, memberships: list[str], permission: dict[str, str], is_seen: bool
) -> None:
    ec2.disable_image_block_public_access()
    other = cloud.client(keys=cloud.added_account(*memberships))
    ec2.modify_image_attribute(ImageId=baked, LaunchPermission={"Add": [permission]})
    described = ec2.describe_image_attribute(ImageId=baked, Attribute="launchPermission")
    assert described["LaunchPermissions"] == [permission]
    executable = other.describe_images(ExecutableUsers=["all" if "Group" in permission else "self"])["Images"]
    assert (baked in [one["ImageId"] for one in executable]) is is_seen
    if is_seen:
        assert image(other, baked)["OwnerId"] == ACCOUNT
        running(other, ImageId=baked)
    else:
        with refused("InvalidAMIID.NotFound"):
            image(other, baked)
        with refused("InvalidAMIID.NotFound"):
            launch(other, ImageId=baked)


def test_a_shared_image_is_copied_only_with_the_permission_for_its_snapshots(
    cloud: Cloud, ec2: Any, baked: str
) -> None:
    other = cloud.client(other=True, region="eu-west-1")
    ec2.modify_image_attribute(ImageId=baked, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    wanted = {"SourceRegion": "us-east-1", "SourceImageId": baked, "Name": "theirs"}
    with refused("InvalidRequest"):
        other.copy_image(**wanted)
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot_id_of(ec2, baked), CreateVolumePermission={"Add": [{"UserId": OTHER_ACCOUNT}]}
    )
    copied = available(other, other.copy_image(**wanted)["ImageId"])
    assert image(other, copied)["OwnerId"] == OTHER_ACCOUNT
    ec2.deregister_image(ImageId=baked, DeleteAssociatedSnapshots=True)
    running(other, ImageId=copied)


def test_a_copy_has_no_permissions(cloud: Cloud, ec2: Any, baked: str) -> None:
    user = {"UserId": OTHER_ACCOUNT}
    ec2.modify_image_attribute(ImageId=baked, LaunchPermission={"Add": [user]})
    ec2.modify_snapshot_attribute(SnapshotId=snapshot_id_of(ec2, baked), CreateVolumePermission={"Add": [user]})
    copied = ec2.copy_image(SourceRegion="us-east-1", SourceImageId=baked, Name="web-2")["ImageId"]
    available(ec2, copied)
    assert ec2.describe_image_attribute(ImageId=copied, Attribute="launchPermission")["LaunchPermissions"] == []
    snapshot = ec2.describe_snapshot_attribute(
        SnapshotId=snapshot_id_of(ec2, copied), Attribute="createVolumePermission"
    )
    assert snapshot["CreateVolumePermissions"] == []
    with refused("InvalidAMIID.NotFound"):
        image(cloud.client(other=True), copied)


def test_public_images_are_blocked_until_the_account_allows_them_in_the_region(
    cloud: Cloud, ec2: Any, baked: str
) -> None:
    def publish() -> None:
        ec2.modify_image_attribute(ImageId=baked, LaunchPermission={"Add": [{"Group": "all"}]})

    assert ec2.get_image_block_public_access_state()["ImageBlockPublicAccessState"] == "block-new-sharing"
    with refused("OperationNotPermitted"):
        publish()
    cloud.client(region="eu-west-1").disable_image_block_public_access()
    cloud.client(other=True).disable_image_block_public_access()
    with refused("OperationNotPermitted"):
        publish()
    ec2.disable_image_block_public_access()
    publish()
    ec2.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
    assert image(cloud.client(other=True), baked)["Public"], "what was public stays so"
    ec2.modify_image_attribute(ImageId=baked, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})


def test_public_snapshots_can_be_blocked_and_hidden(cloud: Cloud, ec2: Any) -> None:
    snapshot_id, other = snapshot_of(ec2, stopped(ec2)), cloud.client(other=True)

    def publish() -> None:
        ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, CreateVolumePermission={"Add": [{"Group": "all"}]})

    ec2.enable_snapshot_block_public_access(State="block-new-sharing")
    with refused("OperationNotPermitted"):
        publish()
    ec2.disable_snapshot_block_public_access()
    publish()
    other.describe_snapshots(SnapshotIds=[snapshot_id])
    ec2.enable_snapshot_block_public_access(State="block-all-sharing")
    assert ec2.get_snapshot_block_public_access_state()["State"] == "block-all-sharing"
    with refused("InvalidSnapshot.NotFound"):
        other.describe_snapshots(SnapshotIds=[snapshot_id])
    until(lambda: ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"])


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("licences", {"image": "ami-0123456789abcdef0"}, "image ami-0123456789abcdef0 does not exist"),
        ("keys", {"account": "999999999999", "policy": "{}"}, "account '999999999999' does not exist"),
        ("nothing", {}, "does not exist in the local cloud"),
    ],
)
def test_the_cloud_s_own_interface_names_what_does_not_exist(
    cloud: Cloud, name: str, body: dict[str, str], message: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        cloud.admin("POST", name, body)
    with caught.value:
        assert message in caught.value.read().decode()
