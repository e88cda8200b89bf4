"""Signature Version 4, against botocore's own signer."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from imagepipe.local.aws.authentication.signature import Request, Secret, check_payload, identify
from imagepipe.local.aws.protocol.errors import AwsError

KEY, SECRET, ACCOUNT = "AKIAEXAMPLE", "wJalr/XUtnFEMI+K7MDENG", "000000000000"
SECRETS = {KEY: Secret(SECRET, ACCOUNT)}


def signed(
    signer: type[Any],
    url: str,
    *,
    service: str = "ec2",
    method: str = "POST",
    body: bytes = b"Action=DescribeInstances&Version=2016-11-15",
    headers: dict[str, str] | None = None,
    secret: str = SECRET,
    key: str = KEY,
    **options: Any,
) -> Request:
    """The request as botocore would send it."""
    signed_body = b"" if "Query" in signer.__name__ else body  # a URL is signed before there is a body
    request = AWSRequest(
        method=method, url=url, data=signed_body, headers={"Host": urlsplit(url).netloc, **(headers or {})}
    )
    signer(Credentials(key, secret), service, "eu-west-1", **options).add_auth(request)
    parts = urlsplit(request.url)
    sent = {name.lower(): value for name, value in request.headers.items()}
    return Request(method, parts.path, parts.query, sent, body)


def who(request: Request, now: datetime | None = None) -> str:
    identity = identify(request, SECRETS.get, now or datetime.now(UTC))
    assert (identity.access_key_id, identity.region) == (KEY, "eu-west-1")
    return identity.account


@pytest.mark.parametrize(
    ("signer", "service", "method", "url"),
    [
        (SigV4Auth, "ec2", "POST", "http://127.0.0.1:9/"),
        (
            SigV4Auth,
            "ec2",
            "GET",
            "http://127.0.0.1:9/?Action=DescribeRegions&Version=1&Empty=&Filter.1.Name=a%20b%2Fc",
        ),
        (SigV4Auth, "sts", "POST", "http://localhost:9/"),
        (SigV4Auth, "execute", "PUT", "http://127.0.0.1:9/a/../b//c d/~x%2Fy"),
        (SigV4QueryAuth, "sts", "GET", "http://127.0.0.1:9/?Action=GetCallerIdentity"),
        (S3SigV4Auth, "s3", "PUT", "http://127.0.0.1:9/bucket/a%20b/../%C3%BC//x?uploads&partNumber=2"),
        (S3SigV4Auth, "s3", "GET", "http://127.0.0.1:9/bucket?list-type=2&prefix=a%2Fb%2Bc&delimiter=%2F"),
        (S3SigV4QueryAuth, "s3", "GET", "http://127.0.0.1:9/bucket/a%20b%3D%2B"),
        (S3SigV4QueryAuth, "s3", "PUT", "http://bucket.localhost:9/key?uploadId=a%3D%3D"),
    ],
)
def test_a_request_that_botocore_signs_is_accepted(signer: type[Any], service: str, method: str, url: str) -> None:
    body = b"" if method == "GET" else b"some bytes"
    assert who(signed(signer, url, service=service, method=method, body=body)) == ACCOUNT


def test_more_headers_may_be_signed() -> None:
    headers = {"Content-Type": "text/x;  charset=utf-8", "X-Amz-Meta-Token": "  a   b ", "X-Amz-Target": "AmazonSSM.X"}
    assert who(signed(SigV4Auth, "http://127.0.0.1:9/", service="ssm", headers=headers)) == ACCOUNT


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"secret": "wrong"}, "SignatureDoesNotMatch"),
        ({"key": "AKIANOBODY"}, "AuthFailure"),
        ({"key": "AKIANOBODY", "service": "s3", "signer": S3SigV4Auth}, "InvalidAccessKeyId"),
        ({"key": "AKIANOBODY", "service": "sts"}, "InvalidClientTokenId"),
        ({"secret": "wrong", "signer": S3SigV4QueryAuth, "service": "s3"}, "SignatureDoesNotMatch"),
    ],
)
def test_a_stranger_is_refused(change: dict[str, Any], code: str) -> None:
    signer = change.pop("signer", SigV4Auth)
    with pytest.raises(AwsError) as caught:
        who(signed(signer, "http://127.0.0.1:9/", **change))
    assert caught.value.code == code


def altered(request: Request, **changes: Any) -> Request:
    values = {name: getattr(request, name) for name in ("method", "path", "query", "headers", "body")}
    return Request(**{**values, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"Action=TerminateInstances"},
        {"path": "/else"},
        {"query": "Action=TerminateInstances"},
        {"method": "GET"},
    ],
    ids=lambda changes: str(next(iter(changes))),
)
def test_a_signed_request_cannot_be_altered(changes: dict[str, Any]) -> None:
    request = signed(SigV4Auth, "http://127.0.0.1:9/")
    assert who(request) == ACCOUNT
    with pytest.raises(AwsError, match="SignatureDoesNotMatch"):
        who(altered(request, **changes))


def test_a_signed_body_of_s3_cannot_be_altered() -> None:
    request = signed(S3SigV4Auth, "http://127.0.0.1:9/bucket/key", service="s3", method="PUT", body=b"mine")
    assert request.headers["x-amz-content-sha256"] == hashlib.sha256(b"mine").hexdigest()
    check_payload(request)
    with pytest.raises(AwsError, match="XAmzContentSHA256Mismatch"):
        check_payload(altered(request, body=b"theirs"))


def test_a_presigned_url_is_good_until_it_expires() -> None:
    url = "http://127.0.0.1:9/bucket/key"
    request = signed(S3SigV4QueryAuth, url, service="s3", method="GET", body=b"", expires=60)
    now = datetime.now(UTC)
    assert who(request, now + timedelta(seconds=50)) == ACCOUNT
    with pytest.raises(AwsError, match="Request has expired"):
        who(request, now + timedelta(seconds=70))


@pytest.mark.parametrize("minutes", [-14, 14])
def test_clocks_may_differ_by_some_minutes(minutes: int) -> None:
    assert who(signed(SigV4Auth, "http://127.0.0.1:9/"), datetime.now(UTC) + timedelta(minutes=minutes)) == ACCOUNT


@pytest.mark.parametrize("minutes", [-16, 16])
def test_clocks_may_not_differ_by_more(minutes: int) -> None:
    with pytest.raises(AwsError, match="RequestExpired"):
        who(signed(SigV4Auth, "http://127.0.0.1:9/"), datetime.now(UTC) + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("headers", "query", "code"),
    [
        ({}, "", "MissingAuthenticationToken"),
        ({"authorization": "AWS AKIAEXAMPLE:c2ln"}, "", "InvalidRequest"),
        ({}, "AWSAccessKeyId=AKIAEXAMPLE&Signature=x&Expires=1", "InvalidRequest"),
        ({"authorization": "AWS4-HMAC-SHA256 nonsense"}, "", "IncompleteSignature"),
        ({"authorization": "AWS4-HMAC-SHA256 Credential=a/b/c, Signature=0"}, "", "IncompleteSignature"),
        (
            {"authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/eu-west-1/ec2/aws4_request, Signature=0"},
            "",
            "IncompleteSignature",
        ),
        ({}, "X-Amz-Algorithm=AWS4-HMAC-SHA256", "AuthorizationQueryParametersError"),
    ],
)
def test_a_bad_signature_is_refused_with_its_code(headers: dict[str, str], query: str, code: str) -> None:
    with pytest.raises(AwsError) as caught:
        identify(Request("POST", "/", query, headers, b""), SECRETS.get, datetime.now(UTC))
    assert caught.value.code == code
