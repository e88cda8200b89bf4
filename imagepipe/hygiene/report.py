"""The request and the report of a scan, which the two ends exchange as one line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from imagepipe.hygiene.known import pack, unpack

MARK = "imagepipe-hygiene:"
"""Beginning of the line with the report; other programs may print lines too."""


class Finding(NamedTuple):
    """Something that must not be in an image; never contains the value."""

    rule: str
    path: str
    """Absolute path, as on instances of the image."""
    what: str
    """Short description."""


class Report(NamedTuple):
    """The result of a scan."""

    findings: tuple[Finding, ...]
    files: int
    """Number of regular files that are not empty."""
    size: int
    """Number of bytes that were read."""
    notes: tuple[str, ...] = ()
    """Notes for the log about parts that were not scanned."""
    read: int = 0
    """Number of files that were read; the others are unchanged since a clean scan."""
    clean: str = ""
    """Stamps of files that were read and are clean, packed by `hygiene.known`."""

    @classmethod
    def of_all(cls, reports: Sequence[Report]) -> Report:
        """Combine several reports."""
        return cls(
            tuple(each for report in reports for each in report.findings),
            sum(report.files for report in reports),
            sum(report.size for report in reports),
            tuple(note for report in reports for note in report.notes),
            sum(report.read for report in reports),
            pack(each for report in reports for each in unpack(report.clean)),
        )

    def line(self) -> str:
        """Return the report as a line of output."""
        return f"{MARK} {json.dumps(self._asdict())}"


class ScanRequest(NamedTuple):
    """The request for a scan."""

    rules: tuple[str, ...]
    """Names of the rules to apply."""
    secrets: tuple[str, ...] = ()
    """Secrets of the build, found by value."""
    builder_key: str = ""
    """Base64 of the builder's public key."""
    roots: tuple[str, ...] = ()
    """Trees to scan; empty for the disks of this machine."""
    known: str = ""
    """Stamps of files that need not be read, packed by `hygiene.known`."""

    def line(self) -> bytes:
        """Return the request as a line of standard input."""
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> ScanRequest:
        """Parse the line that `line` returned."""
        fields = json.loads(line.decode())
        return cls(
            tuple(fields["rules"]),
            tuple(fields["secrets"]),
            fields["builder_key"],
            tuple(fields["roots"]),
            fields["known"],
        )


def read_report(lines: Sequence[str]) -> Report | None:
    """Return the report in a program's output; None if it has no report. Raises ValueError for a malformed one."""
    text = "".join(lines)
    _, found, rest = text.rpartition(MARK)
    if not found:
        return None
    fields: dict[str, Any]
    try:
        fields, _ = json.JSONDecoder().raw_decode(rest.lstrip())
        findings = tuple(Finding(*each) for each in fields["findings"])
        notes, read, clean = tuple(fields["notes"]), int(fields["read"]), str(fields["clean"])
        unpack(clean)
        return Report(findings, int(fields["files"]), int(fields["size"]), notes, read, clean)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report: {error}") from error
