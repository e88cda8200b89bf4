"""Instance-store images: registered from a manifest in S3, launched as the disk that their bundle is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from imagepipe.bundle.certificates import load_certificate
from imagepipe.bundle.manifest import Label, Recipients
from imagepipe.bundle.pack import pack
from tests.bundle.samples import Memory, image_of, recipients
from tests.local.aws.harness import ACCOUNT, Cloud, available, image, instance, launch, refused, state, until

BUCKET, PREFIX, ACL = "bundles", "web/7", "aws-exec-read"
MANIFEST = f"{BUCKET}/{PREFIX}/image.manifest.xml"
BYTES = b"a root".ljust(4096, b"\0") + bytes(1 << 20) + b"its end".ljust(4096, b"\0")


@dataclass
class Bundled:
    """A bundle in the cloud's S3."""

    cloud: Cloud
    files: dict[str, bytes]

    def put(self, *, region: str = "us-east-1", bucket: str = BUCKET, acl: str = ACL) -> None:
        s3 = self.cloud.client("s3", region=region)
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, ObjectOwnership="BucketOwnerPreferred", **where)
        s3.delete_public_access_block(Bucket=bucket)  # for the ACL public-read
        for name, content in self.files.items():
            s3.put_object(Bucket=bucket, Key=f"{PREFIX}/{name}", Body=content, ACL=acl)

    def register(self, location: str = MANIFEST, **params: Any) -> str:
        wanted = {"Name": "web", "ImageLocation": location, "VirtualizationType": "hvm", "EnaSupport": False, **params}
        return str(self.cloud.client().register_image(**wanted)["ImageId"])


@pytest.fixture
def bundled(cloud: Cloud) -> Bundled:
    certificate = load_certificate(cloud.gateway.backend.bundles.certificate)
    sink = Memory()
    pack(image_of(BYTES), sink, label=Label("image", ACCOUNT), recipients=Recipients(recipients().owner, certificate))
    return Bundled(cloud, {**sink.files, "image.manifest.xml": sink.manifest})


def test_a_bundle_is_an_image_whose_instances_have_its_bytes_and_lose_them_with_their_end(bundled: Bundled) -> None:
    bundled.put()
    cloud = bundled.cloud
    made = available(cloud.client(), bundled.register(BlockDeviceMappings=[
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}
    ]))  # fmt: skip
    shown = image(cloud.client(), made)
    assert (shown["RootDeviceType"], shown["ImageLocation"]) == ("instance-store", MANIFEST)
    assert (shown["Architecture"], shown["RootDeviceName"]) == ("x86_64", "/dev/sda1")
    assert [each["DeviceName"] for each in shown["BlockDeviceMappings"]] == ["/dev/sdb"]
    cloud.restart()  # with the same key, as bundles outlive a process
    ec2 = cloud.client()
    started = launch(ec2, ImageId=made, InstanceType="m3.medium")
    until(lambda: state(ec2, started) == "running")
    assert instance(ec2, started)["RootDeviceType"] == "instance-store"
    root = cloud.driver.machines[started].disks[0]
    assert (root.device, root.path.read_bytes()) == ("/dev/sda1", BYTES)
    assert ec2.describe_volumes()["Volumes"] == []
    ec2.terminate_instances(InstanceIds=[started])
    until(lambda: state(ec2, started) == "terminated")
    assert not root.path.exists()


def test_actions_that_need_an_ebs_root_are_refused(bundled: Bundled) -> None:
    bundled.put()
    ec2 = bundled.cloud.client()
    made = available(ec2, bundled.register())
    started = launch(ec2, ImageId=made, InstanceType="m3.medium")
    until(lambda: state(ec2, started) == "running")
    with refused("UnsupportedOperation"):
        ec2.stop_instances(InstanceIds=[started])
    with refused("UnsupportedOperation"):
        ec2.create_image(InstanceId=started, Name="again")
    with refused("InvalidParameterCombination"):
        launch(ec2, ImageId=made, InstanceType="t3.small")
    with refused("InvalidParameterValue"):
        launch(ec2, ImageId=made, InstanceType="m3.medium", InstanceInitiatedShutdownBehavior="stop")
    bundled.cloud.driver.power_off_from_inside(started)
    until(lambda: state(ec2, started) == "terminated")


