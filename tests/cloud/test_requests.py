"""What EC2 is told of the disks: the very types, whole, and nothing that it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from imagepipe.cloud.snapshots import Snapshot
from imagepipe.errors import CloudError
from tests.account import Account
from tests.local.aws import harness

TYPES: dict[str, dict[str, Any]] = {
    "gp3": {"VolumeType": "gp3", "Iops": 4000, "Throughput": 250},
    "gp2": {"VolumeType": "gp2"},
    "io2": {"VolumeType": "io2", "Iops": 500},
    "st1": {"VolumeType": "st1", "VolumeSize": 125},
}


def _snapshots(account: Account, instance: str) -> list[Snapshot]:
    return account.ec2.snapshots.create(instance, description="x", token="t-1", tags={"imagepipe:token": "t-1"})


@pytest.mark.parametrize("kind", TYPES)
def test_a_mapping_makes_the_volume_that_was_captured_again(account: Account, kind: str) -> None:
    ec2 = account.cloud.client()
    wanted = {"VolumeSize": 8, **TYPES[kind]}
    instance = harness.stopped(ec2, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": wanted}])
    made = {snapshot.device: snapshot for snapshot in _snapshots(account, instance)}
    assert made.keys() == {"/dev/xvda", "/dev/sdf"}
    harness.until(lambda: _completed(account, made["/dev/sdf"].id))
    mappings = [snapshot.mapping(delete_on_termination=True) for snapshot in made.values()]
    ec2.register_image(Name="again", VirtualizationType="hvm", RootDeviceName="/dev/xvda", BlockDeviceMappings=mappings)
    image = ec2.describe_images(Filters=[{"Name": "name", "Values": ["again"]}])["Images"][0]
    found = next(m["Ebs"] for m in image["BlockDeviceMappings"] if m["DeviceName"] == "/dev/sdf")
    assert found.items() >= TYPES[kind].items()


def test_snapshots_that_are_not_of_all_disks_are_an_error(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = account.cloud.client()
    instance = harness.stopped(ec2, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}])
    account.fault("cut-after", "CreateSnapshots")  # its answer is lost, and what it made is seen late
    seen = account.ec2.snapshots.of_token
    monkeypatch.setattr(account.ec2.snapshots, "of_token", lambda token: seen(token)[:1])
    with pytest.raises(CloudError, match="no snapshot of vol-"):
        _snapshots(account, instance)


def _completed(account: Account, snapshot: str) -> bool:
    return bool(account.ec2.snapshots.describe_many([snapshot])[snapshot]["State"] == "completed")
