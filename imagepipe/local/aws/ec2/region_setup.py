"""Prepare a region as a new account finds it: default VPC, default security groups, Debian's images."""

from __future__ import annotations

import re
from dataclasses import replace

from imagepipe.clock import iso
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.protocol.ids import new_id, stable_id
from imagepipe.local.aws.state.records import DiskSpec, Image, Rule, SecurityGroup, Snapshot
from imagepipe.local.disks.base_image import BaseImage

BASE_NAME = re.compile(r"debian-(\d+)-([a-z0-9]+)-")
DEBIAN = "136693071363"  # wiki.debian.org/Cloud/AmazonEC2Image: the account of Debian's official images


def prepare_region(backend: Backend, account: str, region: str) -> None:
    """Make what the region lacks. Raises AwsError for an unknown region, and StoreFull."""
    backend.network.prepare(account, region)
    prepare_base_images(backend, region)
    if _have_default_group(backend, account, region) != set(backend.network.vpc_ids(account, region)):
        _update_default_groups(backend, account, region)


def _have_default_group(backend: Backend, account: str, region: str) -> set[str]:
    return {group.vpc_id for group in backend.database.groups.owned(account, region) if group.name == "default"}


def _update_default_groups(backend: Backend, account: str, region: str) -> None:
    """Create and delete default groups to match the VPCs, which moto creates and deletes."""
    with backend.database.change():
        present = backend.network.vpc_ids(account, region)
        for vpc_id in set(present) - _have_default_group(backend, account, region):
            backend.database.put(_default_group(account, region, vpc_id))
        for group in backend.database.groups.owned(account, region):
            if group.name == "default" and group.vpc_id not in present:
                backend.database.remove(group)


def prepare_base_images(backend: Backend, region: str) -> None:
    """Make Debian's images in the region. Raises StoreFull: the images of the first region need disk space."""
    for base in (backend.base, backend.base.as_disk()):
        if base is not None and backend.database.images.get(base_image_id(base, region)) is None:
            _make_base_image(backend, base, region)


def base_image_id(base: BaseImage, region: str) -> str:
    """Return the id that the image of a base image has in this region."""
    return stable_id("ami", base.name, iso(base.created), region)


def name_of_base(backend: Backend) -> str | None:
    """Return the name of the base image's public parameter in Systems Manager.

    It is /aws/service/debian/release/VERSION/latest/ARCHITECTURE (wiki.debian.org/Cloud/AmazonEC2Image)."""
    found = BASE_NAME.match(backend.base.name)
    return f"/aws/service/debian/release/{found[1]}/latest/{found[2]}" if found else None


def _make_base_image(backend: Backend, base: BaseImage, region: str) -> None:
    # Two first requests may get here at the same time; both then write the same records.
    snapshot_id = stable_id("snap", base.name, iso(base.created), region)
    if not backend.disks.snapshot_path(snapshot_id).exists():
        _adopt_base(backend, base, snapshot_id)
    snapshot, image = records_of_disk(
        base, DEBIAN, region, snapshot_id=snapshot_id, image_id=base_image_id(base, region)
    )
    with backend.database.change():
        backend.database.put(replace(snapshot, users=("all",)))
        backend.database.put(replace(image, users=("all",)))


def _adopt_base(backend: Backend, base: BaseImage, snapshot_id: str) -> None:
    """Make a snapshot of the base image, if possible as a copy of another region's, which takes no disk space."""
    for other in backend.database.snapshots:
        is_same = (other.account, other.start_time, other.description) == (DEBIAN, base.created, base.description)
        if is_same and backend.disks.snapshot_path(other.id).exists():
            return backend.disks.copy_snapshot(other.id, snapshot_id)
    return backend.disks.adopt_snapshot(base.path, snapshot_id)


def records_of_disk(
    disk: BaseImage, account: str, region: str, *, snapshot_id: str, image_id: str
) -> tuple[Snapshot, Image]:
    """Make the records of a disk: a completed snapshot, and an available image of it."""
    snapshot = Snapshot(
        id=snapshot_id,
        account=account,
        region=region,
        volume_id="vol-ffffffff",
        size_gib=disk.size_gib,
        state="completed",
        progress=100,
        description=disk.description,
        start_time=disk.created,
        completion_time=disk.created,
    )
    root = DiskSpec(
        device=disk.root_device, snapshot_id=snapshot_id, size_gib=disk.size_gib, type="gp3", iops=3000, throughput=125
    )
    image = Image(
        id=image_id,
        account=account,
        region=region,
        name=disk.name,
        description=disk.description,
        state="available",
        created=disk.created,
        root_device=disk.root_device,
        mappings=(root,),
        architecture=disk.architecture,
        ena_support=True,
        sriov="simple",
        boot_mode=disk.boot_mode,
    )
    return snapshot, image


def _default_group(account: str, region: str, vpc_id: str) -> SecurityGroup:
    """Make the group that every VPC has: open within itself, and to the outside."""
    group_id = new_id("sg")
    inside = Rule(id=new_id("sgr"), protocol="-1", from_port=-1, to_port=-1, group_id=group_id, group_account=account)
    return SecurityGroup(
        id=group_id,
        account=account,
        region=region,
        name="default",
        description="default VPC security group",
        vpc_id=vpc_id,
        ingress=(inside,),
        egress=(open_egress(),),
    )


def open_egress() -> Rule:
    """Make the rule of a new group, which allows all traffic out."""
    return Rule(id=new_id("sgr"), protocol="-1", from_port=-1, to_port=-1, cidr="0.0.0.0/0")
