"""Systems Manager's parameters, as moto keeps them."""

from __future__ import annotations

from typing import Any

from moto.core.exceptions import ServiceException

from imagepipe.local.aws.moto.adapter import Moto


def parameter_value(moto: Moto, account: str, region: str, name: str) -> str | None:
    """Return the value of a parameter, `NAME`, `NAME:VERSION` or `NAME:LABEL`; None if it does not exist."""
    with moto.lock("ssm"):
        try:
            found: Any = moto.model("ssm", account, region).get_parameter(name)
        except ServiceException:  # a version or a label that does not exist
            return None
        return str(found.value) if found is not None else None
