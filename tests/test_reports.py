"""Bugs that people reported of Packer: each test names the report, and shows that imagepipe does not have the bug.

Reports that imagepipe had in common with Packer have their tests beside the code that was wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imagepipe.cloud.devices import DeviceWanted, image_mappings
from imagepipe.cloud.snapshots import Snapshot
from imagepipe.cloud.tags import ImageRequest
from imagepipe.preflight import check_online
from imagepipe.spec.load import load
from imagepipe.spec.variables import Given
from tests.account import Account
from tests.local.aws import harness

DEBIAN = 'source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}\n'


def _messages(folder: Path, rest: str, account: Account | None = None) -> list[str]:
    """Problems of a spec; those that the cloud reports too, given an account."""
    (folder / "imagepipe.yaml").write_text("defaults: {ssh_user: admin}\n")
    (folder / "web.yaml").write_text(f"imagepipe: 1\nname: web\n{DEBIAN}{rest}")
    [loaded] = load([folder / "web.yaml"], Given())
    if account is not None and not loaded.problems:
        return [problem.message for problem in check_online(loaded, account.regions, lambda spec: "us-east-1")]
    return [problem.message for problem in loaded.problems]


def test_a_bucket_with_a_path_is_refused_before_the_bake(tmp_path: Path) -> None:
    # github.com/hashicorp/packer/issues/5231: RegisterImage failed with HTTP 403 after the upload.
    output = 'output: {type: instance-store, name: web, bucket: qbis/amis, account: "123456789012"}\n'
    [message] = _messages(tmp_path, output + "launch: {instance_types: [m3.medium]}\n")
    assert "a bucket's name has" in message


@pytest.mark.parametrize(
    ("region", "key"),
    [
        # github.com/hashicorp/packer-plugin-amazon/issues/356
        ("cn-north-1", "arn:aws-cn:kms:cn-north-1:123456789012:alias/images"),
        # github.com/hashicorp/packer-plugin-amazon/issues/125
        ("us-east-1", "arn:aws:kms:us-east-1:123456789012:key/mrk-0123456789abcdef0123456789abcdef"),
        ("us-east-1", "mrk-0123456789abcdef0123456789abcdef"),
    ],
)
def test_keys_of_china_and_of_several_regions_are_valid(region: str, key: str, tmp_path: Path) -> None:
    spec = f"launch: {{region: {region}}}\noutput: {{name: web, encrypt: {{kms_key: '{key}'}}}}\n"
    assert _messages(tmp_path, spec) == []


def test_a_gp3_volume_needs_no_throughput(tmp_path: Path) -> None:
    # github.com/hashicorp/packer/issues/10420: "Throughput must be between 125 and 1000".
    devices = "[{device: /dev/sdf, size_gib: 8, type: gp3}]"
    spec = f"launch: {{block_devices: {devices}}}\noutput: {{name: web, block_devices: {devices}}}\n"
    assert _messages(tmp_path, spec) == []


def test_a_device_is_left_out_of_an_image_whatever_it_is_in_the_source() -> None:
    # github.com/hashicorp/packer/issues/2398: no_device was sent together with an empty volume.
    wanted = [DeviceWanted("/dev/sdb", no_device=True), DeviceWanted("/dev/sdf", no_device=True)]
    captured = [Snapshot("snap-1", "/dev/xvda", "gp3"), Snapshot("snap-2", "/dev/sdf", "gp3")]
    mappings = image_mappings(
        captured, wanted, ephemeral={"/dev/sdb": "ephemeral0"}, delete_on_termination={}, root="/dev/xvda"
    )
    assert [mapping["DeviceName"] for mapping in mappings] == ["/dev/xvda"]


def test_a_profile_with_a_path_is_found_by_its_name_and_by_its_arn(account: Account, tmp_path: Path) -> None:
    # github.com/hashicorp/packer/issues/10024: the path was taken for a part of the name.
    made = account.cloud.client("iam").create_instance_profile(InstanceProfileName="web", Path="/build/")
    for profile in ("web", made["InstanceProfile"]["Arn"]):
        spec = f"launch: {{iam_instance_profile: '{profile}'}}\noutput: {{name: web}}\n"
        assert _messages(tmp_path, spec, account) == []


def test_an_encrypted_volume_is_still_encrypted_in_a_copy_without_a_key_of_its_own(account: Account) -> None:
    # github.com/hashicorp/packer/issues/7393 and 6789: the copy was asked for as unencrypted, and refused.
    ec2, west = account.cloud.client(), account.regions["us-west-2"]
    second = [{"DeviceName": "/dev/sdf", "Ebs": {"Encrypted": True, "VolumeSize": 1}}]
    made = ec2.create_image(InstanceId=harness.stopped(ec2, BlockDeviceMappings=second), Name="two")["ImageId"]
    harness.available(ec2, made)
    copy = west.images.copy(_request(), made, "us-east-1")
    there = account.cloud.client(region="us-west-2")
    harness.available(there, copy)
    mappings = harness.image(there, copy)["BlockDeviceMappings"]
    assert {mapping["DeviceName"]: mapping["Ebs"]["Encrypted"] for mapping in mappings} == {
        "/dev/xvda": False,
        "/dev/sdf": True,
    }


def test_a_copy_and_its_snapshots_have_their_tags_from_the_first_call_on(account: Account) -> None:
    # github.com/hashicorp/packer-plugin-amazon/issues/591: a tag policy refused CopyImage, which sent no tags.
    ec2, west = account.cloud.client(), account.regions["us-west-2"]
    made = harness.available(ec2, harness.register(ec2, harness.snapshot_of(ec2, harness.stopped(ec2)), "web"))
    account.fault("refuse", "CreateTags", code="UnauthorizedOperation", status=403, times=9)
    copy = west.images.copy(_request(), made, "us-east-1")
    there = account.cloud.client(region="us-west-2")
    described = harness.image(there, harness.available(there, copy))
    snapshots = [mapping["Ebs"]["SnapshotId"] for mapping in described["BlockDeviceMappings"]]
    tagged: list[dict[str, Any]] = [described, *there.describe_snapshots(SnapshotIds=snapshots)["Snapshots"]]
    assert [{"Key": "team", "Value": "web"} in each["Tags"] for each in tagged] == [True, True]


def _request() -> ImageRequest:
    tags = {"team": "web", "imagepipe:token": "t1"}
    return ImageRequest("copy", "", "t1", tags, tags)
