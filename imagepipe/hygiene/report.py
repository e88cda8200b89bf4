"""What was looked for and what was found, as the two ends tell it one another: one line of JSON each way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from imagepipe.hygiene.known import pack, unpack

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
    """Regular files with any content."""
    size: int
    """Bytes that were read."""
    notes: tuple[str, ...] = ()
    """What was left out, for the log."""
    read: int = 0
    """Files that were read; the others are as an earlier scan found them clean."""
    clean: str = ""
    """Stamps of the files that were read and are clean, packed (`hygiene.known`)."""

    @classmethod
    def of_all(cls, reports: Sequence[Report]) -> Report:
        """Several as one."""
        return cls(
            tuple(each for one in reports for each in one.findings),
            sum(one.files for one in reports),
            sum(one.size for one in reports),
            tuple(note for one in reports for note in one.notes),
            sum(one.read for one in reports),
            pack(each for one in reports for each in unpack(one.clean)),
        )

    def line(self) -> str:
        """As it is printed."""
        return f"{MARK} {json.dumps(self._asdict())}"


class ScanRequest(NamedTuple):
    """What to look for."""

    rules: tuple[str, ...]
    """Names of those that count."""
    secrets: tuple[str, ...] = ()
    """Of the build, looked for by value."""
    builder_key: str = ""
    """The base64 of the builder's public key."""
    roots: tuple[str, ...] = ()
    """The tree to walk; none: what this machine has on its disks."""
    known: str = ""
    """Stamps of files that need not be read, packed (`hygiene.known`)."""

    def line(self) -> bytes:
        """As it goes over standard input."""
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> ScanRequest:
        """What the other end wrote."""
        told = json.loads(line.decode())
        return cls(
            tuple(told["rules"]), tuple(told["secrets"]), told["builder_key"], tuple(told["roots"]), told["known"]
        )


def read_report(lines: Sequence[str]) -> Report | None:
    """The report among what was printed; None where there is none. Raises ValueError for a broken one."""
    text = "".join(lines)
    _, found, rest = text.rpartition(MARK)
    if not found:
        return None
    told: dict[str, Any]
    try:
        told, _ = json.JSONDecoder().raw_decode(rest.lstrip())
        findings = tuple(Finding(*each) for each in told["findings"])
        notes, read, clean = tuple(told["notes"]), int(told["read"]), str(told["clean"])
        unpack(clean)
        return Report(findings, int(told["files"]), int(told["size"]), notes, read, clean)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report: {error}") from error
