"""Block devices beside those of the source image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.images import SourceImage
from imagepipe.errors import CloudError
from imagepipe.launch.devices import DevicePlan, check_boot_mode

MAPPINGS = (
    {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8, "SnapshotId": "snap-1"}},
    {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 20, "SnapshotId": "snap-2", "VolumeType": "gp2"}},
    {"DeviceName": "/dev/sdi", "Ebs": {"VolumeSize": 200, "SnapshotId": "snap-9", "VolumeType": "gp3", "Iops": 3000}},
    {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
)
SOURCE = SourceImage("ami-0", "debian-12", "1", "x86_64", "hvm", "/dev/xvda", "ebs", MAPPINGS)


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_encryption_of_a_captured_volume_cannot_be_set_for_the_image_alone(encrypted: bool) -> None:
    [(key, message)] = _problems(output={"device": "/dev/sdf", "encrypted": encrypted})
    assert (key, "captured from the instance" in message) == ("output.encrypted", True)
    assert _problems(output={"device": "/dev/sdg", "size_gib": 8, "encrypted": encrypted}) == []
    assert _problems(launch={"device": "/dev/sdf", "encrypted": encrypted}) == []


def test_a_kms_key_is_sent_with_the_flag_that_ec2_requires() -> None:
    ebs = DeviceWanted("/dev/sdf", kms_key="alias/images").launched()["Ebs"]
    assert (ebs["KmsKeyId"], ebs["Encrypted"]) == ("alias/images", True)


def _problems(launch: dict[str, Any] | None = None, output: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    plan = DevicePlan(*[(DeviceWanted(**each),) if each else () for each in (launch, output)])
    return [(f"{problem.section}.{problem.key}", problem.message) for problem in plan.problems(SOURCE)]


@pytest.mark.parametrize("device", ["/dev/sda1", "/dev/sda", "/dev/xvda1", "/dev/hda"])
def test_the_root_under_another_name_is_an_error_that_names_the_right_one(device: str) -> None:
    plan = DevicePlan(launch=(DeviceWanted(device, size_gib=20),))
    with pytest.raises(CloudError, match="the root device of ami-0 is named /dev/xvda") as error:
        plan.check(SOURCE, lambda ids: {})
    assert error.value.hint == "write device: /dev/xvda"
    assert _problems(output={"device": device, "size_gib": 20})[0][0] == "output.device"


def test_any_device_of_the_source_under_another_name_is_an_error() -> None:
    [(key, message)] = _problems({"device": "/dev/xvdf", "size_gib": 30})
    assert key == "launch.device"
    assert "that device of the source image is named /dev/sdf" in message


def test_a_snapshot_cannot_replace_an_instance_store_volume_of_the_source() -> None:
    # github.com/hashicorp/packer/issues/2765: RunInstances refuses it; a volume without a snapshot is accepted.
    [(key, message)] = _problems({"device": "/dev/sdb", "snapshot": "snap-3"})
    assert (key, "/dev/sdb is ephemeral0 in the source image" in message) == ("launch.snapshot", True)
    assert _problems({"device": "/dev/sdb", "size_gib": 8}) == []
    assert _problems({"device": "/dev/sdc", "snapshot": "snap-3"}) == []
    assert _problems(output={"device": "/dev/sdb", "snapshot": "snap-3"}) == []


@pytest.mark.parametrize("device", [{"size_gib": 8}, {"no_device": True}, {"virtual_name": "ephemeral1"}])
def test_an_instance_store_volume_of_the_source_has_one_name_too(device: dict[str, Any]) -> None:
    for section in ("launch", "output"):
        [(key, message)] = _problems(**{section: {"device": "/dev/xvdb", **device}})
        assert (key, "is named /dev/sdb" in message) == (f"{section}.device", True)


@pytest.mark.parametrize(
    ("launch", "output", "key"),
    [
        ({"device": "/dev/xvda", "size_gib": 4}, None, "launch.size_gib"),
        ({"device": "/dev/xvda", "size_gib": 20}, {"device": "/dev/xvda", "size_gib": 10}, "output.size_gib"),
        (None, {"device": "/dev/sdf", "size_gib": 10}, "output.size_gib"),
        ({"device": "/dev/sdg"}, None, "launch.size_gib"),
        (None, {"device": "/dev/sdg", "type": "gp3"}, "output.size_gib"),
        ({"device": "/dev/sdf", "no_device": True}, {"device": "/dev/sdf", "type": "gp3"}, "output.size_gib"),
        ({"device": "/dev/xvda", "no_device": True}, None, "launch.no_device"),
        (None, {"device": "/dev/xvda", "virtual_name": "ephemeral0"}, "output.virtual_name"),
        (None, {"device": "/dev/xvda", "type": "st1"}, "output.type"),
        (None, {"device": "/dev/xvda", "type": "gp3", "iops": 16000}, "output.iops"),
        ({"device": "/dev/xvda", "size_gib": 40}, {"device": "/dev/xvda", "type": "io1", "iops": 3000}, "output.iops"),
        (None, {"device": "/dev/sdf", "iops": 4000}, "output.iops"),
        (None, {"device": "/dev/sdf", "throughput": 300}, "output.throughput"),
        (None, {"device": "/dev/sdh", "size_gib": 8, "iops": 3000}, None),
        ({"device": "/dev/sdi", "throughput": 2001}, None, "launch.throughput"),
        ({"device": "/dev/sdi", "throughput": 751}, None, "launch.throughput"),
        ({"device": "/dev/sdi", "iops": 2999}, None, "launch.iops"),
        (None, {"device": "/dev/sdi", "iops": 80001}, "output.iops"),
        ({"device": "/dev/sdi", "iops": 4000}, {"device": "/dev/sdi", "throughput": 1000}, None),
    ],
)
def test_a_size_that_ec2_would_refuse_is_found_before_the_launch(
    launch: dict[str, Any] | None, output: dict[str, Any] | None, key: str | None
) -> None:
    assert [found for found, _ in _problems(launch, output)] == ([key] if key else [])


@pytest.mark.parametrize(
    ("launch", "output"),
    [
        ({"device": "/dev/xvda", "size_gib": 8}, {"device": "/dev/xvda", "size_gib": 8}),
        ({"device": "/dev/xvda", "type": "gp3"}, {"device": "/dev/xvda", "delete_on_termination": False}),
        ({"device": "/dev/sdg", "size_gib": 1}, {"device": "/dev/sdg", "type": "gp3"}),
        ({"device": "/dev/sdg", "snapshot": "snap-0a1b2c3d"}, None),
        ({"device": "/dev/sdf", "snapshot": "snap-0a1b2c3d"}, {"device": "/dev/sdf", "size_gib": 10}),
        ({"device": "/dev/sdc", "virtual_name": "ephemeral1"}, {"device": "/dev/sdc", "virtual_name": "ephemeral1"}),
        ({"device": "/dev/sdf", "no_device": True}, None),
    ],
)
def test_devices_that_fit_are_not_reported(launch: dict[str, Any], output: dict[str, Any] | None) -> None:
    assert _problems(launch, output) == []


def test_a_size_that_the_source_does_not_tell_is_left_to_ec2() -> None:
    source = SourceImage(
        "ami-0", "x", "1", "x86_64", "hvm", "/dev/xvda", "ebs", ({"DeviceName": "/dev/xvda", "Ebs": {}},)
    )
    assert not list(DevicePlan(launch=(DeviceWanted("/dev/xvda", size_gib=1),)).problems(source))


@pytest.mark.parametrize(
    ("boot_mode", "changes", "is_refused"),
    [
        ("legacy-bios", {"tpm_support": "v2.0", "boot_mode": "uefi"}, True),
        ("uefi-preferred", {"tpm_support": "v2.0", "boot_mode": "uefi"}, True),
        ("uefi", {"tpm_support": "v2.0", "boot_mode": "uefi"}, False),
        (None, {"tpm_support": "v2.0", "boot_mode": "uefi"}, False),
        ("legacy-bios", {"architecture": "arm64"}, True),
        ("uefi", {"architecture": "arm64"}, False),
        ("legacy-bios", {}, False),
    ],
)
def test_a_boot_mode_that_the_source_cannot_have_is_found_before_the_launch(
    boot_mode: str | None, changes: dict[str, str], is_refused: bool
) -> None:
    source = replace(SOURCE, **changes)  # type: ignore[arg-type]
    if not is_refused:
        check_boot_mode(source, boot_mode)
        return
    with pytest.raises(CloudError, match=r"output\.boot_mode: source image ami-0 has"):
        check_boot_mode(source, boot_mode)


KNOWN = {
    "snap-3": {"State": "completed", "VolumeSize": 20},
    "snap-4": {"State": "pending", "VolumeSize": 20},
}


@pytest.mark.parametrize("section", ["launch", "output"])
@pytest.mark.parametrize(
    ("device", "key", "says"),
    [
        ({"snapshot": "snap-5"}, "snapshot", "does not exist, or is not shared with you"),
        ({"snapshot": "snap-4"}, "snapshot", "is pending, not completed"),
        ({"snapshot": "snap-3", "size_gib": 10}, "size_gib", "snap-3 has 20 GiB"),
    ],
)
def test_a_snapshot_that_the_spec_names_must_fit(section: str, device: dict[str, Any], key: str, says: str) -> None:
    devices = {section: (DeviceWanted("/dev/sdg", **device),)}
    plan = DevicePlan(**devices)
    [problem] = plan.snapshot_problems(KNOWN)
    assert (problem.section, problem.key, says in problem.message) == (section, key, True)
    with pytest.raises(CloudError, match=says):
        plan.check(SOURCE, lambda ids: {id: KNOWN[id] for id in ids if id in KNOWN})
    assert list(DevicePlan(output=(DeviceWanted("/dev/sdg", snapshot="snap-3"),)).snapshot_problems(KNOWN)) == []
