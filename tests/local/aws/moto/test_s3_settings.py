"""Settings of new buckets and objects, ACLs, versions: as S3 makes them without being asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore import xform_name

from tests.local.aws.harness import SESSION, Cloud, refused

BUCKET = "bucket"
BODY = b"body"
BLOCKED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
KMS = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]}
EVERYBODY = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
WRITES: dict[str, Callable[[Any], Any]] = {
    "PutObject": lambda s3: s3.put_object(Bucket=BUCKET, Key="k", Body=BODY),
    "CopyObject": lambda s3: s3.copy_object(Bucket=BUCKET, Key="k", CopySource=f"{BUCKET}/source"),
    "CompleteMultipartUpload": lambda s3: uploaded(s3)[-1],
}


@pytest.fixture
def s3(cloud: Cloud) -> Any:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="source", Body=BODY)
    return s3


def uploaded(s3: Any) -> list[Any]:
    """The answers to the three requests of an upload of one part."""
    made = s3.create_multipart_upload(Bucket=BUCKET, Key="k")
    ids = {"Bucket": BUCKET, "Key": "k", "UploadId": made["UploadId"]}
    part = s3.upload_part(**ids, PartNumber=1, Body=BODY)
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    return [made, part, s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts})]


def enable_acls(s3: Any) -> None:
    """Let the bucket have ACLs, public ones too."""
    rules = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    s3.put_bucket_ownership_controls(Bucket=BUCKET, OwnershipControls=rules)
    s3.delete_public_access_block(Bucket=BUCKET)


def grants(s3: Any) -> int:
    return len(s3.get_object_acl(Bucket=BUCKET, Key="k")["Grants"])


def test_a_new_bucket_is_private_encrypted_and_without_acls(cloud: Cloud, s3: Any) -> None:
    for _ in range(2):
        assert s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"] == BLOCKED
        [rule] = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rule == {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
        [owned] = s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"]["Rules"]
        assert owned == {"ObjectOwnership": "BucketOwnerEnforced"}
        assert s3.get_bucket_request_payment(Bucket=BUCKET)["Payer"] == "BucketOwner"
        cloud.restart()
        s3 = cloud.client("s3")


def test_settings_that_are_deleted_stay_so_and_encryption_is_never_off(cloud: Cloud, s3: Any) -> None:
    s3.delete_public_access_block(Bucket=BUCKET)
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=KMS)
    assert "aws:kms" in str(s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"])
    s3.delete_bucket_encryption(Bucket=BUCKET)
    s3.create_bucket(Bucket=BUCKET)  # in us-east-1 one may create one's own bucket again
    cloud.restart()
    s3 = cloud.client("s3")
    with refused("NoSuchPublicAccessBlockConfiguration"):
        s3.get_public_access_block(Bucket=BUCKET)
    assert "AES256" in str(s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"])


def test_a_bucket_that_does_not_exist_has_no_encryption(s3: Any) -> None:
    with refused("NoSuchBucket"):
        s3.get_bucket_encryption(Bucket="none")


@pytest.mark.parametrize("write", list(WRITES))
@pytest.mark.parametrize("default", ["AES256", "aws:kms"])
def test_every_object_is_encrypted_by_the_default_of_its_bucket(s3: Any, write: str, default: str) -> None:
    if default == "aws:kms":
        s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=KMS)
    assert WRITES[write](s3)["ServerSideEncryption"] == default
    assert s3.head_object(Bucket=BUCKET, Key="k")["ServerSideEncryption"] == default
    assert s3.get_object(Bucket=BUCKET, Key="k")["ServerSideEncryption"] == default
    assert [each["ServerSideEncryption"] for each in uploaded(s3)] == [default] * 3


def test_an_object_is_not_copied_to_itself_without_a_change(s3: Any) -> None:
    with refused("InvalidRequest"):
        s3.copy_object(Bucket=BUCKET, Key="source", CopySource=f"{BUCKET}/source")


@pytest.mark.parametrize("write", list(WRITES))
def test_an_object_without_an_acl_is_private_in_a_public_bucket_too(s3: Any, write: str) -> None:
    enable_acls(s3)
    s3.put_bucket_acl(Bucket=BUCKET, ACL="public-read")
    WRITES[write](s3)
    assert grants(s3) == 1
    s3.put_object_acl(Bucket=BUCKET, Key="k", ACL="public-read")
    assert grants(s3) == 2


def test_an_upload_in_parts_keeps_the_acl_it_was_created_with(s3: Any) -> None:
    enable_acls(s3)
    made = s3.create_multipart_upload(Bucket=BUCKET, Key="k", ACL="public-read")
    ids = {"Bucket": BUCKET, "Key": "k", "UploadId": made["UploadId"]}
    tag = s3.upload_part(**ids, PartNumber=1, Body=BODY)["ETag"]
    for _ in range(2):
        s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
        assert grants(s3) == 2


ACL_WRITES: dict[str, Callable[..., Any]] = {
    "PutObject": lambda s3, **acl: s3.put_object(Bucket=BUCKET, Key="k", **acl),
    "CopyObject": lambda s3, **acl: s3.copy_object(Bucket=BUCKET, Key="k", CopySource=f"{BUCKET}/source", **acl),
    "CreateMultipartUpload": lambda s3, **acl: s3.create_multipart_upload(Bucket=BUCKET, Key="k", **acl),
    "PutObjectAcl": lambda s3, **acl: s3.put_object_acl(Bucket=BUCKET, Key="source", **acl),
    "PutBucketAcl": lambda s3, **acl: s3.put_bucket_acl(Bucket=BUCKET, **acl),
}


@pytest.mark.parametrize("write", list(ACL_WRITES))
def test_a_bucket_without_acls_accepts_only_those_that_change_nothing(s3: Any, write: str) -> None:
    for acl in ("private", "bucket-owner-full-control"):
        ACL_WRITES[write](s3, ACL=acl)
    for acl in ("public-read", "aws-exec-read", "authenticated-read", "bucket-owner-read"):
        if (write, acl) not in {("PutBucketAcl", "aws-exec-read"), ("PutBucketAcl", "bucket-owner-read")}:
            with refused("AccessControlListNotSupported"):
                ACL_WRITES[write](s3, ACL=acl)
    with refused("AccessControlListNotSupported"):
        ACL_WRITES[write](s3, GrantRead=EVERYBODY)


@pytest.mark.parametrize("write", ["PutObjectAcl", "PutBucketAcl"])
def test_a_bucket_without_acls_accepts_the_same_as_xml(s3: Any, write: str) -> None:
    found = s3.get_bucket_acl(Bucket=BUCKET)
    policy = {"Owner": found["Owner"], "Grants": found["Grants"]}
    ACL_WRITES[write](s3, AccessControlPolicy=policy)
    policy["Grants"] = [{**found["Grants"][0], "Permission": "READ"}]
    with refused("AccessControlListNotSupported"):
        ACL_WRITES[write](s3, AccessControlPolicy=policy)


@pytest.mark.parametrize("write", list(ACL_WRITES))
def test_a_public_acl_is_refused_until_the_block_is_gone(s3: Any, write: str) -> None:
    rules = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    s3.put_bucket_ownership_controls(Bucket=BUCKET, OwnershipControls=rules)
    for acl in ({"ACL": "public-read"}, {"ACL": "authenticated-read"}, {"GrantRead": EVERYBODY}):
        with refused("AccessDenied", match="blocks public ACLs"):
            ACL_WRITES[write](s3, **acl)
    s3.delete_public_access_block(Bucket=BUCKET)
    ACL_WRITES[write](s3, ACL="public-read")


@pytest.mark.parametrize(
    ("params", "ownership"),
    [
        ({"ACL": "private"}, "BucketOwnerPreferred"),
        ({"ACL": "private", "ObjectOwnership": "BucketOwnerEnforced"}, "BucketOwnerEnforced"),
        ({"ObjectOwnership": "ObjectWriter"}, "ObjectWriter"),
        ({"ACL": "public-read"}, "InvalidBucketAclWithObjectOwnership"),
        ({"ACL": "public-read", "ObjectOwnership": "ObjectWriter"}, "InvalidBucketAclWithBlockPublicAccessError"),
    ],
)
def test_the_acl_of_a_new_bucket_decides_on_its_ownership(s3: Any, params: dict[str, Any], ownership: str) -> None:
    if ownership.startswith("Invalid"):
        with refused(ownership):
            s3.create_bucket(Bucket="new", **params)
        return
    s3.create_bucket(Bucket="new", **params)
    [rule] = s3.get_bucket_ownership_controls(Bucket="new")["OwnershipControls"]["Rules"]
    assert rule["ObjectOwnership"] == ownership


NULL = {"Bucket": BUCKET, "Key": "source", "VersionId": "null"}


def test_an_object_of_a_bucket_without_versions_is_its_version_null(s3: Any) -> None:
    size = s3.head_object(Bucket=BUCKET, Key="source")["ContentLength"]
    assert s3.head_object(**NULL)["ContentLength"] == size
    assert s3.get_object(**NULL)["Body"].read() == BODY
    s3.put_object_tagging(**NULL, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert s3.get_object_tagging(**NULL)["TagSet"] == [{"Key": "a", "Value": "b"}]
    s3.delete_object_tagging(**NULL)
    assert s3.get_object_tagging(**NULL)["TagSet"] == []
    assert len(s3.get_object_acl(**NULL)["Grants"]) == 1
    assert s3.get_object_attributes(**NULL, ObjectAttributes=["ObjectSize"])["ObjectSize"] == size
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/source?versionId=null")
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "copy", "VersionId": "null"}]})
    s3.delete_object(**NULL)
    assert s3.list_object_versions(Bucket=BUCKET).get("Versions", []) == []
    with refused("404"):
        s3.head_object(**NULL)


def test_older_versions_can_be_described_after_versioning_was_suspended(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    made = s3.put_object(Bucket=BUCKET, Key="source", Body=b"a longer body")["VersionId"]
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    assert s3.head_object(**NULL)["ContentLength"] == len(BODY)
    found = s3.head_object(Bucket=BUCKET, Key="source", VersionId=made)
    assert (found["ContentLength"], found["VersionId"]) == (len(b"a longer body"), made)
    with refused("404"):
        s3.head_object(Bucket=BUCKET, Key="source", VersionId="none")


OTHERS = ("Abac", "Analytics", "Annotation", "IntelligentTiering", "Metadata", "Metrics", "Torrent", "RenameObject")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SESSION.client("s3", region_name="us-east-1").meta.service_model.operation_names
        if any(word in name for word in OTHERS) and not name.startswith("Update")
    ],
)
def test_an_operation_that_the_local_cloud_lacks_does_not_do_another_one(s3: Any, name: str) -> None:
    """DeleteBucketMetricsConfiguration must not delete the bucket, nor PutObjectAnnotation the object's bytes."""
    s3.create_bucket(Bucket="empty")
    shape = s3.meta.service_model.operation_model(name).input_shape
    known = {"Bucket": "empty" if "Bucket" in name else BUCKET, "Key": "source"}
    params = {each: known.get(each) or example(shape.members[each]) for each in shape.required_members}
    with refused("NotImplemented", match=f"does not have {name}"):
        getattr(s3, xform_name(name))(**params)
    s3.head_bucket(Bucket="empty")
    assert s3.get_object(Bucket=BUCKET, Key="source")["Body"].read() == BODY


def example(shape: Any) -> Any:
    """The least value of this shape."""
    match shape.type_name:
        case "structure":
            return {name: example(shape.members[name]) for name in shape.required_members}
        case "list":
            return [example(shape.member)]
        case "integer":
            return 1
        case "blob":
            return b""
        case _:
            return shape.enum[0] if getattr(shape, "enum", None) else "x"


@pytest.mark.parametrize("mode", ["GOVERNANCE", None])
def test_the_retention_of_an_object_comes_back(s3: Any, mode: str | None) -> None:
    s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket="locked", Key="k", Body=BODY)
    if mode is None:
        with refused("NoSuchObjectLockConfiguration"):
            s3.get_object_retention(Bucket="locked", Key="k")
        with refused("InvalidRequest"):
            s3.get_object_retention(Bucket=BUCKET, Key="source")
        return
    wanted = {"Mode": mode, "RetainUntilDate": "2030-01-01T00:00:00Z"}
    s3.put_object_retention(Bucket="locked", Key="k", Retention=wanted)
    found = s3.get_object_retention(Bucket="locked", Key="k")["Retention"]
    assert (found["Mode"], found["RetainUntilDate"].year) == (mode, 2030)
