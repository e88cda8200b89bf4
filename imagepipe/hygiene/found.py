"""What was looked for and what was found, as the two ends tell it one another: one line of JSON each way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

MARK = "imagepipe-hygiene:"
"""Begins the line that has the report: other things may print too."""


class Finding(NamedTuple):
    """Something that must not be in an image. Never with its value."""

    rule: str
    path: str
    """Absolute, as instances of the image will have it."""
    what: str
    """What it is, in a few words."""


class Report(NamedTuple):
    """What a look over a tree gave."""

    findings: tuple[Finding, ...]
    files: int
    """Regular files that were looked into."""
    size: int
    """Bytes that were read."""
    notes: tuple[str, ...] = ()
    """What was left out, for the log."""

    @classmethod
    def of_all(cls, reports: Sequence[Report]) -> Report:
        """Several as one."""
        return cls(
            tuple(each for one in reports for each in one.findings),
            sum(one.files for one in reports),
            sum(one.size for one in reports),
            tuple(note for one in reports for note in one.notes),
        )

    def line(self) -> str:
        """As it is printed."""
        return f"{MARK} {json.dumps(self._asdict())}"


class Wanted(NamedTuple):
    """What to look for."""

    rules: tuple[str, ...]
    """Names of those that count."""
    secrets: tuple[str, ...] = ()
    """Of the build, looked for by value."""
    builder_key: str = ""
    """The base64 of the builder's public key."""
    roots: tuple[str, ...] = ()
    """The tree to walk; none: what this machine has on its disks."""

    def line(self) -> bytes:
        """As it goes over standard input."""
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def heard(cls, line: bytes) -> Wanted:
        """What the other end wrote."""
        told = json.loads(line.decode())
        return cls(tuple(told["rules"]), tuple(told["secrets"]), told["builder_key"], tuple(told["roots"]))


def read_report(lines: Sequence[str]) -> Report | None:
    """The report among what was printed; None where there is none."""
    text = "".join(lines)
    _, found, rest = text.rpartition(MARK)
    if not found:
        return None
    told: dict[str, Any]
    told, _ = json.JSONDecoder().raw_decode(rest.lstrip())
    findings = tuple(Finding(*each) for each in told["findings"])
    return Report(findings, int(told["files"]), int(told["size"]), tuple(told["notes"]))
