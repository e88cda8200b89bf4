"""The ancestry of images: the images that they were created or copied from (EC2 user guide, "AMI ancestry")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Ancestor, Image

MAX_ENTRIES = 50  # EC2 user guide: "the maximum number of AMIs in an ancestry list is 50"


def get_image_ancestry(backend: Backend, call: Call) -> Mapping[str, Any]:
    """List the image and its ancestors, also those that were deregistered or belong to other accounts."""
    image = lookup.image(backend, call, call.text("ImageId"))
    return {"ImageAncestryEntries": [_to_api(each) for each in _chain(backend, image)]}


def remember(backend: Backend, image: Image) -> None:
    """Record the lineage of an image that is deregistered now."""
    backend.database.put(
        Ancestor(
            id=image.id,
            account=image.account,
            region=image.region,
            created=image.created,
            source_image_id=image.source_image_id,
            source_image_region=image.source_image_region,
        )
    )


def forget_childless(backend: Backend) -> None:
    """Delete the lineage of images from which no image, no image in Recycle Bin and no instance descends."""
    database = backend.database
    needed = {row.source_image_id for row in database.images} | {row.image_id for row in database.instances}
    for recycled in database.recycled_images:
        needed |= {recycled.id, recycled.image.source_image_id}
    waiting = [identifier for identifier in needed if identifier]
    while waiting:
        source = _find(backend, waiting.pop())
        if source is not None and source.source_image_id and source.source_image_id not in needed:
            needed.add(source.source_image_id)
            waiting.append(source.source_image_id)
    for ancestor in database.ancestors:
        if ancestor.id not in needed:
            database.remove(ancestor)


def _chain(backend: Backend, image: Image) -> Iterator[Image | Ancestor]:
    found: Image | Ancestor | None = image
    for _ in range(MAX_ENTRIES):
        if found is None:
            return
        yield found
        found = _find(backend, found.source_image_id or "")


def _find(backend: Backend, image_id: str) -> Image | Ancestor | None:
    return backend.database.images.get(image_id) or backend.database.ancestors.get(image_id)


def _to_api(image: Image | Ancestor) -> dict[str, Any]:
    return {
        "CreationDate": image.created,
        "ImageId": image.id,
        "ImageOwnerAlias": None,  # no image here is Amazon's or Marketplace's
        "SourceImageId": image.source_image_id,
        "SourceImageRegion": image.source_image_region,
    }
