"""Bundle on the instance: the agent makes and uploads the parts; names, URLs and the manifest are made here."""

from __future__ import annotations

import base64
from collections.abc import Callable

from imagepipe.bundle import tarball
from imagepipe.bundle.cipher import Secret
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
from imagepipe.capture.agent.frames import ProtocolError, Wire
from imagepipe.capture.instance_store.agent_messages import (
    OfferedPart,
    PreparedRoot,
    digest_of_all,
    next_message,
    number_sent,
    progress_of,
)
from imagepipe.capture.instance_store.s3_parts import S3Parts
from imagepipe.engine.stage import Context
from imagepipe.errors import BundleError
from imagepipe.values import BundlePart

MIB = 1 << 20


def bundle_on_instance(
    ctx: Context,
    wire: Wire,
    root: PreparedRoot,
    parts: S3Parts,
    *,
    label: Label,
    secret: Secret,
    recipients: Recipients,
) -> Manifest:
    """Let the agent bundle the image; return the manifest. Raises ProtocolError, BundleError, CloudError.

    A URL is valid for one part's bytes only, and every part is verified here before the manifest is put.
    """
    check_label(label)
    member = tarball.Member(root.size, root.extents)
    head = tarball.head(label.name, member, modified=root.modified)
    tail = tarball.tail(len(head) + member.data_bytes)
    most = worst_case(len(head) + member.data_bytes + len(tail))
    width, count = width_for(most), -(-most // PART_BYTES)

    def described(made: OfferedPart) -> BundlePart:
        return BundlePart(part_name(label.name, made.number, width=width), made.size, made.md5)

    wire.send(
        do="bundle",
        head=base64.b64encode(head).decode(),
        tail=len(tail),
        key=secret.key.hex(),
        iv=secret.iv.hex(),
        part_bytes=PART_BYTES,
    )
    made: dict[int, OfferedPart] = {}
    sha1 = None
    while sha1 is None:
        message = next_message(wire, ctx.say)
        if "part" in message:
            new = OfferedPart.parse(message, count=count)
            if made.setdefault(new.number, new) != new:
                raise BundleError(f"part {new.number} of {label.name} was made twice, with different content")
            part = described(new)
            if parts.has(part):
                wire.send(part=new.number, have=True)
            else:
                presigned = parts.presign_put(part)
                wire.send(part=new.number, url=presigned.url, headers=dict(presigned.headers))
        elif "sent" in message:
            if (number := number_sent(message, count=count)) not in made:
                raise BundleError(f"part {number} of {label.name} was reported as uploaded, but was never made")
            parts.confirm(described(made[number]))
        elif "done" in message:
            progress(ctx, *progress_of(message))
        else:
            sha1 = digest_of_all(message)
    parts.check_seen(described(each) for each in made.values())
    reports = (PartReport(each.number, each.size, each.sha1) for each in made.values())
    named, bundled_size = named_parts(reports, label.name, width=width)
    manifest = assemble(
        label,
        size=root.size,
        sha1=sha1,
        parts=named,
        bundled_size=bundled_size,
        secret=secret,
        recipients=recipients,
    )
    parts.finish(manifest.filename, write_manifest(manifest, recipients.owner.private_key))
    end(wire, ctx.say)
    return manifest


def end(wire: Wire, say: Callable[[str], None]) -> None:
    """Tell the agent that the bundle is complete, and wait until it ends. It may already be gone."""
    try:
        wire.send(do="end")
        while "ended" not in next_message(wire, say):
            pass
    except (ProtocolError, OSError):
        return


def progress(ctx: Context, done: int, of: int) -> None:
    """Report how much of the image's data has been read."""
    ctx.progress(f"{done // MIB} of {of // MIB} MiB", done / of if of else 1.0, of_bytes=of)


def worst_case(size: int) -> int:
    """Return the largest size after gzip and padding: zlib's stored blocks add 5 bytes per 16 KiB."""
    return size + (size >> 11) + 64 * (1 + (size >> 20)) + 1024
