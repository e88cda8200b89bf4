"""Make images: register them from snapshots, create them from instances, copy them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import idempotency, lookup, product_codes
from imagepipe.local.aws.ec2.images import jobs
from imagepipe.local.aws.ec2.volumes import block_devices, modifications, snapshots
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.errors import AwsError, invalid, missing, unsupported
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Capture, DiskSpec, Image, Instance, Snapshot

BUNDLE_ROOT = "/dev/sda1"  # of EC2's own instance-store images
MAX_DESCRIPTION = 255
NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")


def _free_name(backend: Backend, call: Call) -> str:
    """Return the requested name. Raises AwsError if it is malformed or taken."""
    name = call.text("Name")
    if not NAME.fullmatch(name):
        raise AwsError(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, "
            "'(', ')', '[', ']', ' ', '.', '/', '-', ''', '@' and '_'",
        )
    check_free_name(backend, call.account, call.region, name)
    return name


def check_free_name(backend: Backend, account: str, region: str, name: str) -> None:
    """Raise AwsError if an image of the account has the name already."""
    for image in backend.database.images.owned(account, region):
        if image.name == name and image.state in ("pending", "available", "disabled"):
            raise AwsError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")


def _check_no_key(mappings: Iterable[Mapping[str, Any]]) -> None:
    """Raise AwsError for a KMS key, which only launches take (EC2 API reference, EbsBlockDevice)."""
    for mapping in mappings:
        if mapping.get("Ebs", {}).get("KmsKeyId"):  # EC2's code for it is not documented: this is a guess
            text = f"KmsKeyId is not supported for the device {mapping.get('DeviceName')} of an image."
            raise AwsError("InvalidBlockDeviceMapping", text)


def register_image(backend: Backend, call: Call) -> Mapping[str, Any]:
    params = call.params
    name = _free_name(backend, call)
    if params.get("BillingProducts"):
        # Only for accounts that AWS has authorized (API reference, RegisterImage); the refusal's code is undocumented.
        raise AwsError("AuthFailure", "This account is not authorized to specify billing product codes", status=403)
    if params.get("VirtualizationType") != "hvm":
        raise unsupported("Only hvm images boot here; pass VirtualizationType=hvm (EC2 defaults to paravirtual)")
    if params.get("ImageLocation"):
        return {"ImageId": _register_bundle(backend, call, name)}
    root = params.get("RootDeviceName")
    if not root:
        raise missing("rootDeviceName")
    mappings = params.get("BlockDeviceMappings", [])
    _check_no_key(mappings)
    for mapping in mappings:
        ebs = mapping.get("Ebs", {})
        if ebs.get("SnapshotId") and "Encrypted" in ebs:
            raise AwsError(
                "InvalidBlockDeviceMapping",
                f"the encrypted flag cannot be specified since device {mapping.get('DeviceName')} "
                "has a snapshot specified.",
            )
    disks = block_devices.merge(mappings, (), partial(_completed, backend, call), default_type="standard")
    if not any(disk.device == root and disk.snapshot_id for disk in disks):
        raise AwsError("InvalidBlockDeviceMapping", f"The root device '{root}' must be mapped to a snapshot; it is not")
    image = _registered(
        backend,
        call,
        architecture="i386",
        name=name,
        root_device=root,
        mappings=disks,
        boot_mode=_one_of(params, "BootMode", "legacy-bios", "uefi", "uefi-preferred"),
        tpm_support=_one_of(params, "TpmSupport", "v2.0"),
        uefi_data=params.get("UefiData"),
        product_codes=_codes_of(backend, disks),
    )
    if image.tpm_support and image.boot_mode != "uefi":
        raise invalid("TpmSupport v2.0 requires the boot mode uefi")
    return {"ImageId": _publish_later(backend, call, image, jobs.publish)}


def _register_bundle(backend: Backend, call: Call, name: str) -> str:
    """Register an instance-store image; its root device is the bundle, and is not mapped."""
    params, location = call.params, str(call.params["ImageLocation"])
    manifest = backend.bundles.manifest(location, account=call.account, region=call.region)
    root = str(params.get("RootDeviceName") or BUNDLE_ROOT)
    disks = block_devices.merge(
        params.get("BlockDeviceMappings", []), (), partial(_completed, backend, call), default_type="standard"
    )
    if any(disk.device == root for disk in disks):
        raise AwsError("InvalidBlockDeviceMapping", f"The root device '{root}' is the bundle, and cannot be mapped")
    image = _registered(
        backend, call, architecture=manifest.architecture, name=name, root_device=root, mappings=disks, bundle=location
    )
    return _publish_later(backend, call, image, jobs.publish)


def _registered(backend: Backend, call: Call, *, architecture: str, **own: Any) -> Image:
    """Make the record of a registered image. `own` are its other fields, `architecture` the parameter's default."""
    params = call.params
    return _new_image(
        backend,
        call,
        new_id("ami"),
        tagging.parse_specifications(params, "image")["image"],
        architecture=_one_of(params, "Architecture", "i386", "x86_64", "arm64") or architecture,
        ena_support=bool(params.get("EnaSupport")),
        sriov=_one_of(params, "SriovNetSupport", "simple"),
        imds_support=_one_of(params, "ImdsSupport", "v2.0"),
        **own,
    )


