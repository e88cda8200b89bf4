"""The place of shared state: a bucket, a prefix, and the key that encrypts the objects."""

from __future__ import annotations

import re

from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
"""Characters that need no encoding anywhere (S3 user guide, "Naming Amazon S3 objects")."""
SCHEME = "s3://"


@dataclass(frozen=True, slots=True)
class StateLocation:
    """A place in S3 for runs."""

    bucket: str
    prefix: str = ""
    """Begin of all keys: empty, or with a slash at the end."""
    kms_key: str | None = None
    """KMS key of the objects; None for the default encryption of the bucket: SSE-S3, unless it has another."""

    @classmethod
    def parse(cls, url: str, kms_key: str | None = None) -> StateLocation:
        """Parse `s3://BUCKET/PREFIX`. Raises UsageError."""
        bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
        prefix = prefix.removesuffix("/")
        if not url.startswith(SCHEME) or not BUCKET.fullmatch(bucket) or (prefix and not PREFIX.fullmatch(prefix)):
            raise UsageError(f"state {url!r} is not a place in S3", hint="write s3://BUCKET/PREFIX, or s3://BUCKET")
        return cls(bucket, f"{prefix}/" if prefix else "", kms_key)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".removesuffix("/")
