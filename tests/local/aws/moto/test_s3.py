"""S3 where moto alone would not do as it does."""

from __future__ import annotations

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.faults.faults import Fault, Faults
from imagepipe.local.aws.moto.s3 import parse
from tests.local.aws.faults.common import slow_down
from tests.local.aws.harness import Cloud, refused

BUCKET = "bucket"


@pytest.fixture
def s3(cloud: Cloud) -> Any:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=BUCKET, ObjectOwnership="ObjectWriter")
    return s3


@pytest.fixture
def faults(cloud: Cloud) -> Faults:
    return cloud.gateway.backend.faults


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "operation"),
    [
        ("GET", "/", "", {}, "ListBuckets"),
        ("PUT", "/b", "", {}, "CreateBucket"),
        ("GET", "/b", "list-type=2&prefix=a%2F", {}, "ListObjectsV2"),
        ("GET", "/b/", "prefix=a", {}, "ListObjects"),
        ("GET", "/b", "ownershipControls", {}, "GetBucketOwnershipControls"),
        ("POST", "/b", "delete", {}, "DeleteObjects"),
        ("HEAD", "/b", "", {}, "HeadBucket"),
        ("PUT", "/b/k/l", "", {}, "PutObject"),
        ("PUT", "/b/k/l", "X-Amz-Signature=x", {}, "PutObject"),
        ("PUT", "/b/k", "", {"x-amz-copy-source": "b/l"}, "CopyObject"),
        ("PUT", "/b/k", "acl", {}, "PutObjectAcl"),
        ("PUT", "/b/k", "partNumber=1&uploadId=u", {}, "UploadPart"),
        ("POST", "/b/k", "uploads", {}, "CreateMultipartUpload"),
        ("HEAD", "/b/k", "", {}, "HeadObject"),
        ("GET", "/b/k", "", {}, "GetObject"),
        ("DELETE", "/b/k", "", {}, "DeleteObject"),
        ("PUT", "/k", "", {"host": "b.localhost:9"}, "PutObject"),
        ("PATCH", "/b/k", "", {}, ""),
    ],
)
def test_a_request_is_known_by_the_operation_that_it_is(
    method: str, path: str, query: str, headers: dict[str, str], operation: str
) -> None:
    assert parse(Request(method, path, query, {"host": "127.0.0.1:9", **headers}, b"")).name == operation


@pytest.mark.parametrize("host", ["127.0.0.1:9", "b.localhost:9"])
def test_bucket_and_key_are_in_the_path_or_the_bucket_in_the_host(host: str) -> None:
    path = "/a%20c/d" if host.startswith("b.") else "/b/a%20c/d"
    found = parse(Request("GET", path, "", {"host": host}, b""))
    assert (found.bucket, found.key) == ("b", "a c/d")


@pytest.mark.parametrize(("stated", "code"), [("rL0Y20zC+Fzt72VPzMSk2A==", "BadDigest"), ("x", "InvalidDigest")])
def test_bytes_that_are_not_those_of_their_digest_are_refused(s3: Any, stated: str, code: str) -> None:
    with refused(code):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"bar", ContentMD5=stated)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"foo", ContentMD5="rL0Y20zC+Fzt72VPzMSk2A==")


def test_acls_are_refused_by_new_buckets_until_they_are_enabled(s3: Any) -> None:
    s3.create_bucket(Bucket="new")
    with refused("AccessControlListNotSupported"):
        s3.put_object(Bucket="new", Key="k", ACL="aws-exec-read")
    s3.put_object(Bucket="new", Key="k", ACL="bucket-owner-full-control")
    s3.put_object(Bucket="new", Key="k")
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    s3.put_bucket_ownership_controls(Bucket="new", OwnershipControls=rules)
    s3.put_object(Bucket="new", Key="k", ACL="aws-exec-read")


