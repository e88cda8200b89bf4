"""Objects of shared state: whole writes that succeed only if the object is absent, or as it was read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any

from imagepipe.clock import Clock
from imagepipe.cloud.errors import DENIED, translating
from imagepipe.cloud.s3 import ABSENT
from imagepipe.cloud.session import FIRST_REGION, Session
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError
from imagepipe.state.location import StateLocation

READERS = 16
"""Objects that are read at once."""
CONFLICT = "ConditionalRequestConflict"
"""S3's answer to a conditional write that met another write of the same object; it may be repeated."""
CONFLICT_PAUSES = (0.05, 0.2, 0.8, 2.0)
CHANGED = frozenset({"PreconditionFailed", "412"})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as S3 returned it."""

    content: bytes
    etag: str
    modified: datetime
    """Time of its last write by S3's clock, in whole seconds."""
    date: datetime
    """Time of the answer by S3's clock, in whole seconds."""


class Conflict(Exception):
    """The object exists already, or is not the one that was read."""


class StateBucket:
    """The bucket of shared state, in its own region; thread-safe."""

    def __init__(self, session: Session, location: StateLocation, clock: Clock) -> None:
        """Find the bucket's region. Raises CloudError if the bucket does not exist, or if we may not use it."""
        self.location = location
        self._clock = clock
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="state")
        self.home = session.region or FIRST_REGION
        self.region = self._region(session)
        self._client: Any = session.client("s3", self.region)
        key = location.kms_key
        # Without a key, no header is sent: then the bucket's own default applies, which is encryption too.
        self._encryption: Mapping[str, Any] = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key, "BucketKeyEnabled": True} if key else {}
        )

    def _region(self, session: Session) -> str:
        bucket = self.location.bucket
        try:
            with self._translating(f"looking for the state bucket {bucket}"):
                found = session.client("s3", self.home).head_bucket(Bucket=bucket)
        except CloudError as error:
            if error.code not in ABSENT | {"NoSuchBucket"}:
                raise
            constraint = f" --create-bucket-configuration LocationConstraint={self.home}"
            raise CloudError(
                f"the state bucket {bucket} does not exist",
                code="NoSuchBucket",
                hint=f"create it: aws s3api create-bucket --bucket {bucket} --region {self.home}"
                + ("" if self.home == FIRST_REGION else constraint),
            ) from error
        return str(found.get("BucketRegion") or self.home)

    def read(self, key: str) -> StoredObject | None:
        """Return the object at this key; None if it does not exist."""
        try:
            with self._translating(f"reading {self._url(key)}"):
                answer = self._client.get_object(Bucket=self.location.bucket, Key=self._key(key))
                with answer["Body"] as body:
                    content = bytes(body.read())
        except CloudError as error:
            if error.code in ABSENT:
                return None
            raise
        date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return StoredObject(content, str(answer["ETag"]), answer["LastModified"], date)

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """Yield the contents of objects, in the order of the keys. Raises CloudError if one does not exist."""
        for key, found in zip(keys, self._pool.map(self.read, keys), strict=True):
            if found is None:
                raise CloudError(f"{self._url(key)} does not exist", code="NoSuchKey")
            yield found.content

    def create(self, key: str, content: bytes) -> str:
        """Write an object that does not exist; return its ETag. Raises Conflict if it does."""
        return self._put(key, content, IfNoneMatch="*")

    def replace(self, key: str, content: bytes, etag: str) -> str:
        """Replace an object that still has this ETag; return the new one. Raises Conflict if it has another."""
        return self._put(key, content, IfMatch=etag)

    def put(self, key: str, content: bytes) -> str:
        """Write an object, whether or not it exists; return its ETag."""
        return self._put(key, content)

    def listed(self, prefix: str, *, after: str = "") -> list[tuple[str, datetime]]:
        """Return all keys with the prefix, in order, each with the time of its last write; only those after a key."""
        start = {"StartAfter": self._key(after)} if after else {}
        own = len(self.location.prefix)
        with self._translating(f"listing {self._url(prefix)}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.location.bucket, Prefix=self._key(prefix), **start
            )
            return [(str(row["Key"])[own:], row["LastModified"]) for page in pages for row in page.get("Contents", ())]

    def keys(self, prefix: str, *, after: str = "") -> list[str]:
        """Return all keys with the prefix, in order; only those after a key."""
        return [key for key, _ in self.listed(prefix, after=after)]

    def _put(self, key: str, content: bytes, **condition: str) -> str:
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        for pause in (*CONFLICT_PAUSES, None):
            try:
                with self._translating(f"writing {self._url(key)}"):
                    answer = self._client.put_object(
                        Bucket=self.location.bucket,
                        Key=self._key(key),
                        Body=content,
                        ContentMD5=md5,
                        **condition,
                        **self._encryption,
                    )
                    return str(answer["ETag"])
            except CloudError as error:
                # An object that was to be replaced may also be gone.
                if condition and error.code in CHANGED | ABSENT:
                    raise Conflict(self._url(key)) from error
                if error.code != CONFLICT or pause is None:
                    raise
                self._clock.wait(Event(), pause)
        raise AssertionError("the last attempt returns or raises")

    def _key(self, key: str) -> str:
        return f"{self.location.prefix}{key}"

    def _url(self, key: str) -> str:
        return f"s3://{self.location.bucket}/{self._key(key)}"

    @contextmanager
    def _translating(self, operation: str) -> Iterator[None]:
        """Translate errors, with hints for shared state instead of those for bundles."""
        try:
            with translating(operation, service="s3"):
                yield
        except CloudError as error:
            if error.code in DENIED:
                error.hint = f"these permissions are needed: imagepipe policy --state {self.location} SPEC"
            elif error.code == "NoSuchBucket":
                error.hint = "the bucket of --state, IMAGEPIPE_STATE or imagepipe.yaml must exist"
            elif error.code.startswith("KMS.") or "kms" in error.message.lower():
                error.hint = "the KMS key of the state must exist, be enabled, and allow these credentials to use it"
            raise