def checked_description(text: str) -> str:
    """Return an image's description. Raises AwsError as EC2 does for one that is too long or not in ASCII."""
    if len(text) > MAX_DESCRIPTION:
        raise invalid(f"Invalid description. Length exceeds maximum of {MAX_DESCRIPTION}.")
    if not text.isascii():
        raise invalid("Character sets beyond ASCII are not supported.")
    return text


def _new_image(
    backend: Backend, call: Call, image_id: str, tags: Mapping[str, str], *, description: str = "", **own: Any
) -> Image:
    """Make the record of a pending image. `own` are its other fields, `description` the parameter's default."""
    fault = backend.faults.take("fail", call.action, call.params)
    return Image(
        id=image_id,
        account=call.account,
        region=call.region,
        tags=tags,
        description=checked_description(str(call.params.get("Description", description))),
        state="pending",
        fails_with=fault.reason if fault else "",
        created=backend.clock.now(),
        **own,
    )


def _codes_of(backend: Backend, disks: Iterable[DiskSpec]) -> tuple[str, ...]:
    """Return the product codes of the snapshots (API reference, RegisterImage)."""
    found = (backend.database.snapshots.get(disk.snapshot_id or "") for disk in disks)
    return tuple(dict.fromkeys(code for snapshot in found if snapshot for code in snapshot.product_codes))


def _one_of(params: Mapping[str, Any], name: str, *allowed: str) -> str | None:
    value = params.get(name)
    if value is not None and value not in allowed:
        raise invalid(f"Value ({value}) for parameter {name[0].lower()}{name[1:]} is invalid.")
    return value


def _completed(backend: Backend, call: Call, snapshot_id: str) -> Snapshot:
    return lookup.check_completed(lookup.own_snapshot(backend, call, snapshot_id))


def _publish_later(
    backend: Backend, call: Call, image: Image, work: Callable[[Backend, str], None], *, queue: str = ""
) -> str:
    backend.faults.bind(image.id, call.action, call.params, "hang")
    backend.database.put(image)
    backend.submit_later(queue or image.id, work, image.id)
    return image.id