def test_a_bucket_of_another_region_redirects_and_clients_follow(s3: Any, cloud: Cloud) -> None:
    there = cloud.client("s3", region="eu-west-1")
    there.create_bucket(Bucket="there", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_object(Bucket="there", Key="k", Body=b"followed")
    assert there.get_object(Bucket="there", Key="k")["Body"].read() == b"followed"
    assert s3.head_bucket(Bucket="there")["BucketRegion"] == "eu-west-1"
    signer = cloud.client("s3", signature_version="s3v4")
    url = signer.generate_presigned_url("put_object", Params={"Bucket": "there", "Key": "k"})
    with pytest.raises(urllib.error.HTTPError) as failed:
        urllib.request.urlopen(urllib.request.Request(url, data=b"lost", method="PUT"), timeout=10)
    assert (failed.value.code, failed.value.headers["x-amz-bucket-region"]) == (301, "eu-west-1")
    assert b"<Code>PermanentRedirect</Code>" in failed.value.read()
    assert there.get_object(Bucket="there", Key="k")["Body"].read() == b"followed"


def test_uploads_can_be_throttled_by_key_while_others_are_not(s3: Any, faults: Faults) -> None:
    faults.add(slow_down("PutObject", key="t/*", times=1))
    s3.put_object(Bucket=BUCKET, Key="other", Body=b"")
    with refused("SlowDown", match="reduce your request rate"):
        s3.put_object(Bucket=BUCKET, Key="t/k", Body=b"")
    s3.put_object(Bucket=BUCKET, Key="t/k", Body=b"")


@pytest.mark.parametrize(("effect", "is_put"), [("cut-before", False), ("cut-after", True)])
def test_an_upload_can_lose_its_connection(s3: Any, faults: Faults, effect: Any, is_put: bool) -> None:
    faults.add(Fault(effect=effect, action="s3:PutObject", where={"Bucket": BUCKET}, times=1))
    with pytest.raises(ConnectionClosedError):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"")
    assert ("Contents" in s3.list_objects_v2(Bucket=BUCKET)) is is_put


def test_s3_s_calls_are_counted_by_operation(s3: Any, cloud: Cloud) -> None:
    cloud.admin("DELETE", "calls")
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"")
    s3.head_object(Bucket=BUCKET, Key="k")
    assert cloud.admin("GET", "calls") == {"s3:HeadObject": 1, "s3:PutObject": 1}


def test_a_write_if_absent_succeeds_once(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"1", IfNoneMatch="*")
    with refused("PreconditionFailed"):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"2", IfNoneMatch="*")
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"1"
    s3.delete_object(Bucket=BUCKET, Key="k")
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"3", IfNoneMatch="*")


def test_a_write_if_unchanged_needs_the_etag_of_the_object(s3: Any) -> None:
    first = s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")["ETag"]
    second = s3.put_object(Bucket=BUCKET, Key="k", Body=b"2", IfMatch=first)["ETag"]
    with refused("PreconditionFailed"):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"3", IfMatch=first)
    with refused("NoSuchKey"):
        s3.put_object(Bucket=BUCKET, Key="other", Body=b"3", IfMatch=second)
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"2"


def test_of_many_writes_if_absent_at_once_one_succeeds(cloud: Cloud, s3: Any) -> None:
    def write(number: int) -> bool:
        try:
            s3.put_object(Bucket=BUCKET, Key="k", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        won = [number for number, is_winner in enumerate(pool.map(write, range(12))) if is_winner]
    assert [int(s3.get_object(Bucket=BUCKET, Key="k")["Body"].read())] == won


def test_a_condition_that_s3_does_not_have_is_refused(s3: Any) -> None:
    with refused("NotImplemented"):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"1", IfNoneMatch='"etag"')
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")


def test_a_fault_stands_for_the_conflict_of_two_writes_in_s3s_own_servers(faults: Faults, s3: Any) -> None:
    faults.add(Fault(effect="refuse", action="s3:PutObject", code="ConditionalRequestConflict", status=409, times=1))
    with refused("ConditionalRequestConflict"):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"1", IfNoneMatch="*")
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"1", IfNoneMatch="*")
