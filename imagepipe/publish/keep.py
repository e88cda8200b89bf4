"""The last stage of a run that succeeded: its products are kept, in every region, and the journal says so."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2
from imagepipe.engine.journal import Claim, Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError, ImagepipeError
from imagepipe.values import Image


@dataclass(frozen=True)
class Keep(Stage[tuple[Image, ...]]):
    """Images that no clean-up will take any more."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """By region."""
    images: tuple[Ref[Image], ...]
    """Every image of the run: either all are kept, or none."""
    after: tuple[Ref[None], ...] = ()
    """What must have gone well too."""

    def run(self, ctx: Context) -> tuple[Image, ...]:
        images = tuple(ctx[ref] for ref in self.images)
        ctx.cancel.check()
        try:
            for image in images:
                self._tag(image, tags.KEPT)
        except CloudError:
            # All regions or none: undo takes what is unfinished, and must find those that were turned already.
            for image in images:
                with suppress(CloudError):
                    self._tag(image, tags.UNFINISHED)
            raise
        # Of these images alone: other specs of the same run are not done yet.
        ids = {id for image in images for id in (image.id, *image.snapshots, image.bundle) if id}
        for claim in ctx.journal.claims():
            if claim.lifetime is Lifetime.PRODUCT and claim.is_open() and ids & _bound(claim):
                # Their tags are turned: where that cannot be written any more, `clean` leaves them by their tags.
                with suppress(ImagepipeError):
                    ctx.journal.keep(claim)
        return images

    def _tag(self, image: Image, state: str) -> None:
        self.ec2[image.region].images.tag([image.id, *image.snapshots], {tags.STATE: state})

    def title(self) -> str:
        return "keep the images"

    def summary(self, output: tuple[Image, ...]) -> str:
        return ", ".join(f"{image.id} in {image.region}" for image in output)


def _bound(claim: Claim) -> set[str]:
    """What a claim was bound to: ids, or the location of a bundle, which is whole though it has a comma."""
    return {claim.id, *claim.id.split(",")} if claim.id else set()
