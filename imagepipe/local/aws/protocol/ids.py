"""Ids as EC2 makes them: a prefix and seventeen hexadecimal digits."""

from __future__ import annotations

import hashlib
import re
import secrets

from imagepipe.local.aws.protocol.errors import AwsError

_SHAPE = re.compile(r"[a-z]+-([0-9a-f]{17}|[0-9a-f]{8})")

MALFORMED = {
    "i": ("InvalidInstanceID", "instance ID"),
    "ami": ("InvalidAMIID", "image id"),
    "snap": ("InvalidSnapshotID", "snapshot ID"),
    "vol": ("InvalidVolumeID", "volume ID"),
    "sg": ("InvalidGroupId", "security group ID"),
    "subnet": ("InvalidSubnetID", "subnet ID"),
    "eni": ("InvalidNetworkInterfaceID", "networkInterface ID"),
}
"""By prefix, the stem of EC2's code and what its message calls the thing."""


def new_id(prefix: str) -> str:
    """Make an id that was never used before."""
    return f"{prefix}-0{secrets.token_hex(8)}"


def stable_id(prefix: str, *names: str) -> str:
    """Make the same id for the same names, on every computer."""
    return f"{prefix}-0{hashlib.sha256('/'.join(names).encode()).hexdigest()[:16]}"


def check_id(prefix: str, identifier: str) -> None:
    """Raise EC2's `.Malformed` for a text that cannot be an id of this kind."""
    if not identifier.startswith(f"{prefix}-") or not _SHAPE.fullmatch(identifier):
        stem, thing = MALFORMED[prefix]
        raise AwsError(f"{stem}.Malformed", f'Invalid {thing}: "{identifier}"')


def not_found(prefix: str, identifiers: list[str]) -> AwsError:
    """Make EC2's `.NotFound` for unknown ids, and for those of other accounts."""
    stem, thing = MALFORMED[prefix]
    if prefix == "sg":
        return AwsError("InvalidGroup.NotFound", f"The security group '{', '.join(identifiers)}' does not exist")
    if prefix == "ami":
        return AwsError(f"{stem}.NotFound", f"The image id '[{', '.join(identifiers)}]' does not exist")
    if prefix == "snap":
        return AwsError("InvalidSnapshot.NotFound", f"The snapshot '{', '.join(identifiers)}' does not exist.")
    if prefix == "vol":
        return AwsError("InvalidVolume.NotFound", f"The volume '{', '.join(identifiers)}' does not exist.")
    plural = f"{thing} '{identifiers[0]}' does" if len(identifiers) == 1 else f"{thing}s '{', '.join(identifiers)}' do"
    return AwsError(f"{stem}.NotFound", f"The {plural} not exist")
