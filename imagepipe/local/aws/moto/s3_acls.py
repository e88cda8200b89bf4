"""ACLs of S3: which ones a bucket accepts, and what moto is told of them.

moto stores grants, but does not know the canned ACL `aws-exec-read`, so moto gets the grants that this ACL stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.s3.models import ALL_USERS_GRANTEE, AUTHENTICATED_USERS_GRANTEE, OWNER, get_canned_acl

from imagepipe.local.aws.authentication.signature import Identity, Request
from imagepipe.local.aws.moto import s3_xml
from imagepipe.local.aws.moto.s3 import Operation, bucket_of
from imagepipe.local.aws.protocol.errors import AwsError

EXEC_READ = "aws-exec-read"
EC2_READER = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c"
"""The canonical user, `za-team`, to whom GetObjectAcl shows an object with aws-exec-read granted."""
ENFORCED, PREFERRED = "BucketOwnerEnforced", "BucketOwnerPreferred"
"""Ownership settings. The first disables ACLs, and is the default of buckets since April 2023 (S3 user guide)."""
SET_ACL = frozenset({"PutObject", "CopyObject", "CreateMultipartUpload", "PutObjectAcl", "PutBucketAcl"})
PUBLIC = frozenset({"public-read", "public-read-write", "authenticated-read"})
PUBLIC_GROUPS = (ALL_USERS_GRANTEE.uri, AUTHENTICATED_USERS_GRANTEE.uri)
HEADER, GRANT = "x-amz-acl", "x-amz-grant-"


def check(identity: Identity, request: Request, operation: Operation) -> None:
    """Raise AwsError if the bucket does not accept the ACL that the request sets."""
    bucket = bucket_of(identity, operation.bucket)
    if operation.name == "CreateBucket":
        _check_new_bucket(request)
    elif operation.name in SET_ACL and bucket is not None:
        if bucket.ownership_rule == ENFORCED and not _is_owners(request, operation, identity.account, bucket):
            raise AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")
        block = bucket.public_access_block
        if block is not None and block.block_public_acls and _is_public(request, operation):
            raise AwsError("AccessDenied", "Access Denied: the bucket blocks public ACLs", status=403)


def _check_new_bucket(request: Request) -> None:
    """Refuse a new bucket with an ACL that its ownership or its public access block does not allow."""
    ownership, acl = request.headers.get("x-amz-object-ownership"), _canned(request)
    if acl is None or acl == "private":
        return
    if ownership in (None, ENFORCED):
        text = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
        raise AwsError("InvalidBucketAclWithObjectOwnership", text)
    if acl in PUBLIC:
        text = "Bucket cannot have public ACLs set with BlockPublicAccess enabled"
        raise AwsError("InvalidBucketAclWithBlockPublicAccessError", text)


def _canned(request: Request) -> str | None:
    return request.headers.get(HEADER) or request.query_value(HEADER)


def _grants(request: Request) -> list[str]:
    """Return the grants of the headers, such as `id="…"`."""
    given = dict(request.query_pairs()) | dict(request.headers)
    return [value for name, value in given.items() if name.lower().startswith(GRANT)]


def _is_owners(request: Request, operation: Operation, account: str, bucket: Any) -> bool:
    """Tell if the ACL only gives the bucket's owner full control, which changes nothing in a bucket without ACLs.

    `private` gives full control to the caller: the same, if the bucket's owner is the caller.
    """
    acl = _canned(request)
    if acl is not None:
        return acl == "bucket-owner-full-control" or (acl == "private" and bucket.account_id == account)
    if _grants(request):
        return False
    if operation.name not in ("PutObjectAcl", "PutBucketAcl") or not request.body:
        return True
    grants = list(s3_xml.parsed(request.body).iterfind("{*}AccessControlList/{*}Grant"))
    ids = {grant.findtext("{*}Grantee/{*}ID") for grant in grants}
    return ids == {OWNER} and {s3_xml.text(grant, "Permission") for grant in grants} == {"FULL_CONTROL"}


def _is_public(request: Request, operation: Operation) -> bool:
    texts = _grants(request)
    if operation.name in ("PutObjectAcl", "PutBucketAcl"):
        texts.append(request.body.decode("utf-8", "replace"))
    return _canned(request) in PUBLIC or any(group in text for text in texts for group in PUBLIC_GROUPS)


def translate(request: Request, operation: Operation, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the WSGI environment with the ACL as moto knows it."""
    acl = _canned(request)
    if operation.name == "CreateBucket":
        ownership = ENFORCED if acl is None else PREFERRED  # a bucket with an ACL has ACLs
        return {"HTTP_X_AMZ_OBJECT_OWNERSHIP": ownership, **environ}
    if acl is None:
        return dict(environ)
    if acl != EXEC_READ:
        return {**environ, "HTTP_X_AMZ_ACL": acl}
    granted = {name: value for name, value in environ.items() if name != "HTTP_X_AMZ_ACL"}
    return granted | {"HTTP_X_AMZ_GRANT_READ": f'id="{EC2_READER}"', "HTTP_X_AMZ_GRANT_FULL_CONTROL": f'id="{OWNER}"'}


def make_private(key: Any, request: Request) -> None:
    """Make an object that was written without an ACL private. moto gives it the bucket's, and none after an upload."""
    is_upload = request.method == "POST"
    if key.acl is None or not (is_upload or _canned(request) or _grants(request)):
        key.set_acl(get_canned_acl("private"))


def is_readable_by_ec2(key: Any) -> bool:
    """Tell if an object's ACL lets EC2 read it: by aws-exec-read, or because everybody may."""
    readers = [
        grantee
        for grant in (key.acl.grants if key.acl else ())
        if {"READ", "FULL_CONTROL"} & set(grant.permissions)
        for grantee in grant.grantees
    ]
    return any(reader.id == EC2_READER or reader == ALL_USERS_GRANTEE for reader in readers)
