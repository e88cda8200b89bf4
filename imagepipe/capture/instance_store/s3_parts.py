"""The parts of a bundle in S3: each is verified after its upload; existing ones are not uploaded again."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from imagepipe.bundle.document import LARGEST_BYTES
from imagepipe.bundle.manifest import Manifest, read_manifest
from imagepipe.cloud.s3 import S3, Presigned
from imagepipe.errors import BundleError
from imagepipe.values import BundlePart


class S3Parts:
    """The parts of one bundle; thread-safe."""

    def __init__(self, s3: S3, bucket: str, folder: str, *, may_be_there: bool = False) -> None:
        """Set `may_be_there` if an earlier process may have uploaded some of the parts."""
        self._s3 = s3
        self._bucket = bucket
        self._folder = folder
        self._may_be_there = may_be_there
        self._seen: dict[str, BundlePart] = {}
        self._lock = Lock()

    def has(self, part: BundlePart) -> bool:
        """Return whether exactly this part was uploaded before and still exists."""
        with self._lock:
            known = self._seen.get(part.filename)
        if (known != part and not self._may_be_there) or not self._is_there(part):
            return False
        with self._lock:
            self._seen[part.filename] = part
        return True

    def presign_put(self, part: BundlePart) -> Presigned:
        """Return a presigned URL that accepts only these bytes."""
        return self._s3.presigned_put(self._bucket, self._key(part.filename), md5=part.md5)

    def put(self, part: BundlePart, content: bytes) -> None:
        """Upload a part from here and verify it. Raises CloudError, BundleError."""
        self._s3.put(self._bucket, self._key(part.filename), content)
        self.confirm(part)

    def confirm(self, part: BundlePart) -> None:
        """Raise BundleError unless S3 has the part with its size and digest."""
        if not self._is_there(part):
            raise BundleError(
                f"{self._key(part.filename)} in bucket {self._bucket} differs from the upload ({part.size} bytes, MD5"
                f" {part.md5})",
                hint="somebody else writes to the bucket, or it encrypts with KMS, which EC2 cannot read",
            )
        with self._lock:
            self._seen[part.filename] = part

    def finish(self, filename: str, manifest: bytes) -> None:
        """Delete leftovers of earlier attempts, then put the manifest, which completes the bundle."""
        with self._lock:
            known = {self._key(name) for name in self._seen}
        self._s3.delete(self._bucket, [key for key in self._s3.keys(self._bucket, self._key("")) if key not in known])
        self._s3.put(self._bucket, self._key(filename), manifest)

    def finished(self, filename: str) -> Manifest:
        """Return an earlier process's manifest, once its parts are known to exist. Raises CloudError, BundleError."""
        manifest = read_manifest(self._s3.read(self._bucket, self._key(filename), limit_bytes=LARGEST_BYTES))
        for part in manifest.parts:
            seen = self._s3.stored(self._bucket, self._key(part.filename))
            if seen is None:
                raise BundleError(f"{self._key(part.filename)} is gone from bucket {self._bucket}")
            self._seen[part.filename] = BundlePart(part.filename, seen.size, seen.md5)
        return manifest

    def as_seen(self, manifest: Manifest) -> tuple[BundlePart, ...]:
        """Return the manifest's parts as they were seen in S3. Raises BundleError if one was never seen."""
        with self._lock:
            missing = [part.filename for part in manifest.parts if part.filename not in self._seen]
            if missing:
                raise BundleError(f"{missing[0]} of {manifest.name} was never seen in bucket {self._bucket}")
            return tuple(self._seen[part.filename] for part in manifest.parts)

    def check_seen(self, parts: Iterable[BundlePart]) -> None:
        """Raise BundleError unless exactly these parts were confirmed."""
        with self._lock:
            for part in parts:
                if self._seen.get(part.filename) != part:
                    raise BundleError(f"{part.filename} was never confirmed in bucket {self._bucket}")

    def _is_there(self, part: BundlePart) -> bool:
        seen = self._s3.stored(self._bucket, self._key(part.filename))
        return seen is not None and (seen.size, seen.md5) == (part.size, part.md5)

    def _key(self, filename: str) -> str:
        return f"{self._folder}/{filename}"
