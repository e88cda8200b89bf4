"""Block devices of a spec beside those of the source image, whose names and sizes are known once the image is found.

EC2 refuses some combinations only in the last call of a build, and others never: a root volume under another name
becomes a second, empty volume. Sources: EC2 user guide, "Device names for volumes"; EC2 API reference, EbsBlockDevice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.images import SourceImage
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError
from imagepipe.spec.ec2_rules import SIZES_GIB, performance_problems
from imagepipe.spec.scalars import same_device


@dataclass(frozen=True, slots=True)
class DeviceProblem:
    """A block device that does not fit the source image."""

    section: str
    """Section of the spec that has the device: `launch` or `output`."""
    index: int
    key: str
    """The device's key that must change."""
    message: str
    hint: str | None = None

    def error(self) -> CloudError:
        message = f"{self.section}.block_devices: {self.message}"
        return CloudError(message, code="InvalidBlockDeviceMapping", hint=self.hint)


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The block devices of a spec, for the instance and for the image."""

    launch: tuple[DeviceWanted, ...] = ()
    output: tuple[DeviceWanted, ...] = ()

    def problems(self, source: SourceImage) -> Iterator[DeviceProblem]:
        """Yield the problems of both sections, given the source image."""
        volumes = {
            str(mapping["DeviceName"]): _Volume(
                mapping["Ebs"].get("VolumeSize"), mapping["Ebs"].get("VolumeType"), mapping["Ebs"].get("Iops")
            )
            for mapping in source.mappings
            if "Ebs" in mapping
        }
        yield from _problems("launch", self.launch, source, volumes)
        for device in self.launch:
            if device.is_left_out:
                volumes.pop(device.device, None)
            else:
                # A volume from another snapshot has that snapshot's size, which is not known here.
                known = volumes.get(device.device, _Volume())
                size = None if device.snapshot else known.size_gib
                iops = device.iops or (known.iops if device.type in (None, known.type) else None)
                volumes[device.device] = _Volume(device.size_gib or size, device.type or known.type, iops)
        yield from _problems("output", self.output, source, volumes)

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots that the spec names."""
        return tuple(device.snapshot for device in (*self.launch, *self.output) if device.snapshot)

    def snapshot_problems(self, known: Mapping[str, Mapping[str, Any]]) -> Iterator[DeviceProblem]:
        """Yield the problems of snapshots that the spec names, given those that exist.

        EC2 would find the launch's in RunInstances, and the image's only in RegisterImage, after the bake.
        """
        for section, devices in (("launch", self.launch), ("output", self.output)):
            for index, device in enumerate(devices):
                if device.snapshot is None:
                    continue
                found = known.get(device.snapshot)
                if found is None:
                    message = f"{device.snapshot}, for {device.device}, does not exist, or is not shared with you"
                    yield DeviceProblem(section, index, "snapshot", message, "snapshot ids differ by region")
                elif found["State"] != "completed":
                    message = f"{device.snapshot}, for {device.device}, is {found['State']}, not completed"
                    yield DeviceProblem(section, index, "snapshot", message)
                elif device.size_gib and device.size_gib < found["VolumeSize"]:
                    message = f"{device.snapshot} has {found['VolumeSize']} GiB, and {device.device} {device.size_gib}"
                    hint = f"set size_gib to at least {found['VolumeSize']}, or remove it"
                    yield DeviceProblem(section, index, "size_gib", message, hint)

    def check(self, source: SourceImage, describe: Callable[[Sequence[str]], Mapping[str, Mapping[str, Any]]]) -> None:
        """Raise CloudError for the first problem. `describe` returns those of the named snapshots that exist."""
        problem = next(self.problems(source), None)
        if problem is None and self.snapshots:
            problem = next(self.snapshot_problems(describe(self.snapshots)), None)
        if problem:
            raise problem.error()


def check_boot_mode(source: SourceImage, boot_mode: str | None) -> None:
    """Raise CloudError if an image of this source cannot have the spec's boot mode.

    EC2 would refuse it after the bake, or register an image that does not boot. Sources: EC2 user guide, "Requirements
    for using NitroTPM with Amazon EC2 instances" (UEFI) and "Amazon EC2 instance boot modes" (Graviton has UEFI alone).
    """
    reason = None
    if boot_mode in (None, "uefi"):
        return
    if source.tpm_support:
        reason = f"TpmSupport {source.tpm_support}, which needs the boot mode uefi"
    elif source.architecture.startswith("arm64"):
        reason = f"the architecture {source.architecture}, whose instance types boot with UEFI alone"
    if reason:
        raise CloudError(
            f"output.boot_mode: source image {source.id} has {reason}; the spec sets {boot_mode}",
            code="InvalidParameterCombination",
            hint="remove boot_mode, or set uefi",
        )


