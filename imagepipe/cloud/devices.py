"""Block devices of a spec, translated for RunInstances and for RegisterImage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

from imagepipe.cloud.snapshots import Snapshot
from imagepipe.dataclass import dataclass
from imagepipe.late import Text


@dataclass(frozen=True, slots=True)
class DeviceWanted:
    """A block device of the spec. None stands for the source image's value or the captured one."""

    device: str
    size_gib: int | None = None
    type: str | None = None
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool | None = None
    kms_key: str | None = None
    snapshot: str | None = None
    delete_on_termination: bool | None = None
    virtual_name: str | None = None
    no_device: bool = False
    tags: Mapping[str, Text] = field(default_factory=dict)

    @property
    def is_left_out(self) -> bool:
        """Return whether the device is suppressed or an instance-store volume."""
        return self.no_device or self.virtual_name is not None

    def launched(self) -> dict[str, Any]:
        """Return the entry of RunInstances' BlockDeviceMappings.

        Every volume is deleted with its instance, or it would leak; it is captured before that.
        """
        return self._entry(self._ebs(), delete_on_termination=True)

    def mapped(self, captured: Snapshot | None, *, delete_on_termination: bool = True) -> dict[str, Any]:
        """Return the entry of RegisterImage's BlockDeviceMappings, based on the captured volume, if any."""
        ebs = self._ebs()
        if captured is not None:
            own = dict(captured.mapping()["Ebs"])
            if self.type not in (None, captured.volume_type):
                own = {"SnapshotId": captured.id}  # EC2 refuses IOPS and throughput of another type
            ebs = {**own, **{key: value for key, value in ebs.items() if key not in ("Encrypted", "KmsKeyId")}}
        if self.delete_on_termination is not None:
            delete_on_termination = self.delete_on_termination
        return self._entry(ebs, delete_on_termination=delete_on_termination)

    def _entry(self, ebs: Mapping[str, Any], *, delete_on_termination: bool) -> dict[str, Any]:
        if self.no_device:
            return {"DeviceName": self.device, "NoDevice": ""}
        if self.virtual_name:
            return {"DeviceName": self.device, "VirtualName": self.virtual_name}
        return {"DeviceName": self.device, "Ebs": {**ebs, "DeleteOnTermination": delete_on_termination}}

    def _ebs(self) -> dict[str, Any]:
        values = {
            "VolumeSize": self.size_gib,
            "VolumeType": self.type,
            "Iops": self.iops,
            "Throughput": self.throughput,
            "Encrypted": True if self.kms_key else self.encrypted,  # EC2 refuses a key without it
            "KmsKeyId": self.kms_key,
            "SnapshotId": self.snapshot,
        }
        return {key: value for key, value in values.items() if value is not None}


def image_mappings(
    captured: Iterable[Snapshot],
    wanted: Sequence[DeviceWanted],
    *,
    ephemeral: Mapping[str, str],
    delete_on_termination: Mapping[str, bool],
    root: str,
) -> list[dict[str, Any]]:
    """Return the image's block device mappings, the root first: the captured volumes with the spec's changes.

    `ephemeral`: virtual names of instance-store volumes by device. `delete_on_termination` is also by device.
    """
    overrides = {device.device: device for device in wanted}
    by_device = {snapshot.device: snapshot for snapshot in captured}
    mappings = {device: {"DeviceName": device, "VirtualName": name} for device, name in ephemeral.items()}
    for device in (*by_device, *overrides):
        override = overrides.get(device, DeviceWanted(device))
        mappings[device] = override.mapped(
            by_device.get(device), delete_on_termination=delete_on_termination.get(device, True)
        )
    kept = [mapping for mapping in mappings.values() if "NoDevice" not in mapping]
    return sorted(kept, key=lambda mapping: (mapping["DeviceName"] != root, str(mapping["DeviceName"])))
