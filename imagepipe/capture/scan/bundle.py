"""The hygiene gate of an instance-store image: its bundle is unpacked, and the disk scanned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any

from imagepipe.bundle.document import LARGEST_BYTES
from imagepipe.bundle.manifest import Recipients, find_secret, read_manifest
from imagepipe.bundle.parts import LARGEST_PART_BYTES
from imagepipe.bundle.unpack import unpack
from imagepipe.capture.scan.gate import Gate
from imagepipe.capture.scan.stages import TITLE, Offline, gate_on_machine
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage
from imagepipe.communicator.ssh import public_key
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.values import Image, Reachable


@dataclass(frozen=True)
class CheckBundle(Stage[Image]):
    """Unpack and scan the bundle, and pass the instance-store image on if nothing is found."""

    ec2: Ec2 = field(repr=False, compare=False)
    offline: Offline = field(repr=False, compare=False)
    recipients: Recipients = field(repr=False, compare=False)
    scratch: Path = field(repr=False, compare=False)
    """Folder for the unpacked disk."""
    image: Ref[Image]
    machine: Ref[Reachable]
    source: Ref[SourceImage]
    gate: Gate

    def must_exist(self) -> tuple[Ref[Any], ...]:
        return (self.image,)

    def run(self, ctx: Context) -> Image:
        image = ctx[self.image]
        if gate_on_machine(self.gate, self.offline, ctx[self.source]) is not None:
            ctx.say("the disk comes from elsewhere, so it is not mounted here: the machine itself was scanned")
            return image
        request = self.gate.request(builder_key=public_key(ctx[self.machine].endpoint))
        with self._unpacked(ctx, image) as disk:
            report = self.offline.scan(ctx, disk, request)
        self.gate.judge(ctx.say, report, where="unpacked the bundle and read its disk offline", record=ctx.finding)
        return image

    @contextmanager
    def _unpacked(self, ctx: Context, image: Image) -> Iterator[Path]:
        bucket, _, key = (image.bundle or "").partition("/")
        folder = key.rpartition("/")[0]
        manifest = read_manifest(self.ec2.s3.read(bucket, key, limit_bytes=LARGEST_BYTES))

        def part(filename: str) -> Iterator[bytes]:
            ctx.cancel.check()
            yield self.ec2.s3.read(bucket, f"{folder}/{filename}", limit_bytes=LARGEST_PART_BYTES)

        disk = self.scratch / f"{image.id}.raw"
        disk.unlink(missing_ok=True)  # left by an earlier process of the run
        try:
            with ctx.span("bytes"):
                unpack(manifest, part, find_secret(manifest, self.recipients.owner.private_key), disk)
            yield disk
        finally:
            disk.unlink(missing_ok=True)

    def title(self) -> str:
        return TITLE
