"""A bundle that is in S3: read by its manifest, and deleted where no image is registered from it any more."""

from __future__ import annotations

from dataclasses import dataclass

from imagepipe.bundle.document import LARGEST_BYTES
from imagepipe.bundle.manifest import Manifest, read_manifest
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.s3 import ABSENT, S3
from imagepipe.errors import BundleError, CloudError


@dataclass(frozen=True, slots=True)
class InBucket:
    """The objects of a bundle."""

    bucket: str
    manifest_key: str
    manifest: Manifest
    size: int
    """Bytes of them all, as the manifest has it."""

    @property
    def location(self) -> str:
        """As RegisterImage takes it."""
        return f"{self.bucket}/{self.manifest_key}"

    def key(self, filename: str) -> str:
        """Of a part, which is beside its manifest."""
        return f"{self.manifest_key[: self.manifest_key.rfind('/') + 1]}{filename}"

    def keys(self) -> list[str]:
        """Of the parts in their order, and of the manifest at the end."""
        return [*(self.key(part.filename) for part in self.manifest.parts), self.manifest_key]

    def describe(self) -> str:
        """How much it is."""
        return f"{len(self.manifest.parts) + 1} objects, {describe_size(self.size)}"


def look_up(s3: S3, location: str) -> InBucket:
    """The bundle whose manifest is at `bucket/folder/NAME.manifest.xml`.

    Raises CloudError where that cannot be read, BundleError where it is no manifest.
    """
    bucket, _, key = location.partition("/")
    if not key:
        raise BundleError(f"{location} is no location of a manifest: it has no key")
    document = s3.read(bucket, key, limit_bytes=LARGEST_BYTES)
    manifest = read_manifest(document)
    return InBucket(bucket, key, manifest, manifest.bundled_size + len(document))


def users(ec2: Ec2, bundle: InBucket, *, but: str) -> list[str]:
    """The account's images that are made of the bundle's manifest or of one of its parts, another one left out.

    Manifests are made for one another: of another region, with another kernel, beside the first and of the same parts.
    One that cannot be read may be such; one that is gone is of use to nobody. EC2 may go on listing an image for a
    while after it was deregistered: that is the one to leave out. Raises CloudError.
    """
    objects = set(bundle.keys())
    others = [image for image in ec2.images.own_registered_beside(bundle.location) if image.id != but]
    return [image.id for image in others if image.bundle and objects & _objects(ec2.s3, image.bundle, objects)]


def _objects(s3: S3, location: str, if_unknown: set[str]) -> set[str]:
    """The keys of the bundle that is registered from there."""
    try:
        return set(look_up(s3, location).keys())
    except CloudError as error:
        return set() if error.code in ABSENT else if_unknown
    except BundleError:
        return if_unknown


def delete(s3: S3, bundle: InBucket) -> None:
    """Delete the parts, and only then the manifest: while something is left, it says what. Raises CloudError."""
    *parts, manifest = bundle.keys()
    s3.delete(bundle.bucket, parts)
    s3.delete(bundle.bucket, [manifest])


def describe_size(size: int) -> str:
    """Bytes for people."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
