"""Copy the image to another region; copies run side by side, with a limit for each destination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Lock

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.tags import ProductTags, RunTags
from imagepipe.engine.journal import Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.values import Image, ImageText

COPIES_AT_ONCE = 20
"""Snapshot copies to one destination region that EBS lets run at once (EBS user guide, quotas: 20 by default)."""


class CopyLimits:
    """Turns for copies, one count for each destination region, shared by all builds of the process."""

    def __init__(self, at_once: int = COPIES_AT_ONCE) -> None:
        self._at_once = at_once
        self._turns: dict[str, BoundedSemaphore] = {}
        self._lock = Lock()

    def turn(self, region: str) -> BoundedSemaphore:
        """To be held while a copy into this region runs."""
        with self._lock:
            return self._turns.setdefault(region, BoundedSemaphore(self._at_once))


@dataclass(frozen=True)
class CopyToRegion(Stage[Image]):
    """The copy, available in its region."""

    ec2: Ec2 = field(repr=False, compare=False)
    """Of the destination."""
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
        # Two claims: the image's snapshots are made by the same call, and outlive a deregistered image.
        of_snapshots = ctx.intend("snapshots", region, lifetime=Lifetime.PRODUCT)
        of_image = ctx.intend("image", region, lifetime=Lifetime.PRODUCT)
        id = of_image.id or ctx.found_again(of_image, self.ec2.images.first_of_token)
        id = id or self.ec2.images.copy(
            image.id,
            image.region,
            text.name,
            text.description,
            client_token=of_image.token,
            tags=ProductTags(
                image=self.run_tags.product(of_image.token, text),
                snapshots=self.run_tags.product(of_snapshots.token, text),
            ),
            kms_key=self.kms_key,
        )
        ctx.bind(of_image, id)
        with ctx.span("bytes"):
            found = self.ec2.await_image(id, deadline=ctx.deadline(self.timeout_seconds), cancel=ctx.cancel)
        snapshots = tuple(
            mapping["Ebs"]["SnapshotId"]
            for mapping in found.get("BlockDeviceMappings", ())
            if mapping.get("Ebs", {}).get("SnapshotId")
        )
        if snapshots:
            ctx.bind(of_snapshots, ",".join(snapshots))
        return Image(id, region, text.name, snapshots)

    def title(self) -> str:
        return f"copy the image to {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{output.id} in {output.region}"
