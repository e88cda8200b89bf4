"""Identify callers: AWS Signature Version 4, in the Authorization header or in a presigned URL.

Every instance can reach the host's loopback, so a request without a valid signature is refused. The rules are
those of the IAM user guide, "Create a signed AWS API request"; botocore's signer is the reference in the tests.
"""

from __future__ import annotations

import hashlib
import hmac
import posixpath
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote, unquote

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.protocol.errors import AwsError

ALGORITHM = "AWS4-HMAC-SHA256"
TOLERANCE = timedelta(minutes=15)  # what AWS allows between the client's clock and its own
UNSIGNED = "UNSIGNED-PAYLOAD"


class Secret(NamedTuple):
    """The secret behind an access key id."""

    secret_access_key: str
    account_id: str
    session_token: str | None = None
    """The token that must accompany a temporary key."""
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """The credential scope that a request states, before anything is verified."""

    access_key_id: str
    date: str
    region: str
    service: str


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller, and the service and region that it calls."""

    access_key_id: str
    account: str
    region: str
    service: str


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request as it came over the wire."""

    method: str
    path: str
    """Percent-encoded, as sent."""
    query: str
    """Percent-encoded, as sent, without the question mark."""
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes

    def query_value(self, name: str) -> str | None:
        for key, value in self.query_pairs():
            if key == name:
                return value
        return None

    def query_pairs(self) -> list[tuple[str, str]]:
        """Decode the query's names and values, in their order."""
        pairs = (part.partition("=") for part in self.query.split("&") if part)
        return [(unquote(key), unquote(value)) for key, _, value in pairs]


@dataclass(frozen=True, slots=True)
class _Claim:
    scope: Scope
    signed_headers: tuple[str, ...]
    signature: str
    timestamp: str
    expires_seconds: int | None
    """Set for a presigned URL alone."""


def scope(request: Request) -> Scope | None:
    """Return the request's region and service, unverified; None without a signature of version 4."""
    try:
        return _claim(request).scope
    except AwsError:
        return None


def check_caller(request: Request, secret_of: Callable[[str], Secret | None], now: datetime) -> bool:
    """Check the caller and the time, before the body is read. Raises AwsError.

    Return true if the signature can be checked without the body, because the request states its digest.
    """
    claim = _claim(request)
    if secret_of(claim.scope.access_key_id) is None:
        raise _unknown_key(claim.scope)
    _check_time(claim, now)
    is_presigned_s3 = claim.expires_seconds is not None and claim.scope.service == "s3"
    return "x-amz-content-sha256" in request.headers or is_presigned_s3


def identify(
    request: Request, secret_of: Callable[[str], Secret | None], now: datetime, cloud_now: datetime | None = None
) -> Identity:
    """Verify the signature and return the caller. Temporary keys expire by `cloud_now`, if it is given.

    Raises AwsError unless the signature is valid and current. Call `check_payload` once the body has been read.
    """
    claim = _claim(request)
    secret = secret_of(claim.scope.access_key_id)
    if secret is None:
        raise _unknown_key(claim.scope)
    _check_time(claim, now)
    expected = _signature(request, claim, secret.secret_access_key)
    if not hmac.compare_digest(expected, claim.signature):
        raise AwsError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method.",
            status=403,
        )
    _check_session(request, claim.scope, secret, cloud_now or now)
    return Identity(claim.scope.access_key_id, secret.account_id, claim.scope.region, claim.scope.service)


def _check_session(request: Request, scope: Scope, secret: Secret, now: datetime) -> None:
    """Raise AwsError for a temporary key without its token, or after its time."""
    if secret.session_token is None:
        return
    token = request.headers.get("x-amz-security-token") or request.query_value("X-Amz-Security-Token") or ""
    if not hmac.compare_digest(token.encode(), secret.session_token.encode()):
        raise _unknown_key(scope)
    if secret.expires is not None and now >= secret.expires:
        raise expired(scope.service)


def expired(service: str) -> AwsError:
    """Return the service's error for expired credentials."""
    # EC2 has a code of its own (API reference, "Common client error codes"). botocore and Packer know all three codes.
    code = {"ec2": "RequestExpired", "ssm": "ExpiredTokenException", "kms": "ExpiredTokenException"}
    return AwsError(
        code.get(service, "ExpiredToken"), "The security token included in the request is expired", status=403
    )