def create_image(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Create an image of an instance, which is stopped for it and started again unless NoReboot is set."""
    params = call.params
    instance = lookup.instance(backend, call, call.text("InstanceId"))
    if instance.bundle:
        raise unsupported(
            f"The instance '{instance.id}' does not have an 'ebs' root device type: it is bundled, and not imaged"
        )
    name = _free_name(backend, call)
    _check_no_key(params.get("BlockDeviceMappings", []))
    if instance.state not in ("running", "stopped"):
        raise AwsError(
            "IncorrectInstanceState", f"The instance {instance.id} is {instance.state}, not running or stopped"
        )
    tags = tagging.parse_specifications(params, "image", "snapshot")
    image_id = new_id("ami")
    taken, base = _volumes_of(backend, instance, image_id, tags["snapshot"])

    def find(snapshot_id: str) -> Snapshot:
        return taken.get(snapshot_id) or lookup.own_snapshot(backend, call, snapshot_id)

    disks = block_devices.merge(params.get("BlockDeviceMappings", []), base, find, root=instance.root_device)
    for disk in disks:
        if disk.snapshot_id in taken:
            backend.database.put(taken[disk.snapshot_id])
    source = backend.database.images.get(instance.image_id)
    image = _new_image(
        backend,
        call,
        image_id,
        tags["image"],
        **instance.inherited(),
        name=name,
        mappings=disks,
        imds_support=source.imds_support if source else None,
        source_image_id=instance.image_id,
        source_image_region=instance.region,
        source_instance_id=instance.id,
        capture=Capture(instance_id=instance.id, reboots=not params.get("NoReboot")),
    )
    return {"ImageId": _publish_later(backend, call, image, jobs.capture, queue=instance.id)}


def _volumes_of(
    backend: Backend, instance: Instance, image_id: str, tags: Mapping[str, str]
) -> tuple[dict[str, Snapshot], list[DiskSpec]]:
    """Make the pending snapshots of the instance's volumes, by id, and their block device mappings."""
    taken, disks = {}, []
    for attached in instance.volumes:
        volume = modifications.with_target(backend, backend.database.volumes[attached.volume_id])
        text = f"Created by CreateImage({instance.id}) for {image_id}"
        snapshot = snapshots.new_snapshot(backend, volume, text, tags)
        taken[snapshot.id] = snapshot
        disks.append(
            DiskSpec(
                device=attached.device,
                snapshot_id=snapshot.id,
                size_gib=volume.size_gib,
                type=volume.type,
                iops=volume.iops if volume.type != "gp2" else None,
                throughput=volume.throughput,
                encrypted=volume.encrypted,
                delete_on_termination=attached.delete_on_termination,
            )
        )
    return taken, disks


def copy_image(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Copy an image into the region that is called."""
    before = idempotency.earlier_result(backend, call)
    if before is not None:
        return {"ImageId": before[0]}
    params = call.params
    there = lookup.in_source_region(call)
    source = lookup.check_available(lookup.image(backend, there, call.text("SourceImageId")))
    product_codes.check_copy(source, call.account)
    if source.bundle:
        raise unsupported("The local cloud does not copy instance-store images: copy the bundle, and register it there")
    name = _free_name(backend, call)
    tags = tagging.parse_specifications(params, "image", "snapshot")
    image_id = new_id("ami")
    copies, disks = [], []
    for disk in source.mappings:
        if disk.snapshot_id is None:
            disks.append(disk)
            continue
        text = f"Copied for DestinationAmi {image_id} from SourceAmi {source.id} for SourceSnapshot {disk.snapshot_id}."
        origin = backend.database.snapshots[disk.snapshot_id]
        if not lookup.may_use_snapshot(backend, call, origin):
            raise AwsError("InvalidRequest", "You do not have permission to access the storage of this ami")
        copy = snapshots.new_copy(backend, call, origin, description=text, tags=tags["snapshot"])
        backend.database.put(copy)
        copies.append(copy)
        disks.append(replace(disk, snapshot_id=copy.id, encrypted=copy.encrypted, kms_key_id=None))
    image = _new_image(
        backend,
        call,
        image_id,
        _copied_tags(params, source, call.account, tags["image"]),
        **source.inherited(),
        name=name,
        description=source.description,
        mappings=tuple(disks),
        uefi_data=source.uefi_data,
        imds_support=source.imds_support,
        source_image_id=source.id,
        source_image_region=source.region,
    )
    idempotency.remember(backend, call, [image_id])
    backend.database.later(partial(jobs.link, backend, copies))
    return {"ImageId": _publish_later(backend, call, image, partial(jobs.publish, delay="copy"))}


def _copied_tags(params: Mapping[str, Any], source: Image, account: str, tags: Mapping[str, str]) -> Mapping[str, str]:
    """Add the source's tags to those of the copy, if that is requested and the source is the caller's own."""
    if not params.get("CopyImageTags") or source.account != account:
        return tags
    return tagging.merge(source.tags, tags)
