"""What was answered is on disk: a cloud that is killed, and started again, has lost nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from imagepipe.errors import LocalCloudError
from imagepipe.local.aws.state.database import FORMAT
from tests.local.aws.harness import (
    ACCOUNT,
    BASE_BYTES,
    Cloud,
    available,
    base_image,
    image,
    instance,
    launch,
    register,
    root_volume,
    running,
    snapshot_of,
    state,
    stopped,
    until,
)

SERVE = """
import sys, threading
from pathlib import Path
from tests.local.aws.harness import Cloud
cloud = Cloud(root=Path(sys.argv[1]))
cloud.start()
print(cloud.port, flush=True)
threading.Event().wait()
"""


def described(ec2: Any) -> dict[str, Any]:
    """All that Describe calls tell."""
    answers = {
        name: getattr(ec2, f"describe_{name}")()
        for name in (
            "instances",
            "images",
            "snapshots",
            "volumes",
            "key_pairs",
            "security_groups",
            "security_group_rules",
            "tags",
            "vpcs",
            "subnets",
        )
    }
    for answer in answers.values():
        del answer["ResponseMetadata"]
    return answers


def make_some_of_everything(ec2: Any) -> None:
    ec2.create_key_pair(KeyName="key", KeyType="ed25519")
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]},
        ],
    )
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    ec2.create_tags(Resources=[vpc, group], Tags=[{"Key": "team", "Value": "web"}])
    ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")
    first = stopped(ec2, KeyName="key", SecurityGroupIds=[group])
    snapshot_id = snapshot_of(ec2, first)
    available(ec2, register(ec2, snapshot_id, "web-1"))


def test_after_a_restart_every_describe_answers_as_before(cloud: Cloud, ec2: Any) -> None:
    make_some_of_everything(ec2)
    before = described(ec2)
    cloud.restart()
    assert described(cloud.client()) == before


def test_a_sigkill_right_after_an_answer_loses_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    try:
        assert process.stdout is not None
        killed = Cloud(root=tmp_path, port=int(process.stdout.readline()))
        ec2, s3, ssm = killed.client(), killed.client("s3"), killed.client("ssm")
        s3.create_bucket(Bucket="bundles")
        ssm.put_parameter(Name="/images/web", Value="ami-1", Type="String")
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        made = launch(ec2, ClientToken="once")
        s3.put_object(Bucket="bundles", Key="web/part.0", Body=b"part" * 500_000)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    cloud = Cloud(root=tmp_path)
    cloud.start()
    try:
        ec2 = cloud.client()
        # Fake machines die with their process: whether it had started says what became of the instance.
        until(lambda: state(ec2, made) in ("running", "stopped"))
        assert launch(ec2, ClientToken="once") == made
        assert vpc in {found["VpcId"] for found in ec2.describe_vpcs()["Vpcs"]}
        assert cloud.client("ssm").get_parameter(Name="/images/web")["Parameter"]["Value"] == "ami-1"
        body = cloud.client("s3").get_object(Bucket="bundles", Key="web/part.0")["Body"].read()
        assert body == b"part" * 500_000
    finally:
        cloud.stop()


def test_parameters_buckets_and_objects_survive_with_their_metadata(cloud: Cloud) -> None:
    s3 = cloud.client("s3", region="eu-west-1")
    s3.create_bucket(Bucket="bundles", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_object(Bucket="bundles", Key="a b/ü", Body=b"one", Metadata={"token": "t1"}, ContentType="text/x")
    upload = s3.create_multipart_upload(Bucket="bundles", Key="large")["UploadId"]
    parts = []
    for number, size in ((1, 5 << 20), (2, 10)):
        part = s3.upload_part(
            Bucket="bundles", Key="large", UploadId=upload, PartNumber=number, Body=bytes([number]) * size
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
        cloud.restart()
        s3 = cloud.client("s3", region="eu-west-1")
    s3.complete_multipart_upload(Bucket="bundles", Key="large", UploadId=upload, MultipartUpload={"Parts": parts})
    ssm = cloud.client("ssm")
    ssm.put_parameter(Name="/images/web", Value="ami-1", Type="String", Tags=[{"Key": "team", "Value": "web"}])
    cloud.client("iam").create_user(UserName="builder")
    cloud.restart()
    s3, ssm = cloud.client("s3", region="eu-west-1"), cloud.client("ssm")
    found = s3.get_object(Bucket="bundles", Key="a b/ü")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (b"one", {"token": "t1"}, "text/x")
    assert s3.get_object(Bucket="bundles", Key="large")["Body"].read() == b"\1" * (5 << 20) + b"\2" * 10
    assert s3.get_bucket_location(Bucket="bundles")["LocationConstraint"] == "eu-west-1"
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/images/web")["TagList"]
    assert tags == [{"Key": "team", "Value": "web"}]
    assert cloud.client("iam").get_user(UserName="builder")["User"]["UserName"] == "builder"


def test_deleted_objects_leave_no_bytes(cloud: Cloud, tmp_path: Path) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles")
    s3.put_object(Bucket="bundles", Key="kept", Body=b"kept")
    s3.put_object(Bucket="bundles", Key="gone", Body=b"gone")
    s3.put_object(Bucket="bundles", Key="kept", Body=b"kept, again")
    s3.delete_object(Bucket="bundles", Key="gone")
    assert [path.read_bytes() for path in (tmp_path / "state" / "objects").iterdir()] == [b"kept, again"]


def test_another_accounts_objects_are_its_own_and_stay(cloud: Cloud) -> None:
    for other, bucket in ((False, "mine"), (True, "theirs")):
        s3 = cloud.client("s3", other=other)
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key="part", Body=bucket.encode())
    cloud.restart()
    for other, bucket in ((True, "theirs"), (False, "mine")):
        s3 = cloud.client("s3", other=other)
        assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == [bucket]
        s3.put_object(Bucket=bucket, Key="more", Body=b"more")
        assert s3.get_object(Bucket=bucket, Key="part")["Body"].read() == bucket.encode()


def test_a_restarted_cloud_adopts_machines_that_run(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    cloud.restart()
    assert state(cloud.client(), made) == "running"
    assert cloud.driver.calls.count(("start", made)) == 1
    until(lambda: ("set_ingress", made) in cloud.driver.calls)


def test_a_machine_that_died_with_its_cloud_leaves_its_instance_stopped(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    cloud.stop()
    cloud.driver.machines.clear()
    cloud.start()
    ec2 = cloud.client()
    until(lambda: state(ec2, made) == "stopped")
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "running")


def test_an_interrupted_first_boot_starts_with_new_disks(cloud: Cloud, ec2: Any) -> None:
    cloud.driver.gate = threading.Event()
    made = launch(ec2)
    disk = cloud.disks / "volumes" / f"{root_volume(ec2, made)}.raw"
    until(lambda: disk.exists() and ec2.describe_volumes()["Volumes"][0]["State"] == "in-use")
    with disk.open("r+b") as file:
        file.write(b"half of a first boot")
    copy = Cloud(root=cloud.root)  # the first one hangs in its start, as a killed one would be cut off there
    cloud.driver.fails = {"start"}
    copy.start()
    try:
        ec2 = copy.client()
        until(lambda: state(ec2, made) == "running")
        with disk.open("rb") as file:
            assert file.read(len(BASE_BYTES)) == BASE_BYTES
    finally:
        copy.stop()
        cloud.driver.gate.set()


def test_a_machine_of_nobody_is_reaped(cloud: Cloud, ec2: Any) -> None:
    kept, lost = running(ec2), running(ec2)
    machine = cloud.driver.machines[lost]
    ec2.terminate_instances(InstanceIds=[lost])
    until(lambda: state(ec2, lost) == "terminated")
    cloud.stop()
    cloud.driver.machines[lost] = machine
    cloud.start()
    until(lambda: set(cloud.driver.machines) == {kept})


@pytest.mark.parametrize("delayed", ["run", "stop", "terminate"])
def test_work_on_an_instance_that_a_restart_interrupts_is_finished_by_the_next_process(
    cloud: Cloud, ec2: Any, delayed: str
) -> None:
    ends = {"run": "running", "stop": "stopped", "terminate": "terminated"}
    if delayed == "run":
        cloud.stop()
        cloud.delays = {delayed: 60}
        cloud.start()
        made = launch(cloud.client())
    else:
        made = running(ec2)
        cloud.stop()
        cloud.delays = {delayed: 60}
        cloud.start()
        getattr(cloud.client(), f"{delayed}_instances")(InstanceIds=[made])
    assert state(cloud.client(), made) in ("pending", "stopping", "shutting-down")
    cloud.delays = {}
    cloud.restart()
    ec2 = cloud.client()
    until(lambda: state(ec2, made) == ends[delayed])


def test_snapshots_and_images_that_a_restart_interrupts_are_finished_by_the_next_process(
    cloud: Cloud, ec2: Any
) -> None:
    made = stopped(ec2)
    done = snapshot_of(ec2, made)
    cloud.stop()
    cloud.delays = {"snapshot": 60, "image": 60, "copy": 60}
    cloud.start()
    ec2, there = cloud.client(), cloud.client(region="eu-west-1")
    taken = ec2.create_snapshot(VolumeId=root_volume(ec2, made))["SnapshotId"]
    created = ec2.create_image(InstanceId=made, Name="created")["ImageId"]
    registered = register(ec2, done, "registered")
    copied = there.copy_image(SourceRegion="us-east-1", SourceImageId=base_image(ec2), Name="copied")["ImageId"]
    assert image(ec2, registered)["State"] == image(there, copied)["State"] == "pending"
    cloud.delays = {}
    cloud.restart()
    ec2, there = cloud.client(), cloud.client(region="eu-west-1")
    for client, image_id in ((ec2, created), (ec2, registered), (there, copied)):
        available(client, image_id)
    [snapshot] = ec2.describe_snapshots(SnapshotIds=[taken])["Snapshots"]
    assert (snapshot["State"], snapshot["Progress"]) == ("completed", "100%")
    [mapping] = image(there, copied)["BlockDeviceMappings"]
    assert (cloud.disks / "snapshots" / f"{mapping['Ebs']['SnapshotId']}.raw").read_bytes() == BASE_BYTES


def test_files_that_no_record_names_are_deleted_at_the_start(cloud: Cloud, ec2: Any) -> None:
    kept = root_volume(ec2, stopped(ec2))
    cloud.stop()
    for name in ("volumes/vol-0123456789abcdef0.raw", "snapshots/snap-0123456789abcdef0.raw"):
        (cloud.disks / name).write_bytes(b"left over")
    cloud.start()
    assert [path.stem for path in (cloud.disks / "volumes").iterdir()] == [kept]
    assert not list((cloud.disks / "snapshots").glob("snap-0123*"))


def test_records_of_a_newer_or_older_imagepipe_are_not_touched(cloud: Cloud, tmp_path: Path) -> None:
    import sqlite3

    def set_format(number: int) -> None:
        with sqlite3.connect(tmp_path / "state" / "gateway.sqlite") as db:
            db.execute(f"PRAGMA user_version = {number}")
        db.close()

    cloud.stop()
    for number, which in ((99, "newer"), (FORMAT - 1, "older")):
        set_format(number)
        with pytest.raises(LocalCloudError, match=f"format {number}, this imagepipe knows {FORMAT}") as caught:
            cloud.start()
        assert f"the {which} imagepipe that made this store, or set IMAGEPIPE_LOCAL_STORE" in str(caught.value.hint)
    set_format(FORMAT)
    cloud.start()


def test_the_records_are_readable_by_their_owner_alone(cloud: Cloud, tmp_path: Path, ec2: Any) -> None:
    running(ec2, UserData="#cloud-config\npassword: secret\n")
    for path in (tmp_path / "state").glob("gateway.sqlite*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_account_is_the_one_of_the_access_key(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    assert cloud.client("sts").get_caller_identity()["Account"] == ACCOUNT
    assert cloud.client("sts", other=True).get_caller_identity()["Account"] != ACCOUNT
    assert instance(ec2, made)["NetworkInterfaces"][0]["OwnerId"] == ACCOUNT
    assert cloud.client(other=True).describe_instances()["Reservations"] == []


def _objects(cloud: Cloud) -> set[str]:
    """The files of S3's objects; the database and the folder must have the same, and one blob for each key."""
    moto = cloud.gateway.backend.moto
    named = set(moto.s3._owners)
    assert named == {path.name for path in moto.objects.iterdir()}
    keys = {name for name, _ in cloud.gateway.backend.database.blobs() if name.startswith("s3-key/")}
    assert keys == {name for name in moto.s3._digests if name.startswith("s3-key/")}
    return named


