"""Block devices of a spec beside those of the source image, whose names and sizes are known once the image is found.

EC2 refuses some combinations only in the last call of a build, and others never: a root volume under another name
becomes a second, empty volume. Sources: EC2 user guide, "Device names for volumes"; EC2 API reference, EbsBlockDevice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.images import SourceImage
from imagepipe.errors import CloudError
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
        sizes = {
            str(mapping["DeviceName"]): mapping["Ebs"].get("VolumeSize")
            for mapping in source.mappings
            if "Ebs" in mapping
        }
        yield from _problems("launch", self.launch, source, sizes)
        for device in self.launch:
            if device.is_left_out:
                sizes.pop(device.device, None)
            else:
                # A volume from another snapshot has that snapshot's size, which is not known here.
                known = None if device.snapshot else sizes.get(device.device)
                sizes[device.device] = device.size_gib or known
        yield from _problems("output", self.output, source, sizes)

    def check(self, source: SourceImage) -> None:
        """Raise CloudError for the first problem."""
        if problem := next(self.problems(source), None):
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


def _problems(
    section: str, devices: Sequence[DeviceWanted], source: SourceImage, sizes: Mapping[str, int | None]
) -> Iterator[DeviceProblem]:
    """Yield the problems of one section; `sizes` are those of the volumes before it, None if unknown."""
    root = source.root_device_name
    before = {"launch": "the source image", "output": "the instance"}[section]
    for index, device in enumerate(devices):
        name = device.device
        known = next((other for other in (root, *sizes) if same_device(other, name)), None)
        if known is not None and known != name:
            role = f"the root device of {source.id}" if known == root else f"that device of {before}"
            message = f"{role} is named {known}; {name} would become a second volume, or be refused"
            yield DeviceProblem(section, index, "device", message, f"write device: {known}")
        elif device.is_left_out:
            if name == root:
                message = f"{name} is the root device of {source.id} and cannot be left out"
                yield DeviceProblem(section, index, "no_device" if device.no_device else "virtual_name", message)
        elif section == "output" and known is not None and device.encrypted is not None:
            message = f"{name} is captured from the instance, and is encrypted if its snapshot is"
            hint = "remove encrypted; output.encrypt encrypts the whole image"
            yield DeviceProblem(section, index, "encrypted", message, hint)
        elif known is None and device.size_gib is None and device.snapshot is None:
            message = f"{name} is not a volume of {before}, so it needs a size"
            yield DeviceProblem(section, index, "size_gib", message, "add size_gib, or snapshot")
        elif (size := sizes.get(name)) and device.snapshot is None and (device.size_gib or size) < size:
            message = f"{name} has {size} GiB in {before} and cannot become smaller: {device.size_gib} GiB"
            yield DeviceProblem(section, index, "size_gib", message, f"set size_gib to at least {size}, or remove it")


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
