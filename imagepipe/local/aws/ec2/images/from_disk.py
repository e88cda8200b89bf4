"""Register a disk in the store as an image of the store's first account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.local.aws.authentication.signature import Identity
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.images.create import check_free_name
from imagepipe.local.aws.ec2.region_setup import prepare_region, records_of_disk
from imagepipe.local.aws.protocol.errors import invalid
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.disks.base_image import BaseImage
from imagepipe.local.host import foreign

FOLDER = "imports"
"""Folder of imports, beside the folders of volumes and snapshots. A disk must be in it to be registered."""


def register_disk(backend: Backend, identity: Identity, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Register the disk `file` of the folder as image `name` in `region`; raises AwsError, StoreFull."""
    path = backend.disks.root / FOLDER / str(wanted["file"])
    if path.name != wanted["file"] or not path.is_file():
        raise invalid(f"{wanted['file']} is not in {path.parent}")
    region = str(wanted["region"])
    disk = BaseImage(
        path=path,
        name=str(wanted["name"]),
        description=str(wanted["description"]),
        architecture=str(wanted["architecture"]),
        size_gib=int(wanted["size_gib"]),
        created=backend.clock.now(),
        boot_mode=str(wanted["boot_mode"]),
    )
    prepare_region(backend, identity.account, region)
    check_free_name(backend, identity.account, region, disk.name)
    snapshot, image = records_of_disk(
        disk, identity.account, region, snapshot_id=new_id("snap"), image_id=new_id("ami")
    )
    foreign.set_mode(path, 0o400, is_foreign_itself=True)
    backend.disks.adopt_snapshot(path, snapshot.id)
    with backend.database.change():
        check_free_name(backend, identity.account, region, disk.name)
        backend.database.put(snapshot)
        backend.database.put(image)
    return {"image": image.id, "snapshot": snapshot.id}
