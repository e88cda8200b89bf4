"""Errors with EC2's own codes, so that a client takes the same branch as on EC2."""

from __future__ import annotations


class AwsError(Exception):
    """A request that EC2 would refuse, with EC2's code (EC2 API reference, "Error codes")."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        """HTTP status: 400 for the caller's faults, 5xx for ours."""


def missing(parameter: str) -> AwsError:
    """Make the error for a missing parameter."""
    return AwsError("MissingParameter", f"The request must contain the parameter {parameter}")


def invalid(message: str) -> AwsError:
    """Make the error for an invalid value."""
    return AwsError("InvalidParameterValue", message)


def conflicting(message: str) -> AwsError:
    """Make the error for parameters that exclude each other."""
    return AwsError("InvalidParameterCombination", message)


def unsupported(message: str) -> AwsError:
    """Make the error for a feature of EC2 that the local cloud lacks."""
    return AwsError("UnsupportedOperation", message)
