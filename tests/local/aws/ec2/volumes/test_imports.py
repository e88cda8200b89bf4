"""ImportSnapshot: disk images in S3 become snapshots."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from imagepipe.local.aws.faults.faults import Fault
from tests.local.aws.harness import Cloud, available, image, launch, refused, register, until

DISK = bytes(range(256)) * 4096  # 1 MiB
TRUST = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "vmie.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
BUCKET = "disks"


@pytest.fixture
def ready(cloud: Cloud) -> Cloud:
    """A cloud with a bucket, and with the role that imports need."""
    cloud.client("iam").create_role(RoleName="vmimport", AssumeRolePolicyDocument=json.dumps(TRUST))
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    return cloud


def start(cloud: Cloud, body: bytes = DISK, form: str = "RAW", **more: Any) -> str:
    cloud.client("s3").put_object(Bucket=BUCKET, Key="disk", Body=body)
    container = {"Format": form, "UserBucket": {"S3Bucket": BUCKET, "S3Key": "disk"}}
    return str(cloud.client().import_snapshot(DiskContainer=container, **more)["ImportTaskId"])


def task(cloud: Cloud, identifier: str) -> dict[str, Any]:
    answer = cloud.client().describe_import_snapshot_tasks(ImportTaskIds=[identifier])
    return dict(answer["ImportSnapshotTasks"][0]["SnapshotTaskDetail"])


def ended(cloud: Cloud, identifier: str) -> dict[str, Any]:
    until(lambda: task(cloud, identifier)["Status"] != "active")
    return task(cloud, identifier)


def test_a_raw_disk_becomes_a_snapshot_that_an_image_can_be_registered_from(ready: Cloud) -> None:
    ec2 = ready.client()
    tags = [{"ResourceType": "import-snapshot-task", "Tags": [{"Key": "team", "Value": "web"}]}]
    made = start(ready, Description="our disk", TagSpecifications=tags)
    ec2.get_waiter("snapshot_imported").wait(ImportTaskIds=[made], WaiterConfig={"Delay": 0.01, "MaxAttempts": 500})
    found = task(ready, made)
    assert (found["Status"], found["DiskImageSize"], found["Format"]) == ("completed", len(DISK), "RAW")
    [snapshot] = ec2.describe_snapshots(SnapshotIds=[found["SnapshotId"]])["Snapshots"]
    assert (snapshot["State"], snapshot["VolumeSize"], snapshot["Description"]) == ("completed", 1, "our disk")
    kept = ready.disks / "snapshots" / f"{found['SnapshotId']}.raw"
    assert kept.read_bytes()[: len(DISK)] == DISK
    assert kept.stat().st_size == 1 << 30
    built = available(ec2, register(ec2, found["SnapshotId"], "imported"))
    assert image(ec2, built)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == found["SnapshotId"]
    launch(ec2, ImageId=built)
    by_tag = [{"Name": "tag:team", "Values": ["web"]}]
    [same] = ec2.describe_import_snapshot_tasks(Filters=by_tag)["ImportSnapshotTasks"]
    assert same["ImportTaskId"] == made


@pytest.mark.parametrize("url", ["s3://disks/disk", "https://disks.s3.us-east-1.amazonaws.com/disk"])
def test_the_object_can_be_named_by_a_url(ready: Cloud, url: str) -> None:
    ready.client("s3").put_object(Bucket=BUCKET, Key="disk", Body=DISK)
    made = ready.client().import_snapshot(DiskContainer={"Format": "raw", "Url": url})["ImportTaskId"]
    found = ended(ready, made)
    assert (found["Status"], found["Url"]) == ("completed", url)


def test_progress_is_described_while_the_disk_is_read(ready: Cloud) -> None:
    ready.gateway.backend.job_queues.set_delay("import", 60)
    found = task(ready, start(ready))
    assert (found["Status"], found["Progress"], found["StatusMessage"]) == ("active", "0", "pending")
    assert "SnapshotId" not in found


@pytest.mark.parametrize(
    ("body", "key", "says"),
    [(b"", "disk", "a disk of 0 bytes"), (DISK, "other", "The object other does not exist in bucket disks")],
)
def test_a_failed_import_says_why(ready: Cloud, body: bytes, key: str, says: str) -> None:
    ready.client("s3").put_object(Bucket=BUCKET, Key="disk", Body=body)
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": key}}
    found = ended(ready, ready.client().import_snapshot(DiskContainer=container)["ImportTaskId"])
    assert found["Status"] == "error"
    assert found["StatusMessage"].startswith("ClientError: ")
    assert says in found["StatusMessage"]
    assert ready.client().describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_a_bucket_of_another_region_is_refused(ready: Cloud) -> None:
    west = {"LocationConstraint": "us-west-2"}
    ready.client("s3", "us-west-2").create_bucket(Bucket="west", CreateBucketConfiguration=west)
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": "west", "S3Key": "disk"}}
    found = ended(ready, ready.client().import_snapshot(DiskContainer=container)["ImportTaskId"])
    assert "west is in us-west-2" in found["StatusMessage"]


def test_an_active_import_is_cancelled_and_leaves_no_snapshot(ready: Cloud) -> None:
    ready.gateway.backend.job_queues.set_delay("import", 60)
    ec2, made = ready.client(), start(ready)
    answer = ec2.cancel_import_task(ImportTaskId=made, CancelReason="wrong disk")
    assert (answer["PreviousState"], answer["State"]) == ("active", "deleting")
    assert (task(ready, made)["Status"], task(ready, made)["StatusMessage"]) == ("deleted", "wrong disk")
    with refused("IncorrectState"):
        ec2.cancel_import_task(ImportTaskId=made)
    assert list((ready.disks / "snapshots").glob("snap-*.raw")) == [
        ready.disks / "snapshots" / f"{each['SnapshotId']}.raw" for each in ec2.describe_snapshots()["Snapshots"]
    ]


def test_an_import_of_a_process_that_died_is_finished_by_the_next(ready: Cloud) -> None:
    ready.gateway.backend.faults.add(Fault(effect="hang", action="ImportSnapshot"))
    made = start(ready)
    until(lambda: task(ready, made)["Status"] == "active")
    ready.restart()
    assert ended(ready, made)["Status"] == "completed"


def test_an_encrypted_import_has_the_key(ready: Cloud) -> None:
    key = ready.client("kms").create_key()["KeyMetadata"]["Arn"]
    found = ended(ready, start(ready, Encrypted=True, KmsKeyId=key))
    [snapshot] = ready.client().describe_snapshots(SnapshotIds=[found["SnapshotId"]])["Snapshots"]
    assert (snapshot["Encrypted"], snapshot["KmsKeyId"]) == (True, key)


def test_an_import_without_its_role_is_refused(cloud: Cloud) -> None:
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    with refused("InvalidParameter", match="service role vmimport provided does not exist"):
        start(cloud)


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("VMDK", ["-O", "vmdk", "-o", "subformat=streamOptimized"]),
        ("VMDK", ["-O", "vmdk"]),
        ("VHD", ["-O", "vpc", "-o", "force_size=on"]),
        ("VHD", ["-O", "vpc", "-o", "subformat=fixed,force_size=on"]),
    ],
)
def test_disks_of_virtual_machines_are_made_raw(ready: Cloud, tmp_path: Path, form: str, options: list[str]) -> None:
    source, made = tmp_path / "disk.raw", tmp_path / "disk"
    source.write_bytes(DISK)
    subprocess.run(["qemu-img", "convert", "-f", "raw", *options, str(source), str(made)], check=True)
    found = ended(ready, start(ready, made.read_bytes(), form))
    assert found["Status"] == "completed", found
    kept = ready.disks / "snapshots" / f"{found['SnapshotId']}.raw"
    assert kept.read_bytes()[: len(DISK)] == DISK


def _vmdk(text: str) -> bytes:
    header = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, 2048, 128, 1, 20)
    return header.ljust(512, b"\0") + text.encode().ljust(20 * 512, b"\0")


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
@pytest.mark.parametrize(
    ("form", "body", "says"),
    [
        ("VMDK", b'# Disk DescriptorFile\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/shadow" 0\n', "does not begin"),
        ("VMDK", _vmdk('createType="monolithicFlat"\nRW 8 FLAT "/etc/shadow" 0\n'), "its type is monolithicFlat"),
        ("VMDK", _vmdk('createType="monolithicSparse"\nparentFileNameHint="/etc/shadow"\n'), "it needs a parent"),
        ("VMDK", struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, 0, 128, 1, 20).ljust(4096, b"\0"), "names other files"),
        ("VHD", DISK, "does not end with the footer"),
        ("VHD", DISK + b"conectix".ljust(60, b"\0") + (4).to_bytes(4, "big") + bytes(448), "its type is 4"),
    ],
    ids=["text", "flat", "parent", "no capacity", "raw", "differencing"],
)
def test_a_disk_that_could_name_other_files_is_refused_before_qemu_opens_it(
    ready: Cloud, form: str, body: bytes, says: str
) -> None:
    found = ended(ready, start(ready, body, form))
    assert found["Status"] == "error"
    assert says in found["StatusMessage"]
