"""Times as EC2 writes them."""

from __future__ import annotations

from datetime import datetime


def milliseconds(moment: datetime) -> str:
    """Write a time with milliseconds. Only volumes and snapshots have other ones than zero."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def whole_second(moment: datetime) -> datetime:
    """Cut off the fraction of a second, which EC2 does not keep for instances, attachments, templates and key pairs."""
    return moment.replace(microsecond=0)
