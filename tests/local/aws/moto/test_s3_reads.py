"""Every read of S3's model, after every way of writing: none is a server error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from tests.local.aws.harness import SESSION, Cloud

BUCKET = "bucket"
PART = b"x" * (5 << 20)
READS = tuple(
    name
    for name in SESSION.client("s3", region_name="us-east-1").meta.service_model.operation_names
    if name.startswith(("Get", "Head", "List"))
)


def upload(s3: Any, key: str, **params: Any) -> str:
    """A multipart upload with one part of bytes and one that is copied."""
    upload_id = str(s3.create_multipart_upload(Bucket=BUCKET, Key=key, **params)["UploadId"])
    s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload_id, PartNumber=1, Body=PART, **checksum_of(params))
    s3.put_object(Bucket=BUCKET, Key="source", Body=b"tail")
    s3.upload_part_copy(
        Bucket=BUCKET, Key=key, UploadId=upload_id, PartNumber=2, CopySource={"Bucket": BUCKET, "Key": "source"}
    )
    return upload_id


def checksum_of(params: dict[str, Any]) -> dict[str, Any]:
    return {"ChecksumAlgorithm": params["ChecksumAlgorithm"]} if "ChecksumAlgorithm" in params else {}


def complete(s3: Any, key: str, upload_id: str) -> Any:
    """Complete an upload as clients do, with all that ListParts knows of each part."""
    listed = s3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload_id)["Parts"]
    parts = [{k: v for k, v in part.items() if k not in ("Size", "LastModified")} for part in listed]
    return s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts})


def copy(s3: Any, key: str) -> None:
    complete(s3, "whole", upload(s3, "whole", ChecksumAlgorithm="SHA256"))
    s3.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": "whole"})


def suspend(s3: Any, key: str) -> None:
    """An object with versions from before, during and after versioning."""
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"before")
    for status in ("Enabled", "Suspended"):
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": status})
        s3.put_object(Bucket=BUCKET, Key=key, Body=status.encode())


WRITES: dict[str, Callable[[Any, str], object]] = {
    "nothing": lambda s3, key: None,
    "put": lambda s3, key: s3.put_object(Bucket=BUCKET, Key=key, Body=b"put", ChecksumAlgorithm="SHA1"),
    "copy": copy,
    "multipart": lambda s3, key: complete(s3, key, upload(s3, key)),
    "multipart with checksums": lambda s3, key: complete(s3, key, upload(s3, key, ChecksumAlgorithm="CRC32")),
    "unfinished": lambda s3, key: upload(s3, key),
    "versions": suspend,
}


@pytest.mark.parametrize("write", list(WRITES))
@pytest.mark.parametrize("has_restarted", [False, True], ids=["at once", "after a restart"])
def test_no_read_of_a_bucket_or_an_object_is_a_server_error(cloud: Cloud, write: str, has_restarted: bool) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    WRITES[write](s3, "key")
    uploads = s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    if has_restarted:
        cloud.restart()
        s3 = cloud.client("s3")
    failed = {}
    for name in READS:
        for params in inputs(s3.meta.service_model.operation_model(name), [each["UploadId"] for each in uploads]):
            try:
                getattr(s3, xform_name(name))(**params)
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status >= 500 and error.response["Error"]["Code"] != "NotImplemented":
                    failed[f"{name} {params}"] = str(error)
    assert not failed


def inputs(operation: Any, uploads: list[str]) -> list[dict[str, Any]]:
    """The required parameters of an operation, alone and with each optional one that names a part of an object."""
    known: dict[str, Any] = {
        "Bucket": BUCKET,
        "Key": "key",
        "Id": "id",
        "AnnotationName": "note",
        "UploadId": (uploads or ["none"])[0],
        "ObjectAttributes": ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"],
    }
    options: dict[str, Any] = {"VersionId": "null", "ChecksumMode": "ENABLED", "PartNumber": 1, "MaxParts": 1}
    members = operation.input_shape.members if operation.input_shape else {}
    required = {name: known[name] for name in (operation.input_shape.required_members if members else ())}
    return [required, *({**required, name: value} for name, value in options.items() if name in members)]
