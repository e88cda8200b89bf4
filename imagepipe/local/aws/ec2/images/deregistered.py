"""Remember deregistered images: for a while, EC2 describes them as an empty result and not as an unknown id."""

from __future__ import annotations

from datetime import timedelta

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.state.records import DeregisteredImage, Image

# "a short interval", and at least until all instances of the image are terminated (API reference, DescribeImages)
REMEMBERED = timedelta(hours=1)


def remember(backend: Backend, image: Image) -> None:
    """Record that an image is deregistered now."""
    forget_old(backend)
    backend.database.put(
        DeregisteredImage(
            id=image.id,
            account=image.account,
            region=image.region,
            users=image.users,
            deregistered=backend.clock.now(),
        )
    )


def find(backend: Backend, image_id: str) -> DeregisteredImage | None:
    """Return the image if it was deregistered recently, or an instance of it is not terminated yet."""
    found = backend.database.deregistered_images.get(image_id)
    return found if found is not None and _is_remembered(backend, found) else None


def forget_old(backend: Backend) -> None:
    """Delete the records of images that were deregistered long ago and have no instances."""
    for image in backend.database.deregistered_images:
        if not _is_remembered(backend, image):
            backend.database.remove(image)


def _is_remembered(backend: Backend, image: DeregisteredImage) -> bool:
    if image.deregistered > backend.clock.now() - REMEMBERED:
        return True
    return any(row.image_id == image.id and row.state != "terminated" for row in backend.database.instances)