@dataclass(frozen=True, slots=True)
class _Volume:
    """A volume as far as it is known before the launch."""

    size_gib: int | None = None
    type: str | None = None
    iops: int | None = None


def _problems(
    section: str, devices: Sequence[DeviceWanted], source: SourceImage, volumes: Mapping[str, _Volume]
) -> Iterator[DeviceProblem]:
    """Yield the problems of one section; `volumes` are those before it."""
    root = source.root_device_name
    ephemeral = {str(m["DeviceName"]): str(m["VirtualName"]) for m in source.mappings if m.get("VirtualName")}
    before = {"launch": "the source image", "output": "the instance"}[section]
    for index, device in enumerate(devices):
        name = device.device
        known = next((other for other in (root, *volumes, *ephemeral) if same_device(other, name)), None)
        if known is not None and known != name:
            role = f"the root device of {source.id}" if known == root else f"that device of {before}"
            message = f"{role} is named {known}; {name} would become a second volume, or be refused"
            yield DeviceProblem(section, index, "device", message, f"write device: {known}")
        elif device.is_left_out:
            if name == root:
                message = f"{name} is the root device of {source.id} and cannot be left out"
                yield DeviceProblem(section, index, "no_device" if device.no_device else "virtual_name", message)
        elif section == "launch" and name in ephemeral and device.snapshot is not None:
            message = f"{name} is {ephemeral[name]} in the source image, which no snapshot can replace"
            yield DeviceProblem(section, index, "snapshot", message, "use another device name")
        elif section == "output" and name in volumes and device.encrypted is not None:
            message = f"{name} is captured from the instance, and is encrypted if its snapshot is"
            hint = "remove encrypted; output.encrypt encrypts the whole image"
            yield DeviceProblem(section, index, "encrypted", message, hint)
        elif name not in volumes and name != root and device.size_gib is None and device.snapshot is None:
            message = f"{name} is not a volume of {before}, so it needs a size"
            yield DeviceProblem(section, index, "size_gib", message, "add size_gib, or snapshot")
        else:
            volume = volumes.get(name, _Volume()) if device.snapshot is None else _Volume()
            yield from _size_problems(section, index, device, volume, before)


def _size_problems(
    section: str, index: int, device: DeviceWanted, volume: _Volume, before: str
) -> Iterator[DeviceProblem]:
    """Yield the problems of a device whose size or type is that of a known volume."""
    name, known = device.device, volume.size_gib
    size, kind = device.size_gib or known, device.type or volume.type
    if known and size and size < known:
        message = f"{name} has {known} GiB in {before} and cannot become smaller: {size} GiB"
        yield DeviceProblem(section, index, "size_gib", message, f"set size_gib to at least {known}, or remove it")
    elif size and kind in SIZES_GIB and not SIZES_GIB[kind][0] <= size <= SIZES_GIB[kind][1]:
        low, high = SIZES_GIB[kind]
        message = f"{name} has {size} GiB, and {kind} volumes have {low} to {high} GiB"
        yield DeviceProblem(section, index, "type", message, f"set size_gib to at least {low}, or choose another type")
    elif kind and (device.type or device.iops or device.throughput):
        # Of the same type, the volume keeps the IOPS and the throughput that the spec does not set.
        same = device.type in (None, volume.type)
        iops = device.iops or (volume.iops if same else None)
        for key, message in performance_problems(kind, size_gib=size, iops=iops, throughput=device.throughput):
            yield DeviceProblem(section, index, key, f"{name}: {message}", "see type, size_gib, iops and throughput")
            return


def devices_of(
    wanted: Sequence[DeviceWanted], source: SourceImage, *, encrypt: bool, kms_key: str | None
) -> list[DeviceWanted]:
    """Return the spec's devices, and the source's that must change: encrypted if wanted, deleted on termination."""
    encrypted = True if encrypt or kms_key else None
    devices = [
        device
        if device.is_left_out or device.encrypted is not None
        else replace(device, encrypted=encrypted, kms_key=device.kms_key or kms_key)
        for device in wanted
    ]
    known = {device.device for device in devices}
    for mapping in source.mappings:
        ebs = mapping.get("Ebs")
        if ebs is None or mapping["DeviceName"] in known:
            continue
        # A volume that survives its instance would be a leak.
        if encrypted or not ebs.get("DeleteOnTermination"):
            devices.append(DeviceWanted(mapping["DeviceName"], encrypted=encrypted, kms_key=kms_key))
    return devices
