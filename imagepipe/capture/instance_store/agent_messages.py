"""Parse and validate the agent's messages: the instance runs other people's code and is not trusted.

Malformed messages only raise BundleError or ProtocolError, and no more data is kept than an image can need.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from imagepipe.bundle.extents import Extent
from imagepipe.bundle.parts import PART_BYTES
from imagepipe.bundle.tarball import MAX_EXTENTS
from imagepipe.capture.agent.frames import ProtocolError, Wire
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError
from imagepipe.hygiene.report import Finding, Report, read_report
from imagepipe.hygiene.rules import BY_NAME

MIB = 1 << 20
LARGEST_IMAGE_BYTES = 1 << 40
LATEST = 1 << 33
"""Latest time, in seconds since 1970, that fits into a tar's header in octal."""
LONGEST_TEXT = 2000
_SHA1, _MD5 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{32}")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PreparedRoot:
    """The agent's description of the prepared image, which no longer changes."""

    method: str
    size: int
    modified: int
    extents: tuple[Extent, ...]
    """Extents in order, disjoint and within the size."""
    report: Report | None = None
    """Report of the scan; None if none was requested."""

    @classmethod
    def receive(cls, wire: Wire, say: Say) -> PreparedRoot:
        """Wait for the agent's description of the prepared image. Raises ProtocolError, BundleError."""
        while "extents" not in (message := next_message(wire, say)):
            pass
        size = _whole(message, "size", most=LARGEST_IMAGE_BYTES)
        modified = _whole(message, "modified", most=LATEST - 1)
        extents = _extents(message["extents"], size)
        return cls(_text(message, "method"), size, modified, extents, _report(message.get("hygiene", "")))

    @property
    def data_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)

    def describe(self) -> str:
        """Describe the image for the log."""
        return f"by method {self.method}: {self.size // MIB} MiB, {self.data_bytes // MIB} MiB of them data"


@dataclass(frozen=True, slots=True)
class OfferedPart:
    """A part that the agent has made and wants to upload."""

    number: int
    size: int
    sha1: str
    md5: str

    @classmethod
    def parse(cls, message: dict[str, Any], *, count: int) -> OfferedPart:
        """Parse a message, for a bundle of at most `count` parts. Raises BundleError."""
        return cls(
            _whole(message, "part", most=count - 1),
            _whole(message, "size", least=1, most=PART_BYTES),
            _digest(message, "sha1", _SHA1),
            _digest(message, "md5", _MD5),
        )


def number_sent(message: dict[str, Any], *, count: int) -> int:
    """Return the number of the part that the agent reports as sent. Raises BundleError."""
    return _whole(message, "sent", most=count - 1)


def progress_of(message: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes that were read and their total. Raises BundleError."""
    return _whole(message, "done", most=LARGEST_IMAGE_BYTES), _whole(message, "of", most=LARGEST_IMAGE_BYTES)


def digest_of_all(message: dict[str, Any]) -> str:
    """Return the SHA-1 of the tar. Raises BundleError."""
    return _digest(message, "sha1", _SHA1)


def next_message(wire: Wire, say: Say) -> dict[str, Any]:
    """Return the agent's next message that is not just a line for the log.

    Raises ProtocolError at the end of the stream, BundleError with the agent's error.
    """
    while True:
        message = wire.receive()
        if not isinstance(message, dict):
            raise ProtocolError("the agent ended in the middle of its work")
        if not log_if_text(message, say):
            return message


def log_if_text(message: dict[str, Any], say: Say) -> bool:
    """Log a message if it is a line for the log. Return whether it was one, or a heartbeat.

    Raises BundleError with the agent's error.
    """
    if "error" in message:
        raise BundleError(plain(message["error"]), hint=plain(message.get("hint", "")) or None)
    if "say" in message:
        say(plain(message["say"]))
    return "say" in message or "beat" in message


def plain(value: object) -> str:
    """Return text from the machine without control characters and invalid UTF-8."""
    text = str(value)[:LONGEST_TEXT]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _extents(value: object, size: int) -> tuple[Extent, ...]:
    if not isinstance(value, list) or len(value) > MAX_EXTENTS:
        raise _invalid("extents", value)
    found, at = [], 0
    for each in value:
        if not (isinstance(each, list) and len(each) == 2 and all(type(number) is int for number in each)):
            raise _invalid("extents", each)
        extent = Extent(*each)
        if extent.length <= 0 or extent.offset < at or extent.end > size:
            raise BundleError(f"the agent on the machine sent {extent} after {at}, in an image of {size} bytes")
        found.append(extent)
        at = extent.end
    return tuple(found)


def _report(value: object) -> Report | None:
    try:
        report = read_report([str(value)])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _invalid("hygiene", value) from error
    if report is None:
        return None
    findings = tuple(Finding(*map(plain, each)) for each in report.findings)
    if not all(each.rule in BY_NAME for each in findings):
        raise _invalid("hygiene", value)
    return Report(findings, report.files, report.size, tuple(map(plain, report.notes)), report.read)


def _whole(message: dict[str, Any], name: str, *, least: int = 0, most: int) -> int:
    value = message.get(name)
    if type(value) is not int or not least <= value <= most:  # not isinstance, because True is an int
        raise _invalid(name, value)
    return value


def _text(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise _invalid(name, value)
    return plain(value)


def _digest(message: dict[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise _invalid(name, value)
    return value


def _invalid(name: str, value: object) -> BundleError:
    return BundleError(
        f"the agent on the machine sent an invalid value for {name}: {plain(repr(value)[:100])}",
        hint="somebody on the machine may have tampered with the agent",
    )
