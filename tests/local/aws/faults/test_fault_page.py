"""Every example of `docs/how-to/faults.md`, set as `imagepipe local faults FILE` does: it does what the page says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from imagepipe.cli.local_faults import read_faults
from imagepipe.local.client import admin
from imagepipe.local.client.connect import LocalCloud
from tests.cli.test_local_faults import EXAMPLES, written
from tests.local.aws.harness import (
    KEY_ID,
    SECRET,
    Cloud,
    base_image,
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

Put = Callable[[str], None]


@pytest.fixture
def put(cloud: Cloud, tmp_path: Path) -> Put:
    """Sets the faults of an example, as `imagepipe local faults FILE` does."""

    def put(example: str) -> None:
        found = read_faults(written(tmp_path, example))
        admin.set_faults(LocalCloud(cloud.endpoint, KEY_ID, SECRET, "us-east-1"), found.faults, found.seed)

    return put


def _dice(cloud: Cloud, ec2: Any) -> None:
    outcomes = []
    for _ in range(12):
        try:
            launch(ec2)
            outcomes.append("well")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
    assert outcomes[0] == "well"
    assert outcomes.count("InsufficientInstanceCapacity") == 2
    launch(ec2, InstanceType="m3.medium")


def _throttled(cloud: Cloud, ec2: Any) -> None:
    for _ in range(5):
        with refused("RequestLimitExceeded"):
            ec2.describe_volumes()
    ec2.describe_volumes()


def _no_spot(cloud: Cloud, ec2: Any) -> None:
    with refused("InsufficientInstanceCapacity", match="sufficient capacity"):
        launch(ec2, InstanceMarketOptions={"MarketType": "spot"})
    launch(ec2)


def _service_errors(cloud: Cloud, ec2: Any) -> None:
    with pytest.raises(ClientError, match="InternalError") as caught:
        ec2.create_snapshots(InstanceSpecification={"InstanceId": "i-00000000"})
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    with pytest.raises(ClientError, match="Unavailable") as caught:
        ec2.register_image(Name="web")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503


def _slow_down(cloud: Cloud, ec2: Any) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="a-bucket")
    s3.put_object(Bucket="a-bucket", Key="q/1", Body=b"1")
    for _ in range(3):
        with refused("SlowDown"):
            s3.put_object(Bucket="a-bucket", Key="p/1", Body=b"1")
    s3.put_object(Bucket="a-bucket", Key="p/1", Body=b"1")


def _slow(cloud: Cloud, ec2: Any) -> None:
    began = time.monotonic()
    ec2.describe_images(Owners=["self"])
    ec2.create_security_group(GroupName="web", Description="web")
    assert time.monotonic() - began >= 0.8


def _groups(ec2: Any) -> list[str]:
    return sorted(group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"])


def _cut_before(cloud: Cloud, ec2: Any) -> None:
    with pytest.raises(ConnectionClosedError):
        ec2.create_security_group(GroupName="web", Description="web")
    assert _groups(ec2) == ["default"]


def _cut_after(cloud: Cloud, ec2: Any) -> None:
    with pytest.raises(ConnectionClosedError):
        ec2.create_security_group(GroupName="web", Description="web")
    assert _groups(ec2) == ["default", "web"]


def _hidden(cloud: Cloud, ec2: Any) -> None:
    made = launch(ec2)
    with refused("InvalidInstanceID.NotFound", match=made):
        ec2.describe_instances(InstanceIds=[made])
    with refused("InvalidInstanceID.NotFound"):
        ec2.create_tags(Resources=[made], Tags=[{"Key": "a", "Value": "b"}])
    assert ec2.describe_instances()["Reservations"] == []
    until(lambda: ec2.describe_instances()["Reservations"])
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    with refused("InvalidGroup.NotFound", match=group):
        ec2.describe_security_groups(GroupIds=[group])
    assert _groups(ec2) == ["default"]
    assert _groups(ec2) == ["default", "web"]


def _failed(cloud: Cloud, ec2: Any) -> None:
    made = stopped(ec2)
    lost = ec2.create_snapshot(VolumeId=root_volume(ec2, made))["SnapshotId"]
    until(lambda: ec2.describe_snapshots(SnapshotIds=[lost])["Snapshots"][0]["State"] == "error")
    said = ec2.describe_snapshots(SnapshotIds=[lost])["Snapshots"][0]["StateMessage"]
    assert said == "the disk cannot be read"
    [whole] = ec2.create_snapshots(InstanceSpecification={"InstanceId": made})["Snapshots"]
    until(lambda: ec2.describe_snapshots(SnapshotIds=[whole["SnapshotId"]])["Snapshots"][0]["State"] == "completed")
    lost = register(ec2, whole["SnapshotId"], "web-1")
    until(lambda: image(ec2, lost)["State"] == "failed")
    assert image(ec2, lost)["StateReason"]["Message"] == "the moon is full"


def _hangs(cloud: Cloud, ec2: Any) -> None:
    source = register(ec2, snapshot_of(ec2, stopped(ec2)), "web-1")
    until(lambda: image(ec2, source)["State"] == "available")
    there = cloud.client(region="us-west-2")
    copy = there.copy_image(SourceImageId=source, SourceRegion="us-east-1", Name="copy")["ImageId"]
    time.sleep(0.3)
    assert image(there, copy)["State"] == "pending"
    there.deregister_image(ImageId=copy)
    [snapshot] = there.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    there.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    assert there.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def _not_up(cloud: Cloud, ec2: Any) -> None:
    made = launch(ec2)
    until(lambda: state(ec2, made) == "terminated")
    assert instance(ec2, made)["StateReason"]["Code"] == "Server.InternalError"
    assert running(ec2)


def _dies(cloud: Cloud, ec2: Any) -> None:
    made = launch(ec2)  # it runs for a moment, which a slow computer does not see
    until(lambda: state(ec2, made) == "terminated")
    assert instance(ec2, made)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert ec2.describe_volumes()["Volumes"] == [], "its volumes went with it"


def _impaired(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    [found] = ec2.describe_instance_status(InstanceIds=[made])["InstanceStatuses"]
    assert found["InstanceStatus"]["Status"] == "impaired"


def _ssh(cloud: Cloud, ec2: Any) -> None:
    """The fault is injected; its effect on machines that have an SSH is tested in tests/machine/test_faults.py."""
    running(ec2)
    assert [name.split()[1] for name in cloud.admin("GET", "injected")] == ["RunInstances"]


def _skewed(cloud: Cloud, ec2: Any) -> None:
    with refused("RequestExpired"):
        ec2.describe_volumes()
    with refused("RequestTimeTooSkewed"):
        cloud.client("s3").list_buckets()
    assert cloud.admin("GET", "clock"), "the admin interface still answers"


def _expired(cloud: Cloud, ec2: Any) -> None:
    made = stopped(ec2)
    wanted = {"InstanceSpecification": {"InstanceId": made}}
    with refused("RequestExpired"):
        ec2.create_snapshots(**wanted)
    with refused("RequestExpired"):
        ec2.describe_volumes()
    with refused("ExpiredToken"):
        cloud.client("s3").list_buckets()
    cloud.client(other=True).describe_volumes()
    cloud.admin("DELETE", "faults")
    ec2.create_snapshots(**wanted)


SHOWN: list[Callable[[Cloud, Any], None]] = [
    _dice,
    _throttled,
    _no_spot,
    _service_errors,
    _slow_down,
    _slow,
    _cut_before,
    _cut_after,
    _hidden,
    _failed,
    _hangs,
    _not_up,
    _dies,
    _impaired,
    _ssh,
    _ssh,
    _skewed,
    _expired,
]
"""What each example of the page does, in the page's order."""


@pytest.mark.parametrize("number", range(len(SHOWN)), ids=[f"{n}{shows.__name__}" for n, shows in enumerate(SHOWN)])
def test_an_example_of_the_page_does_what_it_says(cloud: Cloud, put: Put, number: int) -> None:
    assert len(SHOWN) == len(EXAMPLES), "every example of the page is run"
    ec2 = cloud.client()
    base_image(ec2)
    put(EXAMPLES[number])
    SHOWN[number](cloud, ec2)


def test_the_same_seed_throws_the_same_dice(cloud: Cloud, put: Put) -> None:
    def thrown() -> Iterator[bool]:
        put("seed: 3\nfaults: [{effect: refuse, action: DescribeVolumes, probability: 0.5}]")
        ec2 = cloud.client()
        for _ in range(16):
            try:
                ec2.describe_volumes()
                yield False
            except ClientError:
                yield True

    first = list(thrown())
    assert first == list(thrown())
    assert 2 < sum(first) < 14
    assert cloud.admin("GET", "injected")["refuse DescribeVolumes"] == 2 * sum(first)