def test_deregistering_leaves_the_objects_which_cost_until_they_are_deleted(bundled: Bundled) -> None:
    bundled.put()
    made = available(bundled.cloud.client(), bundled.register())
    bundled.cloud.client().deregister_image(ImageId=made)
    listed = bundled.cloud.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert {row["Key"] for row in listed} == {f"{PREFIX}/{name}" for name in bundled.files}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda s3: s3.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/image.part.00"), "image.part.00 is missing"),
        (
            lambda s3: s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/image.part.00", Body=b"other", ACL=ACL),
            "image.part.00",
        ),
        (
            lambda s3: s3.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/image.manifest.xml"),
            "image.manifest.xml is missing",
        ),
        (
            lambda s3: s3.put_object_acl(Bucket=BUCKET, Key=f"{PREFIX}/image.part.00", ACL="private"),
            f"HTTP 403 (Access Denied) for {BUCKET}/{PREFIX}/image.part.00",
        ),
    ],
    ids=["a part is gone", "a part is another's", "the manifest is gone", "a part is private"],
)
def test_a_damaged_bundle_fails_the_launch_with_the_reason(bundled: Bundled, harm: Any, said: str) -> None:
    bundled.put()
    ec2 = bundled.cloud.client()
    made = available(ec2, bundled.register())
    harm(bundled.cloud.client("s3"))
    started = launch(ec2, ImageId=made, InstanceType="m3.medium")
    until(lambda: state(ec2, started) == "terminated")
    reason = instance(ec2, started)["StateReason"]
    assert reason["Code"] == "Server.InternalError"
    assert said in reason["Message"]
    assert not list(bundled.cloud.disks.glob("volumes/*store*"))


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("nowhere/image.manifest.xml", "InvalidManifest"),
        (f"{BUCKET}/other.manifest.xml", "InvalidManifest"),
        (f"{BUCKET}/{PREFIX}/image.part.00", "InvalidManifest"),
        (f"s3://{MANIFEST}", "InvalidParameterValue"),
        (f"/{MANIFEST}", "InvalidParameterValue"),
        (BUCKET, "InvalidParameterValue"),
    ],
)
def test_a_location_that_holds_no_manifest_is_refused(bundled: Bundled, location: str, code: str) -> None:
    bundled.put()
    with refused(code):
        bundled.register(location)


def test_a_bucket_of_another_region_is_refused(bundled: Bundled) -> None:
    bundled.put(region="us-west-2")
    with refused("InvalidManifest"):
        bundled.register()


@pytest.mark.parametrize("acl", ["private", "authenticated-read"])
def test_a_manifest_that_ec2_may_not_read_is_refused(bundled: Bundled, acl: str) -> None:
    bundled.put(acl=acl)
    with refused("InvalidManifest", match=r"HTTP 403 \(Access Denied\)"):
        bundled.register()


@pytest.mark.parametrize("acl", ["aws-exec-read", "public-read"])
def test_an_objects_acl_survives_a_restart(bundled: Bundled, acl: str) -> None:
    bundled.put(acl=acl)
    bundled.cloud.restart()
    assert bundled.register()


def test_a_bundle_under_a_kms_key_is_refused(bundled: Bundled) -> None:
    bundled.put()
    key = f"{PREFIX}/image.manifest.xml"
    bundled.cloud.client("s3").put_object(
        Bucket=BUCKET, Key=key, Body=bundled.files["image.manifest.xml"], ACL=ACL, ServerSideEncryption="aws:kms"
    )
    with refused("InvalidManifest", match="KMS"):
        bundled.register()


def test_a_bundle_for_another_ec2_is_refused_at_its_registration(bundled: Bundled) -> None:
    sink = Memory()
    pack(image_of(BYTES), sink, label=Label("image", ACCOUNT), recipients=recipients())
    replace(bundled, files={**sink.files, "image.manifest.xml": sink.manifest}).put()
    with refused("InvalidManifest"):
        bundled.register()


def test_a_process_that_died_leaves_no_root_of_an_instance_that_is_gone(bundled: Bundled) -> None:
    orphan = bundled.cloud.disks / "volumes" / "store-i-0123456789abcdef0.raw"
    orphan.write_bytes(b"left")
    bundled.cloud.restart()
    assert not orphan.exists()
