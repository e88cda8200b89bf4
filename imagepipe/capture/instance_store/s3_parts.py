"""A bundle's parts in S3, each looked at once it is there; what is there already is not sent again."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from imagepipe.bundle.document import LARGEST_BYTES
from imagepipe.bundle.manifest import Manifest, read_manifest
from imagepipe.cloud.s3 import S3, Presigned
from imagepipe.errors import BundleError
from imagepipe.values import BundlePart


class S3Parts:
    """The parts of one bundle. Safe from any thread."""

    def __init__(self, s3: S3, bucket: str, folder: str, *, may_be_there: bool = False) -> None:
        """With `may_be_there` an earlier process may have put some of them."""
        self._s3 = s3
        self._bucket = bucket
        self._folder = folder
        self._may_be_there = may_be_there
        self._seen: dict[str, BundlePart] = {}
        self._lock = Lock()

    def has(self, part: BundlePart) -> bool:
        """Whether this very part was put before, and is still there."""
        with self._lock:
            known = self._seen.get(part.filename)
        if (known != part and not self._may_be_there) or not self._is_there(part):
            return False
        with self._lock:
            self._seen[part.filename] = part
        return True

    def presign_put(self, part: BundlePart) -> Presigned:
        """A URL for these bytes alone."""
        return self._s3.presigned_put(self._bucket, self._key(part.filename), md5=part.md5)

    def put(self, part: BundlePart, content: bytes) -> None:
        """Send a part from here, and see that it is there. Raises CloudError, BundleError."""
        self._s3.put(self._bucket, self._key(part.filename), content)
        self.confirm(part)

    def confirm(self, part: BundlePart) -> None:
        """Raise BundleError unless S3 has the part, with its size and digest."""
        if not self._is_there(part):
            raise BundleError(
                f"{self._key(part.filename)} in bucket {self._bucket} is not what was uploaded ({part.size} bytes, MD5"
                f" {part.md5})",
                hint="somebody else writes to the bucket, or it encrypts with KMS, which EC2 cannot read",
            )
        with self._lock:
            self._seen[part.filename] = part

    def finish(self, filename: str, manifest: bytes) -> None:
        """Put the manifest: from here on it is a bundle. What is left of an earlier try goes before."""
        with self._lock:
            known = {self._key(name) for name in self._seen}
        self._s3.delete(self._bucket, [key for key in self._s3.keys(self._bucket, self._key("")) if key not in known])
        self._s3.put(self._bucket, self._key(filename), manifest)

    def finished(self, filename: str) -> Manifest:
        """The manifest that an earlier process has put, its parts seen to be there. Raises CloudError, BundleError."""
        manifest = read_manifest(self._s3.read(self._bucket, self._key(filename), limit_bytes=LARGEST_BYTES))
        for part in manifest.parts:
            seen = self._s3.stored(self._bucket, self._key(part.filename))
            if seen is None:
                raise BundleError(f"{self._key(part.filename)} is gone from bucket {self._bucket}")
            self._seen[part.filename] = BundlePart(part.filename, seen.size, seen.md5)
        return manifest

    def as_seen(self, manifest: Manifest) -> tuple[BundlePart, ...]:
        """The manifest's parts, as they were seen in S3. Raises BundleError where one never was."""
        with self._lock:
            missing = [part.filename for part in manifest.parts if part.filename not in self._seen]
            if missing:
                raise BundleError(f"{missing[0]} of {manifest.name} was never seen in bucket {self._bucket}")
            return tuple(self._seen[part.filename] for part in manifest.parts)

    def check_seen(self, parts: Iterable[BundlePart]) -> None:
        """Raise BundleError unless each of these very parts was confirmed."""
        with self._lock:
            for part in parts:
                if self._seen.get(part.filename) != part:
                    raise BundleError(f"{part.filename} was never seen in bucket {self._bucket} as it was made")

    def _is_there(self, part: BundlePart) -> bool:
        seen = self._s3.stored(self._bucket, self._key(part.filename))
        return seen is not None and (seen.size, seen.md5) == (part.size, part.md5)

    def _key(self, filename: str) -> str:
        return f"{self._folder}/{filename}"
