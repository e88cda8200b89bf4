"""botocore's errors in our words, at the one seam where they come in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
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
"""What another instance type or subnet may not have. `Unsupported`: the type is not offered in that zone."""

HINTS = {
    "AuthFailure": "the credentials are not valid for this endpoint; see `aws sts get-caller-identity`",
    "InvalidClientTokenId": "the access key is not known; see `aws sts get-caller-identity`",
    "SignatureDoesNotMatch": "the secret access key does not belong to the access key, or the clock is wrong",
    "RequestExpired": "the clock of this machine is wrong, or the session's credentials have expired",
    "ExpiredToken": "the session's credentials have expired; log in again",
    "OptInRequired": "the region is not enabled for this account",
    "InvalidAMIName.Duplicate": "put {{ build.timestamp }} into output.name, or set on_name_taken: replace",
    "InvalidAMIID.NotFound": "image ids differ by region; is launch.region the right one?",
    "VPCIdNotSpecified": "there is no default VPC in this region; name a subnet in launch.subnets",
    "InvalidBlockDeviceMapping": "see launch.volumes: a volume cannot be smaller than its snapshot",
    "InvalidKeyPair.NotFound": "launch.ssh.key_pair names a key pair of this region",
    "InstanceLimitExceeded": "ask for a higher limit, or end instances that are not needed",
    "VcpuLimitExceeded": "ask for a higher limit, or end instances that are not needed",
    "InsufficientVolumeCapacity": "the zone (or the local cloud's disk) is full",
    "ResourceLimitExceeded": "a limit of the account; see the Service Quotas console",
    "RequestLimitExceeded": "the account's API rate is used up; try again, with fewer builds at once",
}

DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "UnauthorizedAccess"})
_SERVICES = {"s3": "s3", "ec2": "ec2", "sts": "sts", "ssm": "ssm"}


@contextmanager
def doing(what: str, *, service: str = "ec2") -> Iterator[None]:
    """Translate what botocore raises inside; `what` says what we were doing, to what: `importing key pair x in y`."""
    try:
        yield
    except ClientError as error:
        raise _from_answer(what, error, service) from error
    except (NoCredentialsError, TokenRetrievalError) as error:
        raise no_credentials(what) from error
    except NoRegionError as error:
        raise CloudError(f"{what}: no region", hint="set launch.region, or give --region") from error
    except ProfileNotFound as error:
        raise CloudError(f"{what}: {error}", hint="see `aws configure list-profiles`") from error
    except ParamValidationError as error:
        raise CloudError(f"{what}: {' '.join(str(error).split())}", code="ParamValidation") from error
    except (ConnectionError, HTTPClientError) as error:
        raise CloudError(
            f"{what}: no answer: {' '.join(str(error).split())}",
            code="NoAnswer",
            hint="is there a way to the endpoint from here? a proxy, a VPN, the wrong region?",
        ) from error
    except BotoCoreError as error:
        raise CloudError(f"{what}: {' '.join(str(error).split())}") from error


def no_credentials(what: str) -> CloudError:
    """There is nobody to be, for AWS."""
    return CloudError(
        f"{what}: no AWS credentials",
        code="NoCredentials",
        hint="set AWS_PROFILE or AWS_ACCESS_KEY_ID, or log in with `aws sso login`; "
        "or build on this machine, without an account: --local",
    )


def _from_answer(what: str, error: ClientError, service: str) -> CloudError:
    answer: dict[str, Any] = error.response
    code = str(answer.get("Error", {}).get("Code", "Unknown"))
    message = " ".join(str(answer.get("Error", {}).get("Message", "")).split())
    request = str(answer.get("ResponseMetadata", {}).get("RequestId", ""))
    if code in DENIED:
        action = _denied_action(message) or f"{_SERVICES.get(service, service)}:{error.operation_name}"
        return CloudError(
            f"{what}: not authorised: {action} is missing ({code})",
            code=code,
            request_id=request,
            iam_action=action,
            hint=f"the IAM policy of these credentials must allow {action}",
        )
    # The local cloud and EC2 end their sentences with a full stop; ours goes on.
    return CloudError(f"{what}: {message.rstrip('.')} ({code})", code=code, request_id=request, hint=HINTS.get(code))


def _denied_action(message: str) -> str | None:
    """The action that IAM names in `… is not authorized to perform: ec2:RunInstances …`."""
    found = re.search(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9]+)", message)
    return found.group(1) if found else None
