"""Mark the images of a build as kept, in every required region and in the journal."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from typing import Any

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Claim, Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import ImagepipeError
from imagepipe.values import Image


@dataclass(frozen=True)
class Keep(Stage[tuple[Image, ...]]):
    """Tag the images as kept, so that no clean-up deletes them."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """EC2 by region."""
    images: tuple[Ref[Image], ...]
    """The images of all required regions, of which all are kept or none; or the image of a best-effort region."""
    after: tuple[Ref[Any], ...] = ()
    """Further stages that must succeed first."""

    def run(self, ctx: Context) -> tuple[Image, ...]:
        images = tuple(ctx[ref] for ref in self.images)
        ctx.cancel.check()
        try:
            for image in images:
                self._tag(image, tags.KEPT)
        except BaseException:
            # Keep all regions or none: undo deletes only unfinished images, so tag all of them as unfinished again.
            for image in images:
                self._untag(ctx, image)
            raise
        for image in images:
            for claim in _claims(ctx, image):
                # If the journal cannot be written, `clean` still leaves the images alone because of their tags.
                with suppress(ImagepipeError):
                    ctx.journal.keep(claim)
        return images

    def _untag(self, ctx: Context, image: Image) -> None:
        """Tag an image as unfinished. If EC2 refuses that too, tell undo by the journal that the tag is wrong."""
        try:
            self._tag(image, tags.UNFINISHED)
        except ImagepipeError:
            for claim in _claims(ctx, image):
                with suppress(ImagepipeError):
                    ctx.journal.unkeep(claim)

    def _tag(self, image: Image, state: str) -> None:
        self.ec2[image.region].images.tag([image.id, *image.snapshots], {tags.STATE: state})

    def title(self) -> str:
        return "keep the images"

    def summary(self, output: tuple[Image, ...]) -> str:
        return ", ".join(f"{image.id} in {image.region}" for image in output)


@dataclass(frozen=True)
class CollectImages(Stage[tuple[Image, ...]]):
    """Collect the images of a spec, once everything about them is done in every required region."""

    images: tuple[Ref[Image], ...]

    def run(self, ctx: Context) -> tuple[Image, ...]:
        return tuple(ctx[ref] for ref in self.images)

    def title(self) -> str:
        return "the images are published"


def _claims(ctx: Context, image: Image) -> list[Claim]:
    """Return the open claims of this image alone: other specs of the same run are not done yet."""
    ids = {id for id in (image.id, *image.snapshots, image.bundle) if id}
    return [
        claim
        for claim in ctx.journal.claims()
        if claim.lifetime is Lifetime.PRODUCT and claim.is_open() and ids & _bound(claim)
    ]


def _bound(claim: Claim) -> set[str]:
    """Return the ids that a claim is bound to. The location of a bundle is one id, even if it contains a comma."""
    return {claim.id, *claim.id.split(",")} if claim.id else set()
