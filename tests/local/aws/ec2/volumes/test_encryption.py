"""What is encrypted, with which key, and what cannot be shared for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import (
    OTHER_ACCOUNT,
    Cloud,
    available,
    image,
    instance,
    launch,
    refused,
    register,
    root_volume,
    running,
    snapshot_of,
    state,
    stopped,
    until,
)


def key_of(cloud: Cloud, region: str = "us-east-1", alias: str = "alias/images") -> dict[str, str]:
    """A key's id, ARN and alias."""
    kms = cloud.client("kms", region)
    made = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName=alias, TargetKeyId=made["KeyId"])
    return {"id": made["KeyId"], "arn": made["Arn"], "alias": alias}


def default_key(cloud: Cloud, region: str = "us-east-1") -> str:
    return str(cloud.client("kms", region).describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["Arn"])


def encrypted(ec2: Any, **ebs: Any) -> str:
    mapping = {"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True, **ebs}}
    return stopped(ec2, BlockDeviceMappings=[mapping])


def of_volume(ec2: Any, instance_id: str) -> tuple[bool, str | None]:
    [volume] = ec2.describe_volumes(VolumeIds=[root_volume(ec2, instance_id)])["Volumes"]
    return volume["Encrypted"], volume.get("KmsKeyId")


def of_snapshot(ec2: Any, snapshot_id: str) -> tuple[bool, str | None]:
    [snapshot] = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    return snapshot["Encrypted"], snapshot.get("KmsKeyId")


def of_image(ec2: Any, image_id: str) -> tuple[bool, str | None]:
    return of_snapshot(ec2, snapshot_id_of(ec2, image_id))


def ended(ec2: Any, instance_id: str) -> None:
    until(lambda: state(ec2, instance_id) == "terminated")


def snapshot_id_of(ec2: Any, image_id: str) -> str:
    return str(image(ec2, image_id)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])


@pytest.mark.parametrize("name", ["id", "arn", "alias"])
def test_the_key_of_a_launch_is_the_snapshots_and_the_images(cloud: Cloud, ec2: Any, name: str) -> None:
    key = key_of(cloud)
    made = encrypted(ec2, KmsKeyId=key[name])
    snapshot_id = snapshot_of(ec2, made)
    assert of_volume(ec2, made) == of_snapshot(ec2, snapshot_id) == (True, key["arn"])
    mapping = image(ec2, available(ec2, register(ec2, snapshot_id, "web-1")))["BlockDeviceMappings"][0]["Ebs"]
    assert mapping["Encrypted"]
    assert "KmsKeyId" not in mapping, "EC2 tells the key of snapshots and volumes alone"


def test_without_a_key_it_is_the_accounts_default_one(cloud: Cloud, ec2: Any) -> None:
    made = encrypted(ec2)
    assert of_volume(ec2, made) == (True, default_key(cloud))
    cloud.restart()
    assert of_volume(cloud.client(), made) == (True, default_key(cloud)), "it stays the same"
    key = key_of(cloud)
    cloud.client().modify_ebs_default_kms_key_id(KmsKeyId=key["alias"])
    assert of_volume(cloud.client(), encrypted(cloud.client())) == (True, key["arn"])
    assert cloud.client().reset_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"


def test_encryption_by_default_holds_for_launches_and_copies_of_the_region(cloud: Cloud, ec2: Any) -> None:
    plain = available(ec2, register(ec2, snapshot_of(ec2, stopped(ec2)), "web-1"))
    there = cloud.client(region="eu-west-1")
    there.enable_ebs_encryption_by_default()
    assert there.get_ebs_encryption_by_default()["EbsEncryptionByDefault"]
    assert not ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"]
    copied = available(there, there.copy_image(SourceRegion="us-east-1", SourceImageId=plain, Name="web-1")["ImageId"])
    assert of_image(there, copied) == (True, default_key(cloud, "eu-west-1"))
    assert of_volume(there, running(there)) == (True, default_key(cloud, "eu-west-1"))
    assert of_volume(ec2, running(ec2)) == (False, None)


def test_a_copy_is_encrypted_with_the_key_of_its_region(cloud: Cloud, ec2: Any) -> None:
    here, there = key_of(cloud), key_of(cloud, "eu-west-1")
    source = available(ec2, register(ec2, snapshot_of(ec2, encrypted(ec2, KmsKeyId=here["arn"])), "web-1"))
    west = cloud.client(region="eu-west-1")

    def copied(name: str, **wanted: Any) -> str:
        return str(west.copy_image(SourceRegion="us-east-1", SourceImageId=source, Name=name, **wanted)["ImageId"])

    assert of_image(west, available(west, copied("own", Encrypted=True, KmsKeyId=there["arn"]))) == (True, there["arn"])
    assert of_image(west, available(west, copied("default"))) == (True, default_key(cloud, "eu-west-1"))
    lost = copied("of another region", Encrypted=True, KmsKeyId=here["arn"])
    until(lambda: image(west, lost)["State"] == "failed")
    assert "not accessible" in image(west, lost)["StateReason"]["Message"]


def test_a_launch_with_an_unknown_key_ends_terminated_with_ec2s_reason(cloud: Cloud, ec2: Any) -> None:
    elsewhere = key_of(cloud, "eu-west-1")
    for name in ("alias/nobodys", elsewhere["arn"]):
        mapping = {"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True, "KmsKeyId": name}}
        made = launch(ec2, BlockDeviceMappings=[mapping])
        ended(ec2, made)
        assert instance(ec2, made)["StateReason"] == {
            "Code": "Client.InternalError",
            "Message": "Client.InternalError: Client error on launch",
        }
    assert not cloud.driver.machines


def test_a_snapshot_with_the_default_key_cannot_be_shared(ec2: Any) -> None:
    snapshot_id = snapshot_of(ec2, encrypted(ec2))
    made = available(ec2, register(ec2, snapshot_id, "web-1"))
    user = {"Add": [{"UserId": OTHER_ACCOUNT}]}
    with refused("InvalidParameter"):
        ec2.modify_image_attribute(ImageId=made, LaunchPermission=user)
    with refused("OperationNotPermitted"):
        ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, CreateVolumePermission=user)


def test_a_snapshot_with_a_key_of_the_account_is_shared_with_accounts_and_never_public(cloud: Cloud, ec2: Any) -> None:
    ec2.disable_image_block_public_access()
    snapshot_id = snapshot_of(ec2, encrypted(ec2, KmsKeyId=key_of(cloud)["alias"]))
    made = available(ec2, register(ec2, snapshot_id, "web-1"))
    user, everybody = {"Add": [{"UserId": OTHER_ACCOUNT}]}, {"Add": [{"Group": "all"}]}
    ec2.modify_image_attribute(ImageId=made, LaunchPermission=user)
    ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, CreateVolumePermission=user)
    other = cloud.client(other=True)
    theirs = running(other, ImageId=made)
    volume = other.describe_volumes(VolumeIds=[root_volume(other, theirs)])["Volumes"][0]
    assert volume["KmsKeyId"].split(":")[4] == OTHER_ACCOUNT, "their own default key"
    with refused("UnsupportedOperation"):
        ec2.modify_image_attribute(ImageId=made, LaunchPermission=everybody)
    with refused("OperationNotPermitted"):
        ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, CreateVolumePermission=everybody)
