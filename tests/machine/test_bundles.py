"""Instance-store bundles that boot: packed here, put into the local cloud's S3, registered, launched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagepipe.local.base import BaseImage
from tests.bundle.samples import ACCOUNT, CASES
from tests.machine.bakery import Bakery, until

pytestmark = pytest.mark.machine

BUCKET = "machine-bundles"
SECONDS = 240.0


@pytest.fixture
def bucket(bakery: Bakery) -> Iterator[str]:
    s3 = bakery.client("s3")
    s3.create_bucket(Bucket=BUCKET, ObjectOwnership="BucketOwnerPreferred")
    yield BUCKET
    listed = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    for row in listed:
        s3.delete_object(Bucket=BUCKET, Key=row["Key"])
    s3.delete_bucket(Bucket=BUCKET)


def registered(bakery: Bakery, disk: Path, bucket: str) -> str:
    """The image of a disk, by the commands and calls that anybody has."""
    status = bakery("local", "status").out
    certificate = next(line.split()[1] for line in status.splitlines() if line.startswith("bundles"))
    folder = bakery.folder / "bundle"
    packed = bakery(
        "bundle", "pack", str(disk), "--certificate", str(CASES / "user-cert.pem"), "--private-key",
        str(CASES / "user-key.pem"), "--account", ACCOUNT, "--ec2-certificate", certificate, "--output", str(folder),
    )  # fmt: skip
    assert packed.code == 0, packed.err
    s3, ec2 = bakery.client("s3"), bakery.client()
    for path in sorted(folder.iterdir()):
        key = f"{disk.stem}/{path.name}"
        s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), ACL="aws-exec-read")
    made = ec2.register_image(
        Name=disk.stem, ImageLocation=f"{bucket}/{disk.stem}/image.manifest.xml", VirtualizationType="hvm"
    )["ImageId"]
    until(lambda: ec2.describe_images(ImageIds=[made])["Images"][0]["State"] == "available" or None, "it is available")
    return str(made)


def test_the_bundle_of_a_bare_file_system_boots_in_a_container(bakery: Bakery, base: BaseImage, bucket: str) -> None:
    image = registered(bakery, base.path, bucket)
    with bakery.instance(image, "us-east-1", kind="m3.medium") as booted:
        assert booted.sh("systemd-detect-virt") == "systemd-nspawn"
        assert booted.sh("sudo touch /written; cat /etc/debian_version").startswith("12.")
    bakery.client().deregister_image(ImageId=image)


def test_the_bundle_of_a_whole_disk_boots_by_its_own_boot_loader_in_qemu(
    bakery: Bakery, base: BaseImage, bucket: str
) -> None:
    assert base.disk_path is not None
    image = registered(bakery, base.disk_path, bucket)
    with bakery.instance(image, "us-east-1", kind="m3.medium", seconds=SECONDS) as booted:
        assert booted.sh("findmnt -no SOURCE /") == "/dev/vda1"
        assert "BOOT_IMAGE=/vmlinuz" in booted.sh("cat /proc/cmdline")
    bakery.client().deregister_image(ImageId=image)
