"""What the agent says, checked before it is believed: the instance runs what somebody else wrote, and is not trusted.

Whatever comes, BundleError or ProtocolError is what it can raise here; and no more is kept than an image can need.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imagepipe.bundle.extents import Extent
from imagepipe.bundle.parts import PART_BYTES
from imagepipe.bundle.tarball import MAX_EXTENTS
from imagepipe.capture.agent.frames import ProtocolError, Wire
from imagepipe.errors import BundleError
from imagepipe.hygiene.report import Finding, Report, read_report
from imagepipe.hygiene.rules import BY_NAME

MIB = 1 << 20
LARGEST_IMAGE_BYTES = 1 << 40
LATEST = 1 << 33
"""Seconds since 1970 that a tar's header has room for in octal."""
LONGEST_TEXT = 2000
_SHA1, _MD5 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{32}")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PreparedRoot:
    """The image as the agent fixed it: nobody changes it any more."""

    method: str
    size: int
    modified: int
    extents: tuple[Extent, ...]
    """In order, apart, and within the size."""
    report: Report | None = None
    """What the look at it found, where it was to be looked at."""

    @classmethod
    def receive(cls, wire: Wire, say: Say) -> PreparedRoot:
        """What the agent says once it has fixed the image. Raises ProtocolError, BundleError."""
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
        """For the log."""
        return f"by method {self.method}: {self.size // MIB} MiB, {self.data_bytes // MIB} MiB of them data"


@dataclass(frozen=True, slots=True)
class OfferedPart:
    """A part that the agent has made, and asks leave to send."""

    number: int
    size: int
    sha1: str
    md5: str

    @classmethod
    def parse(cls, message: dict[str, Any], *, count: int) -> OfferedPart:
        """Of a bundle that can have so many parts. Raises BundleError."""
        return cls(
            _whole(message, "part", most=count - 1),
            _whole(message, "size", least=1, most=PART_BYTES),
            _digest(message, "sha1", _SHA1),
            _digest(message, "md5", _MD5),
        )


def number_sent(message: dict[str, Any], *, count: int) -> int:
    """The part that the agent says it has sent. Raises BundleError."""
    return _whole(message, "sent", most=count - 1)


def progress_of(message: dict[str, Any]) -> tuple[int, int]:
    """Bytes that were read, and of how many. Raises BundleError."""
    return _whole(message, "done", most=LARGEST_IMAGE_BYTES), _whole(message, "of", most=LARGEST_IMAGE_BYTES)


def digest_of_all(message: dict[str, Any]) -> str:
    """The SHA-1 of the tar. Raises BundleError."""
    return _digest(message, "sha1", _SHA1)


def next_message(wire: Wire, say: Say) -> dict[str, Any]:
    """The agent's next message that is more than a line for the log.

    Raises ProtocolError at the end of the stream, BundleError with what the agent could not do.
    """
    while True:
        heard = wire.receive()
        if not isinstance(heard, dict):
            raise ProtocolError("the agent ended in the middle of its work")
        if not log_if_text(heard, say):
            return heard


def log_if_text(message: dict[str, Any], say: Say) -> bool:
    """Whether it was a line for the log, which now has it, or a sign of life.

    Raises BundleError with what the agent could not do.
    """
    if "error" in message:
        raise BundleError(plain(message["error"]), hint=plain(message.get("hint", "")) or None)
    if "say" in message:
        say(plain(message["say"]))
    return "say" in message or "beat" in message


def plain(said: object) -> str:
    """Text of the machine, a file's name with any bytes in it too: without what drives a terminal, or is no UTF-8."""
    text = str(said)[:LONGEST_TEXT]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _extents(said: object, size: int) -> tuple[Extent, ...]:
    if not isinstance(said, list) or len(said) > MAX_EXTENTS:
        raise _nonsense("extents", said)
    found, at = [], 0
    for each in said:
        if not (isinstance(each, list) and len(each) == 2 and all(type(number) is int for number in each)):
            raise _nonsense("extents", each)
        extent = Extent(*each)
        if extent.length <= 0 or extent.offset < at or extent.end > size:
            raise BundleError(f"the agent on the machine says that an image of {size} bytes has {extent} after {at}")
        found.append(extent)
        at = extent.end
    return tuple(found)


def _report(said: object) -> Report | None:
    try:
        report = read_report([str(said)])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _nonsense("hygiene", said) from error
    if report is None:
        return None
    findings = tuple(Finding(*map(plain, each)) for each in report.findings)
    if not all(each.rule in BY_NAME for each in findings):
        raise _nonsense("hygiene", said)
    return Report(findings, report.files, report.size, tuple(map(plain, report.notes)), report.read)


def _whole(message: dict[str, Any], name: str, *, least: int = 0, most: int) -> int:
    said = message.get(name)
    if type(said) is not int or not least <= said <= most:  # True is none either
        raise _nonsense(name, said)
    return said


def _text(message: dict[str, Any], name: str) -> str:
    said = message.get(name)
    if not isinstance(said, str):
        raise _nonsense(name, said)
    return plain(said)


def _digest(message: dict[str, Any], name: str, form: re.Pattern[str]) -> str:
    said = message.get(name)
    if not isinstance(said, str) or not form.fullmatch(said):
        raise _nonsense(name, said)
    return said


def _nonsense(name: str, said: object) -> BundleError:
    return BundleError(
        f"the agent on the machine says of {name}: {plain(repr(said)[:100])}",
        hint="somebody on the machine meddles with it, or it is another version",
    )
