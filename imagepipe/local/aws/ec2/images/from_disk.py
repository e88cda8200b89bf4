"""A disk that somebody has put into the store, made an image of the store's first account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.local.aws.authentication.signature import Identity
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.images.create import check_free_name
from imagepipe.local.aws.protocol.errors import invalid
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.state.records import DiskSpec, Image, Snapshot
from imagepipe.local.host import foreign

FOLDER = "imports"
"""Beside the disks' own folders: what is taken must be there already."""
ROOT_DEVICE = "/dev/xvda"


def take(backend: Backend, identity: Identity, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Register the disk `file` of the folder as image `name` in `region`; raises AwsError, StoreFull."""
    path = backend.disks.root / FOLDER / str(wanted["file"])
    if path.name != wanted["file"] or not path.is_file():
        raise invalid(f"{wanted['file']} is not in {path.parent}")
    region, size_gib, description = str(wanted["region"]), int(wanted["size_gib"]), str(wanted["description"])
    name, now = str(wanted["name"]), backend.clock.now()
    backend.settle(identity.account, region)
    check_free_name(backend, identity.account, region, name)
    snapshot_id, image_id = new_id("snap"), new_id("ami")
    foreign.set_mode(path, 0o400, is_foreign_itself=True)
    backend.disks.adopt_snapshot(path, snapshot_id)
    with backend.database.change():
        check_free_name(backend, identity.account, region, name)
        backend.database.put(
            Snapshot(
                id=snapshot_id,
                account=identity.account,
                region=region,
                volume_id="vol-ffffffff",
                size_gib=size_gib,
                state="completed",
                progress=100,
                description=description,
                start_time=now,
                completion_time=now,
            )
        )
        backend.database.put(
            Image(
                id=image_id,
                account=identity.account,
                region=region,
                name=name,
                description=description,
                state="available",
                created=now,
                root_device=ROOT_DEVICE,
                mappings=(
                    DiskSpec(device=ROOT_DEVICE, snapshot_id=snapshot_id, size_gib=size_gib, type="gp3", iops=3000,
                             throughput=125),
                ),
                ena_support=True,
                sriov="simple",
                boot_mode="legacy-bios",
            )
        )  # fmt: skip
    return {"image": image_id, "snapshot": snapshot_id}
