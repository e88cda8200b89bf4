"""Instance-store bundles that boot: packed here, put into the local cloud's S3, registered, launched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagepipe.capture.agent import tree
from imagepipe.capture.agent.disk import Disk, Partition
from imagepipe.local.disks.base_image import BaseImage
from tests.bundle.samples import ACCOUNT, CASES
from tests.machine.bakery import Bakery, until
from tests.machine.guests import GIB

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


@pytest.mark.emulated
def test_the_bundle_of_a_whole_disk_boots_by_its_own_boot_loader_in_qemu(
    bakery: Bakery, base: BaseImage, bucket: str
) -> None:
    assert base.disk_path is not None
    image = registered(bakery, base.disk_path, bucket)
    with bakery.instance(image, "us-east-1", kind="m3.medium", seconds=SECONDS) as booted:
        assert booted.sh("findmnt -no SOURCE /") == "/dev/vda1"
        assert "BOOT_IMAGE=/vmlinuz" in booted.sh("cat /proc/cmdline")
    bakery.client().deregister_image(ImageId=image)


@contextmanager
def mounted(disk: Path, folder: Path) -> Iterator[tuple[Disk, Path]]:
    """The disk with its partitions, and its root, which may be written to."""
    rows = json.loads(_output("sfdisk", "--json", disk))["partitiontable"]["partitions"]
    places = sorted((row["start"] * 512, row["size"] * 512) for row in rows)
    offset, size = places[-1]
    device = _output("losetup", "--find", "--show", "--offset", offset, "--sizelimit", size, disk)
    root = Partition(device, offset, size)
    try:
        folder.mkdir()
        _output("mount", "-t", "ext4", device, folder)
        try:
            partitions = (*(Partition("", *place) for place in places[:-1]), root)
            yield Disk(str(disk), disk.stat().st_size, partitions, root), folder
        finally:
            _output("umount", folder)
    finally:
        _output("losetup", "--detach", device)


def _output(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.emulated
def test_a_tree_takes_over_partition_table_and_boot_loader_and_boots_in_another_size(
    bakery: Bakery, base: BaseImage, bucket: str, tmp_path: Path
) -> None:
    """The agent's own functions on a disk of ours, as a builder under emulation would take three minutes more."""
    assert base.disk_path is not None
    source, image = tmp_path / "source", tmp_path / "tree-of-disk"
    _output("cp", "--sparse=always", base.disk_path, source)
    with mounted(source, tmp_path / "root") as (disk, root):
        (root / "etc/of-tree").write_text("yes\n")
        staged = tree.stage(root, root / tree.STAGED, ("/usr/share/doc", "/usr/share/man"))
        look = tree.layout_of(disk.root.device, root)
        image.write_bytes(b"")
        room = tree.lay_out_disk(disk, image, 2 * GIB)
        tree.fill(staged, image, look, offset=room.offset, size=room.size)
        assert tree.changed(staged) == []
        uuid = _output("blkid", "-o", "value", "-s", "UUID", disk.root.device)
    made = registered(bakery, image, bucket)
    with bakery.instance(made, "us-east-1", kind="m3.medium", seconds=SECONDS) as booted:
        assert booted.sh("cat /etc/of-tree; ls /usr/share/doc 2>/dev/null; findmnt -no UUID /") == f"yes\n{uuid}"
        assert "BOOT_IMAGE=/vmlinuz" in booted.sh("cat /proc/cmdline")
        assert int(booted.sh("lsblk -bndo SIZE /dev/vda")) == 2 * GIB
        assert int(booted.sh("df --output=size -BM / | tail -1 | tr -dc 0-9")) > 1800
    bakery.client().deregister_image(ImageId=made)
