"""Snapshots, as DescribeSnapshots describes them."""

from __future__ import annotations

from tests.local.aws import harness
from tests.local.aws.harness import Cloud


def test_a_completed_snapshot_shows_the_size_of_its_blocks(cloud: Cloud) -> None:
    ec2 = cloud.client()
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    [described] = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    blocks = next(cloud.disks.rglob(f"{snapshot}.raw")).stat().st_blocks
    assert described["FullSnapshotSizeInBytes"] == blocks * 512
    assert described["FullSnapshotSizeInBytes"] <= described["VolumeSize"] << 30