def _claim(request: Request) -> _Claim:
    header = request.headers.get("authorization", "")
    if header.startswith(ALGORITHM):
        fields = dict(re.findall(r"(Credential|SignedHeaders|Signature)=([^,\s]+)", header))
        timestamp = request.headers.get("x-amz-date", "")
        expires = None
    elif request.query_value("X-Amz-Algorithm") == ALGORITHM:
        names = ("Credential", "SignedHeaders", "Signature")
        fields = {name: request.query_value(f"X-Amz-{name}") or "" for name in names}
        timestamp = request.query_value("X-Amz-Date") or ""
        expires = _number(request.query_value("X-Amz-Expires"))
    elif header or request.query_value("AWSAccessKeyId"):
        raise AwsError(
            "InvalidRequest",
            "Only AWS Signature Version 4 is understood here (boto3: Config(signature_version='s3v4'))",
        )
    else:
        raise AwsError("MissingAuthenticationToken", "Request is missing Authentication Token", status=403)
    parts = fields.get("Credential", "").rsplit("/", 4)
    if len(parts) != 5 or parts[4] != "aws4_request" or not fields.get("Signature"):
        raise AwsError("IncompleteSignature", "The request signature does not conform to AWS standards")
    return _Claim(
        scope=Scope(parts[0], parts[1], parts[2], parts[3]),
        signed_headers=tuple(fields.get("SignedHeaders", "").lower().split(";")),
        signature=fields["Signature"],
        timestamp=timestamp,
        expires_seconds=expires,
    )


def _number(text: str | None) -> int:
    if text is None or not text.isdigit():
        raise AwsError("AuthorizationQueryParametersError", "X-Amz-Expires must be a number of seconds")
    return int(text)


def _unknown_key(scope: Scope) -> AwsError:
    if scope.service == "ec2":
        return AwsError("AuthFailure", "AWS was not able to validate the provided access credentials", status=401)
    if scope.service == "s3":
        return AwsError(
            "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", status=403
        )
    return AwsError("InvalidClientTokenId", "The security token included in the request is invalid.", status=403)


def _check_time(claim: _Claim, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(claim.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise AwsError("IncompleteSignature", "Date must be in ISO-8601 'basic format'") from None
    if claim.timestamp[:8] != claim.scope.date:
        raise AwsError("SignatureDoesNotMatch", "The credential's date is not the request's", status=403)
    if claim.expires_seconds is None:
        if abs(now - signed_at) > TOLERANCE:
            code = "RequestTimeTooSkewed" if claim.scope.service == "s3" else "RequestExpired"
            raise AwsError(code, f"The request was signed at {claim.timestamp}, it is {now:%Y%m%dT%H%M%SZ}", status=403)
    elif now > signed_at + timedelta(seconds=claim.expires_seconds) or signed_at > now + TOLERANCE:
        raise AwsError("AccessDenied", "Request has expired", status=403)


def check_payload(request: Request) -> None:
    """Raise AwsError if the body is not the one that was signed. A presigned URL signs no body."""
    stated = request.headers.get("x-amz-content-sha256")
    if stated is None or request.query_value("X-Amz-Algorithm") or not re.fullmatch("[0-9a-f]{64}", stated):
        return
    if stated != hashlib.sha256(request.body).hexdigest():
        raise AwsError("XAmzContentSHA256Mismatch", "The body is not the one that was signed")


def _signature(request: Request, claim: _Claim, secret: str) -> str:
    scope = claim.scope
    canonical = hashlib.sha256(_canonical(request, claim).encode()).hexdigest()
    text = "\n".join(
        (ALGORITHM, claim.timestamp, f"{scope.date}/{scope.region}/{scope.service}/aws4_request", canonical)
    )
    key = f"AWS4{secret}".encode()
    for part in (scope.date, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _canonical(request: Request, claim: _Claim) -> str:
    pairs = sorted(
        (quote(key, safe="-_.~"), quote(value, safe="-_.~"))
        for key, value in request.query_pairs()
        if key != "X-Amz-Signature" or claim.expires_seconds is None
    )
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in claim.signed_headers)
    return "\n".join(
        (
            request.method,
            _canonical_path(request.path, claim.scope.service),
            "&".join(f"{key}={value}" for key, value in pairs),
            headers,
            ";".join(claim.signed_headers),
            _payload_hash(request, claim),
        )
    )


def _canonical_path(path: str, service: str) -> str:
    if service == "s3":  # a key is signed unchanged: its dots and double slashes are significant
        return path or "/"
    normal = posixpath.normpath(path or "/").replace("//", "/")
    if path.endswith("/") and normal != "/":
        normal += "/"
    return quote(normal, safe="/~-_.")


def _payload_hash(request: Request, claim: _Claim) -> str:
    stated = request.headers.get("x-amz-content-sha256")
    if stated is not None:
        return stated
    if claim.expires_seconds is not None and claim.scope.service == "s3":
        return UNSIGNED
    return hashlib.sha256(request.body).hexdigest()
