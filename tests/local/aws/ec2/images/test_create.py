"""CreateImage in full: what it maps over what is attached, and what it keeps that RegisterImage loses."""

from __future__ import annotations

from typing import Any

from tests.local.aws.harness import (
    OTHER_ACCOUNT,
    Cloud,
    available,
    base_image,
    image,
    instance,
    refused,
    register,
    root_volume,
    running,
    snapshot_of,
    stopped,
    until,
)

DATA = [
    {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 8, "VolumeType": "gp3", "Iops": 4000, "Throughput": 200}},
    {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 3, "DeleteOnTermination": False}},
    {"DeviceName": "/dev/sdh", "VirtualName": "ephemeral0"},
]


def mappings(ec2: Any, image_id: str) -> dict[str, Any]:
    found = image(ec2, image_id)["BlockDeviceMappings"]
    return {one["DeviceName"]: one.get("Ebs", one.get("VirtualName")) for one in found}


def test_all_that_is_attached_is_captured_at_one_moment(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2, BlockDeviceMappings=DATA)
    assert {d["DeviceName"] for d in instance(ec2, made)["BlockDeviceMappings"]} == {
        "/dev/xvda",
        "/dev/sdf",
        "/dev/sdg",
    }, "a t3.small has no instance store"
    created = ec2.create_image(
        InstanceId=made,
        Name="web-1",
        NoReboot=True,
        TagSpecifications=[
            {"ResourceType": "image", "Tags": [{"Key": "what", "Value": "image"}]},
            {"ResourceType": "snapshot", "Tags": [{"Key": "what", "Value": "snapshot"}]},
        ],
    )["ImageId"]
    found = mappings(ec2, available(ec2, created))
    assert {device: ebs["VolumeSize"] for device, ebs in found.items()} == {
        "/dev/xvda": 1,
        "/dev/sdf": 8,
        "/dev/sdg": 3,
    }
    assert (found["/dev/sdf"]["Iops"], found["/dev/sdf"]["Throughput"]) == (4000, 200)
    assert not found["/dev/sdg"]["DeleteOnTermination"]
    assert image(ec2, created)["Tags"] == [{"Key": "what", "Value": "image"}]
    for ebs in found.values():
        [snapshot] = ec2.describe_snapshots(SnapshotIds=[ebs["SnapshotId"]])["Snapshots"]
        assert snapshot["Tags"] == [{"Key": "what", "Value": "snapshot"}]
    assert [name for name, _ in cloud.driver.calls].count("quiesced") == 1
    assert ("stop", made) not in cloud.driver.calls


def test_without_no_reboot_the_machine_is_off_while_it_is_captured(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    available(ec2, ec2.create_image(InstanceId=made, Name="web-1")["ImageId"])
    until(lambda: made in cloud.driver.machines)
    assert [name for name, _ in cloud.driver.calls if name in ("start", "stop")] == ["start", "stop", "start"]


def test_the_requests_mappings_override_those_of_attached_volumes(ec2: Any) -> None:
    made = stopped(ec2, BlockDeviceMappings=DATA)
    created = ec2.create_image(
        InstanceId=made,
        Name="web-1",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 9, "VolumeType": "gp3", "DeleteOnTermination": False}},
            {"DeviceName": "/dev/sdf", "NoDevice": ""},
            {"DeviceName": "/dev/sdi", "Ebs": {"VolumeSize": 4}},
            {"DeviceName": "/dev/sdj", "VirtualName": "ephemeral1"},
        ],
    )["ImageId"]
    found = mappings(ec2, available(ec2, created))
    assert set(found) == {"/dev/xvda", "/dev/sdg", "/dev/sdi", "/dev/sdj"}
    root = found["/dev/xvda"]
    assert (root["VolumeSize"], root["VolumeType"], root["DeleteOnTermination"]) == (9, "gp3", False)
    assert "SnapshotId" not in found["/dev/sdi"]
    assert found["/dev/sdj"] == "ephemeral1"
    assert len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 2, "none of what is left out"
    launched = running(ec2, ImageId=created)
    sizes = {v["Attachments"][0]["Device"]: v["Size"] for v in volumes_of(ec2, launched)}
    assert sizes == {"/dev/xvda": 9, "/dev/sdg": 3, "/dev/sdi": 4}


