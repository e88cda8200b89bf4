"""A bundle in S3: find its objects by its manifest, find the images that use it, delete it."""

from __future__ import annotations

from imagepipe.bundle.document import LARGEST_BYTES
from imagepipe.bundle.manifest import Manifest, read_manifest
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.s3 import ABSENT, S3
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError, CloudError


@dataclass(frozen=True, slots=True)
class InBucket:
    """The objects of a bundle."""

    bucket: str
    manifest_key: str
    manifest: Manifest
    size: int
    """Size of all objects in bytes, according to the manifest."""

    @property
    def location(self) -> str:
        """Location of the manifest, as RegisterImage takes it."""
        return f"{self.bucket}/{self.manifest_key}"

    def key(self, filename: str) -> str:
        """Return the key of a part, which is in the manifest's folder."""
        return f"{self.manifest_key[: self.manifest_key.rfind('/') + 1]}{filename}"

    def keys(self) -> list[str]:
        """Return the keys of the parts in order, then the manifest's."""
        return [*(self.key(part.filename) for part in self.manifest.parts), self.manifest_key]

    def describe(self) -> str:
        """Describe the size of the bundle, as text for a message."""
        return f"{len(self.manifest.parts) + 1} objects, {describe_size(self.size)}"


def look_up(s3: S3, location: str) -> InBucket:
    """Return the bundle whose manifest is at `bucket/folder/NAME.manifest.xml`.

    Raises CloudError if that cannot be read, BundleError if it is not a manifest.
    """
    bucket, _, key = location.partition("/")
    if not key:
        raise BundleError(f"{location} is not the location of a manifest: it has no key")
    document = s3.read(bucket, key, limit_bytes=LARGEST_BYTES)
    manifest = read_manifest(document)
    return InBucket(bucket, key, manifest, manifest.bundled_size + len(document))


def users(ec2: Ec2, bundle: InBucket, *, but: str) -> list[str]:
    """Return the account's images that use the bundle's manifest or one of its parts, except `but`. Raises CloudError.

    Manifests in the same folder can share parts, for example one for each region or kernel. An image is counted as a
    user if its manifest cannot be read, but not if its manifest is gone. Pass a deregistered image as `but`, because
    EC2 may still list it for a while.
    """
    objects = set(bundle.keys())
    others = [image for image in ec2.images.own_registered_beside(bundle.location) if image.id != but]
    return [image.id for image in others if image.bundle and objects & _objects(ec2.s3, image.bundle, objects)]


def _objects(s3: S3, location: str, if_unknown: set[str]) -> set[str]:
    """Return the keys of a bundle: none if its manifest is gone, `if_unknown` if the manifest cannot be read."""
    try:
        return set(look_up(s3, location).keys())
    except CloudError as error:
        return set() if error.code in ABSENT else if_unknown
    except BundleError:
        return if_unknown


def delete(s3: S3, bundle: InBucket) -> None:
    """Delete the parts and then the manifest, which lists any parts that are left. Raises CloudError."""
    *parts, manifest = bundle.keys()
    s3.delete(bundle.bucket, parts)
    s3.delete(bundle.bucket, [manifest])


def describe_size(size: int) -> str:
    """Format a number of bytes, in GiB or MiB."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
