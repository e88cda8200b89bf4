"""Systems Manager's parameters, as moto keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moto.core.exceptions import ServiceException

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.moto.adapter import Moto
from imagepipe.partitions import partition

IMAGE = "aws:ec2:image"
"""The data type of a parameter whose value is an image id."""


@dataclass(frozen=True, slots=True)
class ImageParameter:
    """A parameter of the type `aws:ec2:image`, in its newest version."""

    arn: str
    value: str


def parameter_value(moto: Moto, account: str, region: str, name: str) -> str | None:
    """Return the value of a parameter, `NAME`, `NAME:VERSION` or `NAME:LABEL`; None if it does not exist."""
    with moto.lock("ssm"):
        try:
            found: Any = moto.model("ssm", account, region).get_parameter(name)
        except ServiceException:  # a version or a label that does not exist
            return None
        return str(found.value) if found is not None else None


def newest_version(moto: Moto, account: str, region: str, name: str) -> int | None:
    """Return the number of the newest version of one of the account's own parameters; None if it does not exist."""
    versions = _own_versions(moto, account, region).get(name)
    return int(versions[-1].version) if versions else None


def image_parameters(moto: Moto, account: str, region: str) -> Iterator[ImageParameter]:
    """List the account's parameters whose values are image ids."""
    for name, versions in _own_versions(moto, account, region).items():
        if versions and versions[-1].data_type == IMAGE:
            yield ImageParameter(parameter_arn(account, region, name), str(versions[-1].value))


def parameter_arn(account: str, region: str, name: str) -> str:
    """Return a parameter's ARN; a public one has no owner (Systems Manager user guide, "Public parameters")."""
    owner = "" if name.startswith("/aws/") else account
    return f"arn:{partition(region)}:ssm:{region}:{owner}:parameter/{name.removeprefix('/')}"


def _own_versions(moto: Moto, account: str, region: str) -> dict[str, list[Any]]:
    """Return the versions of the account's own parameters by name, without loading the public ones."""
    with moto.lock("ssm"):
        parameters: Any = moto.model("ssm", account, region)._parameters
        return {str(name): list(versions) for name, versions in dict.items(parameters)}