def test_a_change_of_objects_writes_only_those_and_survives_a_restart(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles", ObjectOwnership="BucketOwnerPreferred")
    s3.delete_public_access_block(Bucket="bundles")
    for number in range(4):
        s3.put_object(Bucket="bundles", Key=f"part.{number}", Body=b"old", ACL="aws-exec-read")
    database = cloud.gateway.backend.moto._database
    written: list[str] = []
    write = database.write_blobs

    def noted(blobs: Mapping[str, bytes | None]) -> None:
        written.extend(blobs)
        write(blobs)

    monkeypatch.setattr(database, "write_blobs", noted)
    s3.put_object(Bucket="bundles", Key="part.1", Body=b"new")
    assert written == ["s3-key/000000000000/aws/bundles/part.1"], "none of the other three, nor the bucket"
    s3.put_object_tagging(Bucket="bundles", Key="part.2", Tagging={"TagSet": [{"Key": "team", "Value": "web"}]})
    s3.put_object_acl(Bucket="bundles", Key="part.3", ACL="public-read")
    s3.delete_objects(Bucket="bundles", Delete={"Objects": [{"Key": "part.0"}]})
    assert len(_objects(cloud)) == 3
    monkeypatch.undo()
    before = _told(s3)
    cloud.restart()
    assert _told(cloud.client("s3")) == before
    assert before["part.1"][0] == b"new"
    assert before["part.2"][1] == [{"Key": "team", "Value": "web"}]
    assert len(before["part.3"][2]) == 2
    assert len(_objects(cloud)) == 3


def _told(s3: Any) -> dict[str, tuple[bytes, Any, Any]]:
    """Bytes, tags and grants of each object."""
    return {
        key: (
            s3.get_object(Bucket="bundles", Key=key)["Body"].read(),
            s3.get_object_tagging(Bucket="bundles", Key=key)["TagSet"],
            s3.get_object_acl(Bucket="bundles", Key=key)["Grants"],
        )
        for key in (each["Key"] for each in s3.list_objects_v2(Bucket="bundles")["Contents"])
    }


def test_versions_of_an_object_and_the_parts_of_an_upload_survive_writes_beside_them(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles")
    s3.put_bucket_versioning(Bucket="bundles", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="bundles", Key="a", Body=b"1")["VersionId"]
    s3.put_object(Bucket="bundles", Key="a", Body=b"2")
    upload = s3.create_multipart_upload(Bucket="bundles", Key="large")["UploadId"]
    tag = s3.upload_part(Bucket="bundles", Key="large", UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    s3.complete_multipart_upload(
        Bucket="bundles", Key="large", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]}
    )
    s3.put_object(Bucket="bundles", Key="b", Body=b"beside")
    s3.delete_object(Bucket="bundles", Key="a")
    cloud.restart()
    s3 = cloud.client("s3")
    s3.put_object(Bucket="bundles", Key="c", Body=b"after")
    cloud.restart()
    s3 = cloud.client("s3")
    assert s3.get_object(Bucket="bundles", Key="a", VersionId=first)["Body"].read() == b"1"
    assert s3.get_object(Bucket="bundles", Key="large")["Body"].read() == b"part"
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="bundles")["Contents"]] == ["b", "c", "large"]
