"""Verify a bundle without writing anything; report all damage at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from imagepipe.bundle.cipher import Secret
from imagepipe.bundle.manifest import Manifest
from imagepipe.bundle.parts import PartSource, read_part
from imagepipe.bundle.unpack import image_data
from imagepipe.errors import BundleError


def verify_parts(
    manifest: Manifest, source: PartSource, *, progress: Callable[[int], None] = lambda _: None
) -> Iterator[BundleError]:
    """Yield the problem of each damaged part: missing, too large, or different from the manifest.

    `progress` is called with the number of bytes verified since its last call.
    """
    size: int | None = 0
    for part in manifest.parts:
        try:
            content = read_part(source, part, manifest.parts)
        except BundleError as damage:
            size = None
            yield damage
        else:
            size = None if size is None else size + len(content)
            progress(len(content))
    if size not in (None, manifest.bundled_size):
        yield BundleError(f"the parts have {size} bytes, but the manifest has {manifest.bundled_size}")


def verify_image(
    manifest: Manifest,
    source: PartSource,
    secret: Secret,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Read the whole image, as unpacking does. Raises BundleError.

    `progress` is called with the number of bytes of the image read since its last call.
    """
    done = 0
    with closing(image_data(manifest, source, secret)) as data:
        for offset, content in data:
            progress(offset + len(content) - done)
            done = offset + len(content)
    progress(manifest.size - done)
