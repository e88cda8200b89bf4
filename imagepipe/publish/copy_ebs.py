"""Copy an EBS-backed image to another region; copies run in parallel, with a limit per destination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from threading import BoundedSemaphore, Lock

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import snapshots_of
from imagepipe.cloud.tags import RunTags
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.values import Image, ImageText

COPIES_AT_ONCE = 20
"""Concurrent snapshot copies into one region that EBS allows (EBS user guide, quotas: 20 by default)."""


class CopyLimits:
    """Limits on parallel copies, one for each destination region, shared by all builds of the process."""

    def __init__(self, at_once: int = COPIES_AT_ONCE) -> None:
        self._at_once = at_once
        self._turns: dict[str, BoundedSemaphore] = {}
        self._lock = Lock()

    def turn(self, region: str) -> BoundedSemaphore:
        """Return the semaphore to hold while a copy into this region runs."""
        with self._lock:
            return self._turns.setdefault(region, BoundedSemaphore(self._at_once))


@dataclass(frozen=True)
class CopyToRegion(Stage[Image]):
    """Copy the image to another region and wait until it is available there."""

    ec2: Ec2 = field(repr=False, compare=False)
    """EC2 of the destination region."""
    limits: CopyLimits = field(repr=False, compare=False)
    run_tags: RunTags = field(repr=False, compare=False)
    image: Ref[Image]
    text: Ref[Mapping[str, ImageText]]
    kms_key: str | None = None
    timeout_seconds: float = field(default=12 * 3600, compare=False)

    def run(self, ctx: Context) -> Image:
        image = ctx[self.image]
        turn = self.limits.turn(self.ec2.region)
        while not turn.acquire(timeout=0.5):
            ctx.cancel.check()
        try:
            return self._copy(ctx, image)
        finally:
            turn.release()

    def _copy(self, ctx: Context, image: Image) -> Image:
        region = self.ec2.region
        text = ctx[self.text][region]
        # Two claims, because the same call also creates snapshots, and deregistering the image does not delete them.
        of_snapshots = ctx.intend("snapshots", region, lifetime=Lifetime.PRODUCT)
        of_image = ctx.intend("image", region, lifetime=Lifetime.PRODUCT)
        id = of_image.id or ctx.found_again(of_image, self.ec2.images.first_of_token)
        new = self.run_tags.image(of_image.token, text, snapshots=of_snapshots.token)
        id = id or self.ec2.images.copy(new, image.id, image.region, kms_key=self.kms_key)
        ctx.bind(of_image, id)
        with ctx.span("bytes"):
            found = self.ec2.await_image(id, deadline=ctx.deadline(self.timeout_seconds), cancel=ctx.cancel)
        snapshots = snapshots_of(found)
        if snapshots:
            ctx.bind(of_snapshots, ",".join(snapshots))
        return Image(id, region, text.name, snapshots)

    def title(self) -> str:
        return f"copy the image to {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{output.id} in {output.region}"
