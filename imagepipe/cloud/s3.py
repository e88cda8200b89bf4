"""S3 in one region for bundles: put, inspect, read, copy, list and delete objects; check a bucket."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Any

from imagepipe.clock import Clock
from imagepipe.cloud.consistency import ignore_missing
from imagepipe.cloud.errors import DENIED, translating
from imagepipe.cloud.session import FIRST_REGION, Session
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError

EXEC_READ = "aws-exec-read"
"""Canned ACL that lets the owner and EC2 read an object (S3 user guide, "Canned ACL")."""
DELETE_KEYS = 1000
"""Largest number of keys in one DeleteObjects call."""
SHOWN_KEYS = 3
PROBE = b"imagepipe: may a bundle be put here?\n"
ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
UNKNOWN = frozenset({"NotImplemented", "MethodNotAllowed", "405", "501"})
"""Error codes of S3-compatible stores for the newer settings of buckets."""


def folder_of(prefix: str, token: str) -> str:
    """Return the folder of a bundle's keys, without a final slash. It contains the token, so no other claim has it."""
    return f"{prefix}/{token}" if prefix else token


@dataclass(frozen=True, slots=True)
class Presigned:
    """A URL that lets its holder put one object, and the headers that must be sent with it."""

    url: str = field(repr=False)
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as HeadObject describes it."""

    size: int
    """Bytes."""
    md5: str
    """MD5 in lower-case hex: the ETag of an object that was put in one request without KMS."""


class S3:
    """S3 in one region; thread-safe."""

    def __init__(self, session: Session, region: str, clock: Clock) -> None:
        self.region = region
        self._client: Any = session.client("s3", region)
        self._signer: Any = session.client_of_instances("s3", region, has_virtual_hosts=True)
        self._path_signer: Any = session.client_of_instances("s3", region)

    def presigned_put(self, bucket: str, key: str, *, md5: str, seconds: int = 900) -> Presigned:
        """Return a presigned URL that accepts only these bytes at this key, readable by EC2. `md5` is lower-case hex.

        Makes no request. The URL also expires with the credentials that signed it.
        """
        content_md5 = base64.b64encode(bytes.fromhex(md5)).decode()
        # S3's TLS certificates do not cover hosts with a dot in the bucket's name.
        signer = self._path_signer if "." in bucket else self._signer
        with translating(f"signing a URL for {bucket}/{key}", service="s3"):
            url = signer.generate_presigned_url(
                "put_object",
                Params={"Bucket": bucket, "Key": key, "ContentMD5": content_md5, "ACL": EXEC_READ},
                ExpiresIn=seconds,
            )
        return Presigned(url, {"Content-MD5": content_md5, "x-amz-acl": EXEC_READ})

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Put an object that EC2 can read; the object appears whole or not at all."""
        content_md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        with translating(f"putting {bucket}/{key} in {self.region}", service="s3"):
            self._client.put_object(Bucket=bucket, Key=key, Body=content, ContentMD5=content_md5, ACL=EXEC_READ)

    def stored(self, bucket: str, key: str) -> Stored | None:
        """Return the object at this key; None if it does not exist."""
        try:
            with translating(f"looking at {bucket}/{key} in {self.region}", service="s3"):
                found = self._client.head_object(Bucket=bucket, Key=key)
        except CloudError as error:
            if error.code in ABSENT:
                return None
            raise
        return Stored(int(found["ContentLength"]), str(found["ETag"]).strip('"').lower())

    def read(self, bucket: str, key: str, *, limit_bytes: int) -> bytes:
        """Return an object's bytes. Raises CloudError, also if it is larger than the limit."""
        where = f"reading {bucket}/{key} in {self.region}"
        with translating(where, service="s3"):
            answer = self._client.get_object(Bucket=bucket, Key=key)
            with answer["Body"] as body:
                if (size := int(answer["ContentLength"])) > limit_bytes:
                    raise CloudError(f"{where}: it has {size} bytes, but at most {limit_bytes} were expected")
                return bytes(body.read())

    def copy(self, source_bucket: str, source_key: str, bucket: str, key: str) -> None:
        """Copy an object of at most 5 GiB from any region into this one, readable by EC2."""
        with translating(f"copying {source_bucket}/{source_key} to {bucket}/{key} in {self.region}", service="s3"):
            self._client.copy_object(
                CopySource={"Bucket": source_bucket, "Key": source_key}, Bucket=bucket, Key=key, ACL=EXEC_READ
            )

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return all keys that begin with the prefix, in order. Raises CloudError, also with `NoSuchBucket`."""
        return [key for key, _ in self.listed(bucket, prefix)]

    def listed(self, bucket: str, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Return all keys that begin with the prefix, in order, with their time of modification. Raises CloudError."""
        with translating(f"listing {bucket}/{prefix} in {self.region}", service="s3"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for each in page.get("Contents", ()):
                    yield str(each["Key"]), each["LastModified"]

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Delete objects. Objects that are already gone are a success, and so is a missing bucket.

        Tries all of them, then raises one CloudError for those that are left.
        """
        failed: list[Mapping[str, str]] = []
        for start in range(0, len(keys), DELETE_KEYS):
            objects = [{"Key": key} for key in keys[start : start + DELETE_KEYS]]
            with (
                ignore_missing("NoSuchBucket"),
                translating(f"deleting {len(objects)} objects of {bucket} in {self.region}", service="s3"),
            ):
                answer = self._client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
                failed += answer.get("Errors", ())
        if left := [each for each in failed if each.get("Code") not in ABSENT]:
            raise _left(bucket, self.region, left)

    def has_bucket(self, bucket: str) -> bool:
        """Return whether the bucket exists in any region. Raises CloudError if we have no permission to ask."""
        return self.region_of(bucket) is not None

    def make_bucket(self, bucket: str) -> None:
        """Create a bucket in this region with ACLs enabled, which is not the default. Does nothing if we own it."""
        where: dict[str, Any] = {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        with (
            ignore_missing("BucketAlreadyOwnedByYou"),
            translating(f"creating bucket {bucket} in {self.region}", service="s3"),
        ):
            self._client.create_bucket(
                Bucket=bucket,
                ObjectOwnership="BucketOwnerPreferred",
                **({} if self.region == FIRST_REGION else where),  # us-east-1 must not be named as a constraint
            )

    def check_bucket(self, bucket: str, folder: str) -> None:
        """Raise CloudError if we could not write bundles to this folder, or if EC2 could not read them.

        Puts and deletes an object of a few bytes, so that the error names a missing permission.
        """
        self.check_settings(bucket)
        probe = f"{folder}/probe"
        self.put(bucket, probe, PROBE)
        self.delete(bucket, [probe])

    def check_settings(self, bucket: str) -> None:
        """Raise CloudError if a bucket does not exist, is in another region, or has settings that block EC2.

        Puts nothing, so it cannot check the permission to write.
        """
        home = self.region_of(bucket)
        if home is None:
            raise CloudError(
                f"bucket {bucket} does not exist",
                code="NoSuchBucket",
                hint=f"aws s3api create-bucket --bucket {bucket} --region {self.region}"
                f" --object-ownership BucketOwnerPreferred{_constraint(self.region)}",
            )
        if home != self.region:
            raise CloudError(
                f"bucket {bucket} is in {home}, but the image will be in {self.region}",
                code="PermanentRedirect",
                hint=f"an image must be registered from a bucket in its own region: use one in {self.region}",
            )
        self._check_ownership(bucket)
        self._check_encryption(bucket)

    def _check_ownership(self, bucket: str) -> None:
        where = f"reading the object ownership of bucket {bucket}"
        answer = self._setting(where, lambda: self._client.get_bucket_ownership_controls(Bucket=bucket))
        rules = answer.get("OwnershipControls", {}).get("Rules", ())
        if any(rule.get("ObjectOwnership") == "BucketOwnerEnforced" for rule in rules):
            raise CloudError(
                f"bucket {bucket} in {self.region} has ACLs disabled (BucketOwnerEnforced), but EC2 reads by ACLs",
                code="AccessControlListNotSupported",
                hint=f"aws s3api put-bucket-ownership-controls --bucket {bucket} --region {self.region}"
                " --ownership-controls 'Rules=[{ObjectOwnership=BucketOwnerPreferred}]'",
            )

    def _check_encryption(self, bucket: str) -> None:
        where = f"reading the encryption of bucket {bucket}"
        answer = self._setting(where, lambda: self._client.get_bucket_encryption(Bucket=bucket))
        rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", ())
        used = [str(rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm", "")) for rule in rules]
        if kms := [each for each in used if each.startswith("aws:kms")]:
            raise CloudError(
                f"bucket {bucket} in {self.region} encrypts its objects with {kms[0]}, which EC2 cannot read",
                hint="use another bucket, or SSE-S3 (AES256) as its default encryption",
            )

    def _setting(self, where: str, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return a setting of a bucket; empty if it is not set, or if we may not read it."""
        try:
            with translating(where, service="s3"):
                return ask()
        except CloudError as error:
            if error.code not in DENIED | UNKNOWN and not error.code.endswith("NotFoundError"):
                raise
            return {}

    def region_of(self, bucket: str) -> str | None:
        """Return a bucket's region; None if it does not exist. If an endpoint does not return it, ours is assumed."""
        try:
            with translating(f"looking for bucket {bucket}", service="s3"):
                found = self._client.head_bucket(Bucket=bucket)
        except CloudError as error:
            if error.code in ABSENT | {"NoSuchBucket"}:
                return None
            raise
        return str(found.get("BucketRegion") or self.region)


def _constraint(region: str) -> str:
    """Return the option that the AWS CLI needs besides --region to create a bucket."""
    return "" if region == FIRST_REGION else f" --create-bucket-configuration LocationConstraint={region}"


def _left(bucket: str, region: str, failed: Sequence[Mapping[str, str]]) -> CloudError:
    """Return the error for keys that DeleteObjects did not delete, with the message of the first."""
    first = failed[0]
    code = str(first.get("Code", ""))
    shown = ", ".join(str(each.get("Key")) for each in failed[:SHOWN_KEYS])
    more = f" and {len(failed) - SHOWN_KEYS} more" if len(failed) > SHOWN_KEYS else ""
    action = "s3:DeleteObject" if code in DENIED else None
    return CloudError(
        f"deleting objects of {bucket} in {region}: left {shown}{more}: {first.get('Message') or code} ({code})",
        code=code,
        iam_action=action,
        hint=f"the IAM policy of these credentials must allow {action}" if action else None,
    )
