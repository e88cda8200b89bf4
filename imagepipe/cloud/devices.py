"""Block devices as a spec wants them, in the two shapes that EC2 takes: of an instance, and of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagepipe.cloud.snapshots import Snapshot
from imagepipe.values import Text


@dataclass(frozen=True, slots=True)
class DeviceWanted:
    """A block device, as the spec has it; None is the source image's own, or what was captured."""

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
        """Whether this is no EBS volume at all."""
        return self.no_device or self.virtual_name is not None

    def launched(self) -> dict[str, Any]:
        """The entry of RunInstances' BlockDeviceMappings.

        A volume that outlived its instance would be a leak, so each goes with it: all are captured before that.
        """
        return self._entry(self._ebs(), delete_on_termination=True)

    def mapped(self, captured: Snapshot | None, *, delete_on_termination: bool = True) -> dict[str, Any]:
        """The entry of RegisterImage's BlockDeviceMappings, over what was captured of this device, if it was."""
        ebs = self._ebs()
        if captured is not None:
            own = dict(captured.mapping()["Ebs"])
            if self.type not in (None, captured.volume_type):
                own = {"SnapshotId": captured.id}  # the numbers of one type are refused with another
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
            "Encrypted": self.encrypted,
            "KmsKeyId": self.kms_key,
            "SnapshotId": self.snapshot,
        }
        return {key: value for key, value in values.items() if value is not None}


def image_mappings(
    captured: Iterable[Snapshot],
    wanted: Sequence[DeviceWanted],
    *,
    ephemeral: Mapping[str, str],
    goes: Mapping[str, bool],
    root: str,
) -> list[dict[str, Any]]:
    """What the image maps, the root first: what was captured, the spec's word over it.

    `ephemeral`: virtual names by device that instances of the source image had. `goes`: by device, whether the volume
    goes with its instance.
    """
    said = {device.device: device for device in wanted}
    by_device = {snapshot.device: snapshot for snapshot in captured}
    mappings = {device: {"DeviceName": device, "VirtualName": name} for device, name in ephemeral.items()}
    for device in (*by_device, *said):
        one = said.get(device, DeviceWanted(device))
        mappings[device] = one.mapped(by_device.get(device), delete_on_termination=goes.get(device, True))
    kept = [mapping for mapping in mappings.values() if "NoDevice" not in mapping]
    return sorted(kept, key=lambda mapping: (mapping["DeviceName"] != root, str(mapping["DeviceName"])))
