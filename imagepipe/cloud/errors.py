"""Translation of botocore's errors into CloudError, at the one place where they enter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    ProfileNotFound,
    TokenRetrievalError,
)

from imagepipe.clock import SystemClock
from imagepipe.errors import CloudError

THROTTLING = frozenset(
    {"RequestLimitExceeded", "Throttling", "ThrottlingException", "SlowDown", "TooManyRequestsException"}
)
NO_CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientCapacity",
        "SpotMaxPriceTooLow",
        "MaxSpotInstanceCountExceeded",
        "Unsupported",
        "InstanceLimitExceeded",
        "VcpuLimitExceeded",
    }
)
"""Error codes for which another type or subnet may work. `Unsupported`: the zone does not offer the type."""

EXPIRED = frozenset({"RequestExpired", "ExpiredToken", "ExpiredTokenException"})
"""Error codes for expired credentials. EC2 also answers `RequestExpired` if the clock is wrong."""
SKEWED = EXPIRED | {"RequestTimeTooSkewed", "RequestInTheFuture", "SignatureDoesNotMatch", "InvalidSignatureException"}
"""Error codes that a wrong clock can cause."""
SKEW_SECONDS = 240
"""Smallest clock error that can be the cause: AWS's services allow five to fifteen minutes."""

HINTS = {
    "AuthFailure": "the credentials are not valid for this endpoint; see `aws sts get-caller-identity`",
    "InvalidClientTokenId": "the access key is not known; see `aws sts get-caller-identity`",
    "SignatureDoesNotMatch": "the secret access key does not belong to the access key, or the clock is wrong",
    "OptInRequired": "the region is not enabled for this account",
    "InvalidAMIName.Duplicate": "put {{ build.timestamp }} into output.name, or set on_name_taken: replace",
    "InvalidAMIID.NotFound": "image ids differ by region; is launch.region the right one?",
    "VPCIdNotSpecified": "this region has no default VPC; name a subnet in launch.subnets",
    "InvalidBlockDeviceMapping": "see launch.block_devices and output.block_devices: sizes, names, types",
    "InvalidKeyPair.NotFound": "launch.ssh.key_pair names a key pair of this region",
    "InstanceLimitExceeded": "request a higher limit, or terminate instances that are not needed",
    "VcpuLimitExceeded": "request a higher limit, or terminate instances that are not needed",
    "InsufficientVolumeCapacity": "the zone (or the local cloud's disk) is full",
    "ResourceLimitExceeded": "a limit of the account; see the Service Quotas console",
    "RequestLimitExceeded": "the account's API rate is used up; try again, with fewer builds at once",
    "SlowDown": "S3 wants fewer requests for this part of the bucket; try again, with fewer builds at once",
    "NoSuchBucket": "output.bucket must name an existing bucket of this account",
    "AccessControlListNotSupported": "EC2 reads a bundle by ACLs: set the bucket's object ownership to"
    " BucketOwnerPreferred",
    "BucketAlreadyExists": "another account has a bucket of this name: bucket names are unique on all of AWS",
}

DENIED = frozenset(
    {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "UnauthorizedAccess", "403", "Forbidden"}
)
"""Error codes for missing permissions; the last two are those of a HEAD request, whose answer has no body."""
S3_ACTIONS = {
    "CopyObject": "s3:PutObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
}
"""IAM's names of S3 operations, if they differ (service authorization reference, "Amazon S3")."""
_WITH = {"s3:PutObject": ", and s3:PutObjectAcl, because EC2 reads the objects through their ACL"}
REDIRECTS = frozenset({"301", "307", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"})


@contextmanager
def translating(operation: str, *, service: str = "ec2") -> Iterator[None]:
    """Translate errors of botocore. `operation` describes the call: `importing key pair x in y`."""
    try:
        yield
    except ClientError as error:
        raise _from_answer(operation, error, service) from error
    except (NoCredentialsError, TokenRetrievalError) as error:
        raise no_credentials(operation) from error
    except NoRegionError as error:
        raise CloudError(f"{operation}: no region", hint="set launch.region, or pass --region") from error
    except ProfileNotFound as error:
        raise CloudError(f"{operation}: {error}", hint="see `aws configure list-profiles`") from error
    except ParamValidationError as error:
        raise CloudError(f"{operation}: {' '.join(str(error).split())}", code="ParamValidation") from error
    except (ConnectionError, HTTPClientError) as error:
        raise CloudError(
            f"{operation}: no answer: {' '.join(str(error).split())}",
            code="NoAnswer",
            hint="is the endpoint reachable from this computer? Check proxy, VPN and region",
        ) from error
    except BotoCoreError as error:
        raise CloudError(f"{operation}: {' '.join(str(error).split())}") from error


def no_credentials(operation: str) -> CloudError:
    """Return the error for missing credentials."""
    return CloudError(
        f"{operation}: no AWS credentials",
        code="NoCredentials",
        hint="set AWS_PROFILE or AWS_ACCESS_KEY_ID, or log in with `aws sso login`; "
        "or build on this machine, without an account: --local",
    )


def _from_answer(operation: str, error: ClientError, service: str) -> CloudError:
    answer: dict[str, Any] = error.response
    code = str(answer.get("Error", {}).get("Code", "Unknown"))
    message = " ".join(str(answer.get("Error", {}).get("Message", "")).split())
    request = str(answer.get("ResponseMetadata", {}).get("RequestId", ""))
    if code in DENIED:
        action = _denied_action(message) or iam_action(service, error.operation_name)
        return CloudError(
            f"{operation}: not authorised: {action} is missing ({code})",
            code=code,
            request_id=request,
            iam_action=action,
            hint=f"the IAM policy of these credentials must allow {action}{_WITH.get(action, '')}",
        )
    if code in REDIRECTS and (region := _region_of_bucket(answer)):
        return CloudError(f"{operation}: the bucket is in {region} ({code})", code=code, request_id=request)
    # EC2 and the local cloud end their messages with a full stop, but our sentence continues.
    hint = (_clock_hint(answer) if code in SKEWED else None) or HINTS.get(code)
    if hint is None and code in EXPIRED:
        hint = "the session's credentials have expired: log in again (`aws sso login`)"
    return CloudError(f"{operation}: {message.rstrip('.')} ({code})", code=code, request_id=request, hint=hint)


def _clock_hint(answer: Mapping[str, Any]) -> str | None:
    """Compare this computer's clock with the date of the answer; None if the clock is right."""
    try:
        theirs = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, ValueError):
        return None
    seconds = (SystemClock().now() - theirs).total_seconds()
    if abs(seconds) < SKEW_SECONDS:
        return None
    difference = f"{abs(seconds) / 60:.0f} minutes {'ahead of' if seconds > 0 else 'behind'} the cloud's"
    return f"this machine's clock is {difference}: set it (`timedatectl set-ntp true`)"


def iam_action(service: str, operation: str) -> str:
    """Return IAM's name of an operation."""
    return S3_ACTIONS.get(operation, f"s3:{operation}") if service == "s3" else f"{service}:{operation}"


def _region_of_bucket(answer: Mapping[str, Any]) -> str | None:
    """Return a bucket's region from an answer that says it is not in ours."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = headers.get("x-amz-bucket-region") or answer.get("Error", {}).get("Region")
    return region


def _denied_action(message: str) -> str | None:
    """Return the action in a message like `… is not authorized to perform: ec2:RunInstances …`."""
    found = re.search(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9]+)", message)
    return found.group(1) if found else None
