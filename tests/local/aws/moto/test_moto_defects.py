"""Defects of stock moto that the local cloud must not have: each test here fails against moto itself.

Every test runs twice, against the gateway and against moto's own server; the second is expected to fail, strictly:
a defect that moto mends turns up here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from tests.local.aws.harness import SESSION, Cloud, available, base_image, image, refused, until

MOTO = "stock moto"


@pytest.fixture(scope="module")
def moto_endpoint() -> Iterator[str]:
    environ = {**os.environ, "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                yield found[0]
                break
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


class Clouds:
    """EC2 clients of the cloud under test, by region, and an image that it has."""

    def __init__(self, which: str, request: pytest.FixtureRequest) -> None:
        self._which = which
        self._request = request

    def __call__(self, region: str = "us-east-1", service: str = "ec2") -> Any:
        if self._which == MOTO:
            return SESSION.client(
                service,
                region_name=region,
                endpoint_url=self._request.getfixturevalue("moto_endpoint"),
                aws_access_key_id="x",
                aws_secret_access_key="x",
                config=Config(retries={"total_max_attempts": 1}),
            )
        cloud: Cloud = self._request.getfixturevalue("cloud")
        return cloud.client(service, region)

    def hold_boots(self) -> threading.Event:
        """No machine of the gateway is up until this is set; moto has none."""
        held = threading.Event()
        if self._which != MOTO:
            cloud: Cloud = self._request.getfixturevalue("cloud")
            cloud.driver.gate = held
        return held

    @property
    def image_id(self) -> str:
        return "ami-12c6146b" if self._which == MOTO else base_image(self())


@pytest.fixture(
    params=[
        "the gateway",
        pytest.param(
            MOTO,
            marks=pytest.mark.xfail(strict=True, raises=(AssertionError, ClientError, KeyError, ResponseParserError)),
        ),
    ]
)
def clouds(request: pytest.FixtureRequest) -> Clouds:
    return Clouds(request.param, request)


def run(clouds: Clouds, **params: Any) -> list[Any]:
    request = {"ImageId": clouds.image_id, "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1, **params}
    return list(clouds().run_instances(**request)["Instances"])


def launched(clouds: Clouds, **params: Any) -> Any:
    """One instance, described once it runs."""
    [made] = run(clouds, **params)

    def found() -> Any:
        return clouds().describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0]["Instances"][0]

    until(lambda: found()["State"]["Name"] == "running")
    return found()


def created(clouds: Clouds, name: str, **params: Any) -> Any:
    """An image of a new instance, described once it is there."""
    image_id = clouds().create_image(InstanceId=launched(clouds)["InstanceId"], Name=name, **params)["ImageId"]
    return image(clouds(), available(clouds(), image_id))


def snapshots_of(clouds: Clouds, described: Any, region: str = "us-east-1") -> list[Any]:
    ids = [mapping["Ebs"]["SnapshotId"] for mapping in described["BlockDeviceMappings"] if "Ebs" in mapping]
    return list(clouds(region).describe_snapshots(SnapshotIds=ids)["Snapshots"])


def test_a_client_token_launches_once(clouds: Clouds) -> None:
    first, again = (run(clouds, ClientToken="once")[0]["InstanceId"] for _ in range(2))
    assert first == again


def test_as_many_instances_are_launched_as_were_asked_for_at_most(clouds: Clouds) -> None:
    assert len(run(clouds, MinCount=1, MaxCount=3)) == 3


def test_iops_and_throughput_are_kept(clouds: Clouds) -> None:
    wanted = {"VolumeSize": 20, "VolumeType": "gp3", "Iops": 4000, "Throughput": 200}
    found = launched(clouds, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": wanted}])
    volume_id = found["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    [volume] = clouds().describe_volumes(VolumeIds=[volume_id])["Volumes"]
    assert (volume.get("Iops"), volume.get("Throughput")) == (4000, 200)


def test_an_instance_has_the_volumes_that_its_image_maps(clouds: Clouds) -> None:
    two = [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2, "VolumeType": "gp3"}}]
    instance_id = launched(clouds, BlockDeviceMappings=two)["InstanceId"]
    image_id = clouds().create_image(InstanceId=instance_id, Name="two-volumes")["ImageId"]
    available(clouds(), image_id)
    found = launched(clouds, ImageId=image_id)
    devices = {mapping["DeviceName"]: mapping["Ebs"]["VolumeId"] for mapping in found["BlockDeviceMappings"]}
    assert set(devices) == {"/dev/xvda", "/dev/sdf"}
    [volume] = clouds().describe_volumes(VolumeIds=[devices["/dev/sdf"]])["Volumes"]
    assert volume["Size"] == 2


def test_a_taken_address_is_refused_by_name(clouds: Clouds) -> None:
    found = launched(clouds)
    with refused("InvalidIPAddress.InUse"):
        run(clouds, SubnetId=found["SubnetId"], PrivateIpAddress=found["PrivateIpAddress"])


def test_an_instance_is_pending_before_it_runs(clouds: Clouds) -> None:
    boots = clouds.hold_boots()
    try:
        [made] = run(clouds)
        [found] = clouds().describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0]["Instances"]
        assert found["State"]["Name"] == "pending"
    finally:
        boots.set()


def test_an_image_of_an_instance_has_the_size_of_its_volumes(clouds: Clouds) -> None:
    disk = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 9}}]
    instance_id = launched(clouds, BlockDeviceMappings=disk)["InstanceId"]
    image_id = clouds().create_image(InstanceId=instance_id, Name="sized")["ImageId"]
    [snapshot] = snapshots_of(clouds, image(clouds(), available(clouds(), image_id)))
    assert snapshot["VolumeSize"] == 9


def test_the_snapshots_of_an_image_have_their_tags(clouds: Clouds) -> None:
    tags = [{"Key": "run", "Value": "7f3a"}]
    kinds = [{"ResourceType": "image", "Tags": tags}, {"ResourceType": "snapshot", "Tags": tags}]
    found = created(clouds, "tagged", TagSpecifications=kinds)
    assert found["Tags"] == tags
    assert [snapshot["Tags"] for snapshot in snapshots_of(clouds, found)] == [tags]


def test_an_image_may_leave_out_and_change_the_instances_devices(clouds: Clouds) -> None:
    two = [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2}}]
    instance_id = launched(clouds, BlockDeviceMappings=two)["InstanceId"]
    changes = [
        {"DeviceName": "/dev/sdf", "NoDevice": ""},
        {"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": False}},
    ]
    image_id = clouds().create_image(InstanceId=instance_id, Name="one", BlockDeviceMappings=changes)["ImageId"]
    [mapping] = image(clouds(), available(clouds(), image_id))["BlockDeviceMappings"]
    assert (mapping["DeviceName"], mapping["Ebs"]["DeleteOnTermination"]) == ("/dev/xvda", False)


def test_a_name_can_be_used_once(clouds: Clouds) -> None:
    created(clouds, "web-1")
    with refused("InvalidAMIName.Duplicate"):
        created(clouds, "web-1")


def test_a_registered_image_is_described_as_registered(clouds: Clouds) -> None:
    snapshot_id = snapshots_of(clouds, created(clouds, "source"))[0]["SnapshotId"]
    image_id = clouds().register_image(
        Name="registered",
        Architecture="x86_64",
        VirtualizationType="hvm",
        RootDeviceName="/dev/xvda",
        EnaSupport=True,
        SriovNetSupport="simple",
        BootMode="uefi",
        TpmSupport="v2.0",
        ImdsSupport="v2.0",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id, "VolumeType": "gp3"}},
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        ],
    )["ImageId"]
    found = image(clouds(), available(clouds(), image_id))
    assert found["EnaSupport"]
    assert (found["BootMode"], found["TpmSupport"], found["ImdsSupport"]) == ("uefi", "v2.0", "v2.0")
    assert (found["SriovNetSupport"], found["RootDeviceName"]) == ("simple", "/dev/xvda")
    root, other = found["BlockDeviceMappings"]
    assert (root["Ebs"]["SnapshotId"], root["Ebs"]["VolumeType"]) == (snapshot_id, "gp3")
    assert other == {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}


def test_a_bundle_does_not_come_back_as_a_snapshot(clouds: Clouds) -> None:
    """To boot bundles is still to come; until then they are refused by name."""
    with refused("UnsupportedOperation"):
        clouds().register_image(Name="bundle", ImageLocation="bucket/image.manifest.xml")


def test_a_copy_is_encrypted_tagged_sized_and_made_once(clouds: Clouds) -> None:
    source = created(clouds, "source")
    tags = [{"Key": "run", "Value": "7f3a"}]
    kms = clouds("eu-west-1", "kms")
    key = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName="alias/images", TargetKeyId=key["KeyId"])

    def copy() -> str:
        answer = clouds("eu-west-1").copy_image(
            SourceRegion="us-east-1",
            SourceImageId=source["ImageId"],
            Name="copy",
            ClientToken="once",
            Encrypted=True,
            KmsKeyId="alias/images",
            TagSpecifications=[
                {"ResourceType": "image", "Tags": tags},
                {"ResourceType": "snapshot", "Tags": tags},
            ],
        )
        return str(answer["ImageId"])

    first, again = copy(), copy()
    assert first == again
    found = image(clouds("eu-west-1"), available(clouds("eu-west-1"), first))
    [snapshot] = snapshots_of(clouds, found, "eu-west-1")
    assert (snapshot["Encrypted"], snapshot["KmsKeyId"], snapshot["Tags"]) == (True, key["Arn"], tags)
    assert snapshot["VolumeSize"] == snapshots_of(clouds, source)[0]["VolumeSize"]
    assert (found["SourceImageId"], found["SourceImageRegion"]) == (source["ImageId"], "us-east-1")
    assert found["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]


def test_an_image_can_be_deprecated(clouds: Clouds) -> None:
    found = created(clouds, "old")
    clouds().enable_image_deprecation(ImageId=found["ImageId"], DeprecateAt="2030-01-01T00:00:00Z")
    assert image(clouds(), found["ImageId"])["DeprecationTime"] == "2030-01-01T00:00:00.000Z"


def test_an_image_can_be_protected_from_deregistration(clouds: Clouds) -> None:
    image_id = created(clouds, "dear")["ImageId"]
    clouds().enable_image_deregistration_protection(ImageId=image_id)
    with refused("OperationNotPermitted"):
        clouds().deregister_image(ImageId=image_id)
    clouds().disable_image_deregistration_protection(ImageId=image_id)
    clouds().deregister_image(ImageId=image_id)


def test_deregistering_deletes_the_snapshots_if_asked(clouds: Clouds) -> None:
    found = created(clouds, "gone")
    [snapshot_id] = [snapshot["SnapshotId"] for snapshot in snapshots_of(clouds, found)]
    answer = clouds().deregister_image(ImageId=found["ImageId"], DeleteAssociatedSnapshots=True)
    assert answer["DeleteSnapshotResults"] == [{"SnapshotId": snapshot_id, "ReturnCode": "success"}]
    with refused("InvalidSnapshot.NotFound"):
        clouds().describe_snapshots(SnapshotIds=[snapshot_id])


def test_a_security_group_in_use_is_not_deleted(clouds: Clouds) -> None:
    group = clouds().create_security_group(GroupName="in-use", Description="x")["GroupId"]
    launched(clouds, SecurityGroupIds=[group])
    with refused("DependencyViolation"):
        clouds().delete_security_group(GroupId=group)


def test_a_key_pair_is_deleted_by_its_id(clouds: Clouds) -> None:
    identifier = clouds().create_key_pair(KeyName="by-id", KeyType="ed25519")["KeyPairId"]
    clouds().delete_key_pair(KeyPairId=identifier)
    assert "by-id" not in {pair["KeyName"] for pair in clouds().describe_key_pairs()["KeyPairs"]}


def test_images_come_in_pages(clouds: Clouds) -> None:
    for number in range(3):
        created(clouds, f"page-{number}")
    pages = clouds().get_paginator("describe_images").paginate(Owners=["self"], PaginationConfig={"PageSize": 2})
    sizes = [len(page["Images"]) for page in pages]
    assert max(sizes) == 2
    assert sum(sizes) >= 3


def test_snapshots_are_listed_by_owner(clouds: Clouds) -> None:
    created(clouds, "mine")
    assert clouds().describe_snapshots(OwnerIds=["999999999999"])["Snapshots"] == []


def test_images_are_found_by_a_pattern_of_their_creation_date(clouds: Clouds) -> None:
    found = created(clouds, "dated")
    day = found["CreationDate"][:10]

    def by(pattern: str) -> list[Any]:
        answer = clouds().describe_images(Owners=["self"], Filters=[{"Name": "creation-date", "Values": [pattern]}])
        return [one for one in answer["Images"] if one["Name"] == "dated"]

    assert len(by(f"{day}T*")) == 1
    assert by("1999-*") == []


def test_the_console_is_the_machines_own(clouds: Clouds) -> None:
    first, second = launched(clouds)["InstanceId"], launched(clouds)["InstanceId"]
    outputs = {clouds().get_console_output(InstanceId=each).get("Output") for each in (first, second)}
    assert len(outputs) == 2


def test_an_unknown_action_is_not_answered_with_a_web_page(clouds: Clouds) -> None:
    with pytest.raises(ClientError) as caught:
        clouds().export_image(ImageId="ami-12345678", DiskImageFormat="RAW", S3ExportLocation={"S3Bucket": "b"})
    assert caught.value.response["Error"]["Code"] == "UnsupportedOperation"


def test_a_new_region_has_the_clouds_own_network_only(clouds: Clouds) -> None:
    """moto's own default network is not one that this computer can reach without routes."""
    [vpc] = clouds("ap-south-1").describe_vpcs()["Vpcs"]
    assert vpc["CidrBlock"] == "127.42.0.0/16"