def volumes_of(ec2: Any, instance_id: str) -> Any:
    wanted = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    return ec2.describe_volumes(Filters=wanted)["Volumes"]


def test_a_volume_cannot_shrink_or_be_mapped_twice(ec2: Any) -> None:
    made = stopped(ec2, BlockDeviceMappings=DATA[:1])
    with refused("InvalidBlockDeviceMapping"):
        ec2.create_image(
            InstanceId=made,
            Name="web-1",
            BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}],
        )
    with refused("InvalidBlockDeviceMapping"):
        ec2.create_image(InstanceId=made, Name="web-1", BlockDeviceMappings=DATA[:1] * 2)
    assert ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_product_codes_and_billing_are_kept_by_create_image_alone(cloud: Cloud, ec2: Any) -> None:
    sold = available(ec2, register(ec2, snapshot_of(ec2, stopped(ec2)), "sold"))
    licence = {"platform_details": "Red Hat Enterprise Linux", "usage_operation": "RunInstances:0010"}
    cloud.admin("POST", "licences", {"image": sold, "product_codes": ["abc123"], **licence})
    codes = [{"ProductCodeId": "abc123", "ProductCodeType": "marketplace"}]
    made = stopped(ec2, ImageId=sold)
    for described in (image(ec2, sold), instance(ec2, made)):
        assert described["ProductCodes"] == codes
        assert described["PlatformDetails"] == "Red Hat Enterprise Linux"
        assert described["UsageOperation"] == "RunInstances:0010"
    kept = image(ec2, available(ec2, ec2.create_image(InstanceId=made, Name="kept")["ImageId"]))
    assert (kept["ProductCodes"], kept["UsageOperation"]) == (codes, "RunInstances:0010")
    lost = image(ec2, available(ec2, register(ec2, snapshot_of(ec2, made), "lost")))
    assert (lost["ProductCodes"], lost["UsageOperation"], lost["PlatformDetails"]) == (
        codes,
        "RunInstances",
        "Linux/UNIX",
    )
    assert found_by(ec2, "product-code", "abc123") == {"sold", "kept", "lost"}
    assert found_by(ec2, "usage-operation", "RunInstances:0010") == {"sold", "kept"}


def found_by(ec2: Any, name: str, value: str) -> set[str]:
    answer = ec2.describe_images(Owners=["self"], Filters=[{"Name": name, "Values": [value]}])
    return {one["Name"] for one in answer["Images"]}


def test_an_image_with_product_or_billing_codes_is_copied_only_within_its_account(cloud: Cloud, ec2: Any) -> None:
    sold = available(ec2, register(ec2, snapshot_of(ec2, stopped(ec2)), "sold"))
    other = cloud.client(other=True)
    user = {"Add": [{"UserId": OTHER_ACCOUNT}]}
    ec2.modify_image_attribute(ImageId=sold, LaunchPermission=user)
    snapshot = image(ec2, sold)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    ec2.modify_snapshot_attribute(SnapshotId=snapshot, CreateVolumePermission=user)
    for licence in ({"product_codes": ["abc123"]}, {"product_codes": [], "usage_operation": "RunInstances:0010"}):
        cloud.admin("POST", "licences", {"image": sold, **licence})
        with refused("InvalidRequest"):
            other.copy_image(SourceRegion="us-east-1", SourceImageId=sold, Name="theirs")
    copied = ec2.copy_image(SourceRegion="us-east-1", SourceImageId=sold, Name="ours")["ImageId"]
    assert image(ec2, available(ec2, copied))["UsageOperation"] == "RunInstances:0010"


def test_billing_products_are_for_those_whom_aws_authorized(ec2: Any) -> None:
    with refused("AuthFailure"):
        register(ec2, snapshot_of(ec2, stopped(ec2)), "web-1", BillingProducts=["bp-6ba54002"])


def test_volumes_have_the_launchs_tags(ec2: Any) -> None:
    tags = [{"Key": "run", "Value": "7f3a"}]
    made = running(
        ec2,
        ImageId=base_image(ec2),
        BlockDeviceMappings=DATA,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )
    assert [volume["Tags"] for volume in volumes_of(ec2, made)] == [tags] * 3
    assert root_volume(ec2, made)
