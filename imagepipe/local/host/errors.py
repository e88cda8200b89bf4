"""Errors of this computer's machines."""

from __future__ import annotations


class MachineError(Exception):
    """A machine could not be started, stopped or read. The text names the action and the reason."""


class DiskBusy(MachineError):
    """A machine still uses a disk that is being detached; the same call succeeds later."""
