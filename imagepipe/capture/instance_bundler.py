"""The talk with an agent that bundles: it makes the parts and sends them; the names, the URLs and the seal are ours."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imagepipe.bundle import tarball
from imagepipe.bundle.cipher import Secret
from imagepipe.bundle.extents import Extent
from imagepipe.bundle.manifest import (
    Label,
    Manifest,
    PartReport,
    Recipients,
    assemble,
    check_label,
    named_parts,
    write_manifest,
)
from imagepipe.bundle.parts import PART_BYTES, part_name, width_for
from imagepipe.capture.agent.wire import Broken, Wire
from imagepipe.capture.s3_parts import S3Parts
from imagepipe.engine.stage import Context
from imagepipe.errors import BundleError
from imagepipe.hygiene.found import Report, read_report
from imagepipe.values import BundlePart

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FixedRoot:
    """The image as the agent fixed it: nobody changes it any more."""

    method: str
    size: int
    modified: int
    extents: tuple[Extent, ...]
    report: Report | None = None
    """What the look at it found, where it was to be looked at."""

    @classmethod
    def heard(cls, wire: Wire, say: Callable[[str], None]) -> FixedRoot:
        """What the agent says once it has fixed the image. Raises Broken, BundleError."""
        while True:
            message = next_message(wire, say)
            if "extents" in message:
                extents = tuple(Extent(int(at), int(length)) for at, length in message["extents"])
                report = read_report([str(message.get("hygiene", ""))])
                return cls(str(message["method"]), int(message["size"]), int(message["modified"]), extents, report)

    @property
    def data_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)

    def words(self) -> str:
        """For the log."""
        return f"by method {self.method}: {self.size // MIB} MiB, {self.data_bytes // MIB} MiB of them data"


def next_message(wire: Wire, say: Callable[[str], None]) -> dict[str, Any]:
    """The agent's next message that is more than a line for the log.

    Raises Broken at the end of the stream, BundleError with what the agent could not do.
    """
    while True:
        message = wire.hear()
        if not isinstance(message, dict):
            raise Broken("the agent ended in the middle of its work")
        if "error" in message:
            raise BundleError(str(message["error"]), hint=str(message["hint"]) or None)
        if "say" not in message:
            return message
        say(str(message["say"]))


def bundle_on_instance(
    ctx: Context,
    wire: Wire,
    root: FixedRoot,
    parts: S3Parts,
    *,
    label: Label,
    secret: Secret,
    recipients: Recipients,
) -> Manifest:
    """Have the agent bundle the image; the manifest, which is put last. Raises Broken, BundleError, CloudError.

    A URL is given for one part's bytes and no others, and every part is looked at here before the bundle is sealed.
    """
    check_label(label)
    member = tarball.Member(root.size, root.extents)
    head = tarball.head(label.name, member, modified=root.modified)
    tail = tarball.tail(len(head) + member.data_bytes)
    width = width_for(worst_case(len(head) + member.data_bytes + len(tail)))
    wire.tell(
        do="bundle",
        head=base64.b64encode(head).decode(),
        tail=len(tail),
        key=secret.key.hex(),
        iv=secret.iv.hex(),
        part_bytes=PART_BYTES,
    )
    reports: dict[int, PartReport] = {}
    made: dict[int, BundlePart] = {}
    sha1 = None
    while sha1 is None:
        message = next_message(wire, ctx.say)
        if "part" in message:
            number = int(message["part"])
            part = BundlePart(part_name(label.name, number, width=width), int(message["size"]), str(message["md5"]))
            reports[number], made[number] = PartReport(number, part.size, str(message["sha1"])), part
            if parts.has(part):
                wire.tell(part=number, have=True)
            else:
                leave = parts.leave_to_put(part)
                wire.tell(part=number, url=leave.url, headers=dict(leave.headers))
        elif "sent" in message:
            parts.confirm(made[int(message["sent"])])
        elif "done" in message:
            progress(ctx, int(message["done"]), int(message["of"]))
        else:
            sha1 = str(message["sha1"])
    named, bundled_size = named_parts(reports.values(), label.name, width=width)
    manifest = assemble(
        label,
        size=root.size,
        sha1=sha1,
        parts=named,
        bundled_size=bundled_size,
        secret=secret,
        recipients=recipients,
    )
    parts.described(manifest)  # all were seen, or it raises
    parts.finish(manifest.filename, write_manifest(manifest, recipients.owner.private_key))
    end(wire, ctx.say)
    return manifest


def end(wire: Wire, say: Callable[[str], None]) -> None:
    """Let the agent put away what it took of a disk; one that is gone already has nothing to put away."""
    try:
        wire.tell(do="end")
        while "ended" not in next_message(wire, say):
            pass
    except (Broken, OSError):
        return


def progress(ctx: Context, done: int, of: int) -> None:
    """How much of the image's data has been read."""
    ctx.progress(f"{done // MIB} of {of // MIB} MiB", done / of if of else 1.0)


def worst_case(size: int) -> int:
    """Bytes that the agent's gzip and padding make of so many at most: stored blocks of zlib add 5 in each 16 KiB."""
    return size + (size >> 11) + 64 * (1 + (size >> 20)) + 1024
