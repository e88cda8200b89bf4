"""Errors of this computer's machines."""

from __future__ import annotations


class MachineError(Exception):
    """A machine could not be started, stopped or read. The text names the action and the reason."""
