"""A disk that somebody has put into the store becomes an image, and nothing else of this computer does."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest

from imagepipe.local.aws.ec2.images.from_disk import FOLDER
from tests.local.aws.harness import Cloud, image, launch, state, until

WANTED = {
    "architecture": "x86_64",
    "boot_mode": "legacy-bios",
    "file": "7.raw",
    "name": "from-elsewhere",
    "description": "imported",
    "region": "us-west-2",
    "size_gib": 1,
}


@pytest.fixture
def disk(cloud: Cloud) -> Path:
    path = cloud.disks / FOLDER / "7.raw"
    path.parent.mkdir()
    path.write_bytes(b"a disk".ljust(1 << 20, b"\0"))
    return path


def test_it_is_an_image_of_the_stores_account_and_launches(cloud: Cloud, disk: Path) -> None:
    made = cloud.admin("POST", "images", WANTED)
    disk.unlink()  # as who imported it does
    ec2 = cloud.client(region="us-west-2")
    shown = image(ec2, made["image"])
    assert (shown["Name"], shown["State"], shown["RootDeviceType"]) == ("from-elsewhere", "available", "ebs")
    assert shown["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == made["snapshot"]
    cloud.restart()
    instance = launch(cloud.client(region="us-west-2"), ImageId=made["image"])
    until(lambda: state(cloud.client(region="us-west-2"), instance) == "running")
    with cloud.driver.machines[instance].disks[0].path.open("rb") as volume:
        assert volume.read(6) == b"a disk"


@pytest.mark.parametrize("file", ["../../../etc/passwd", "/etc/passwd", "8.raw", "."])
def test_a_file_that_is_not_in_the_folder_of_imports_is_refused(cloud: Cloud, disk: Path, file: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as told:
        cloud.admin("POST", "images", WANTED | {"file": file})
    with told.value:
        assert told.value.code == 400
    assert disk.exists()


def test_a_name_that_is_taken_is_refused_and_nothing_is_kept(cloud: Cloud, disk: Path) -> None:
    cloud.admin("POST", "images", WANTED)
    before = sorted(cloud.disks.glob("snapshots/*"))
    with pytest.raises(urllib.error.HTTPError) as told:
        cloud.admin("POST", "images", WANTED)
    with told.value:
        assert b"InvalidAMIName.Duplicate" in told.value.read()
    assert sorted(cloud.disks.glob("snapshots/*")) == before
