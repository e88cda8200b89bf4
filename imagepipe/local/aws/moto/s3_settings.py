"""Defaults of buckets and objects, and reads of their settings, that moto lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.etree.ElementTree import Element, SubElement

from moto.s3.models import PublicAccessBlock

from imagepipe.local.aws.moto import s3_xml
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer

ENCRYPTION = "x-amz-server-side-encryption"
SSE_S3 = "AES256"
"""Encryption of every new object since January 2023, unless another one is asked for (S3 user guide)."""
ENCRYPTED = frozenset(
    {"PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"}
)
XML = "application/xml"


def block_public_access(bucket: Any) -> None:
    """Block public access, as S3 does in each new bucket since April 2023 (S3 user guide)."""
    bucket.public_access_block = PublicAccessBlock(True, True, True, True)


def default_encryption(bucket: Any) -> str:
    """Return the algorithm with which the bucket encrypts objects."""
    if not bucket.encryption:
        return SSE_S3
    return str(bucket.encryption["Rule"]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"])


def add_encryption(answer: Answer, algorithm: str) -> Answer:
    """Add the header with the encryption of an object, unless moto has."""
    if any(name.lower() == ENCRYPTION for name, _ in answer.headers):
        return answer
    return replace(answer, headers=(*answer.headers, (ENCRYPTION, algorithm)))


def encryption_answer() -> Answer:
    """Answer GetBucketEncryption for a bucket without a setting: objects have SSE-S3."""
    root = Element("ServerSideEncryptionConfiguration")
    rule = SubElement(root, "Rule")
    s3_xml.put(SubElement(rule, "ApplyServerSideEncryptionByDefault"), {"SSEAlgorithm": SSE_S3})
    s3_xml.put(rule, {"BucketKeyEnabled": False})
    return Answer(200, (("Content-Type", XML),), s3_xml.serialized(root))


def request_payment_answer() -> Answer:
    """Answer GetBucketRequestPayment with the default, which cannot be changed here."""
    root = Element("RequestPaymentConfiguration")
    s3_xml.put(root, {"Payer": "BucketOwner"})
    return Answer(200, (("Content-Type", XML),), s3_xml.serialized(root))


def retention_answer(bucket: Any, key: Any) -> Answer:
    """Answer GetObjectRetention. Raises AwsError."""
    if not bucket.object_lock_enabled:
        raise AwsError("InvalidRequest", "Bucket is missing Object Lock Configuration")
    if not key.lock_mode:
        text = "The specified object does not have a ObjectLock configuration"
        raise AwsError("NoSuchObjectLockConfiguration", text, status=404)
    root = Element("Retention")
    s3_xml.put(root, {"Mode": key.lock_mode, "RetainUntilDate": key.lock_until})
    return Answer(200, (("Content-Type", XML),), s3_xml.serialized(root))


def head_environ(environ: Mapping[str, Any], bucket: Any, newest: Any, version: str) -> dict[str, Any]:
    """Return the environment with which moto answers a HeadObject for a version in a bucket without versioning.

    moto refuses `versionId` there, although objects have the version `null`, and older ones if it was suspended.
    """
    if bucket.is_versioned:
        return dict(environ)
    if getattr(newest, "version_id", None) != version:
        return {**environ, "REQUEST_METHOD": "GET"}
    pairs = parse_qsl(str(environ.get("QUERY_STRING", "")), keep_blank_values=True)
    return {**environ, "QUERY_STRING": urlencode([pair for pair in pairs if pair[0] != "versionId"])}


def without_body(answer: Answer, key: Any) -> Answer:
    """Return the answer to a GET of an object as that to a HEAD: without the body, but with its length."""
    headers = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
    return replace(answer, headers=(*headers, ("Content-Length", str(key.size))), body=b"")
