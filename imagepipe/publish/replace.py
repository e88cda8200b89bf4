"""`on_name_taken: replace`: the new image takes over the old image's name, as the last step of the build.

Names are unique within an account and region, and an image cannot be renamed (EC2 API reference, RegisterImage). So
the new image is baked, tested, copied and kept under a temporary name. Only then, in each region, the old image is
deregistered, the new one's snapshots or bundle are registered again under the name, and the leftovers are deleted. A
good image exists at every moment: whatever fails in between, the new image remains under its temporary name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Any

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import Audience, OwnImage, bundle_of, snapshots_of
from imagepipe.cloud.tags import RunTags
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import BundleError, CloudError
from imagepipe.values import Image, ImageText

COPY_SECONDS = 12 * 3600


@dataclass(frozen=True)
class ReplaceImage(Stage[Image]):
    """Register the new image under the name that was taken, and retire the old image with its snapshots."""

    ec2: Ec2 = field(repr=False, compare=False)
    run_tags: RunTags = field(repr=False, compare=False)
    images: Ref[tuple[Image, ...]]
    """The new images. They are kept already, so they remain even if this stage fails."""
    wanted: Ref[Mapping[str, ImageText]]
    """Texts by region, with the name to take over."""
    audience: Audience

    def run(self, ctx: Context) -> Image:
        images = self.ec2.images
        baked = next(image for image in ctx[self.images] if image.region == self.ec2.region)
        name = ctx[self.wanted][self.ec2.region].name
        if baked.name == name:  # the name was free in this region
            return baked
        named = images.own_named(name)
        mine = next((image.id for image in named if image.tags.get(tags.RUN) == self.run_tags.run), None)
        old = [image for image in named if image.id != mine]
        # EC2 does not list the snapshots and the bundle of a deregistered image, so the claim records them first.
        details = {
            "left": ",".join(sorted({s for image in old for s in image.snapshots} | set(baked.snapshots))),
            "bundles": json.dumps({image.bundle: image.id for image in old if image.bundle}),
        }
        claim = ctx.intend("image", self.ec2.region, lifetime=Lifetime.PRODUCT, details=details)
        # `mine` without an open claim: a process died between the end of its claim and its output.
        new_id = claim.id or ctx.found_again(claim, images.first_of_token) or mine
        if new_id is None:
            new_id = self._take_over(ctx, name, baked, old, claim.token)
        ctx.bind(claim, new_id)
        seen = self.ec2.await_image(new_id, deadline=ctx.deadline(COPY_SECONDS), cancel=ctx.cancel)
        final = Image(new_id, self.ec2.region, name, snapshots_of(seen), bundle=bundle_of(seen))
        if self.audience:
            images.share(new_id, final.snapshots, self.audience)
        self._retire(ctx, baked, final, claim.details)
        # Last: if this process dies before, the next one finds the claim open, with all that is left to delete.
        ctx.journal.keep(claim)
        return final

    def _take_over(self, ctx: Context, name: str, baked: Image, old: Sequence[OwnImage], token: str) -> str:
        """Deregister the old images, register the new one under their name, and return its id."""
        images = self.ec2.images
        described = images.describe_many([baked.id])[baked.id]
        # Tag the new image as kept from the start: it uses the snapshots of the baked image, which is already kept.
        own = {k: v for k, v in tags.mapping(described.get("Tags")).items() if not k.startswith("imagepipe:")}
        own |= tags.of_bake(tags.mapping(described.get("Tags")))
        label = {**self.run_tags.product(token, ImageText(name, "", own)), tags.STATE: tags.KEPT}
        if own.get("Name") == baked.name:
            label["Name"] = name
        for image in old:
            ctx.say(f"deregistering {image.id}, which has the name '{name}'")
            images.deregister(image.id)
        new = tags.ImageRequest(name, described.get("Description", ""), token, label)
        return self._register_under(new, described, baked)

    def _register_under(self, new: tags.ImageRequest, described: Mapping[str, Any], baked: Image) -> str:
        """Register the new image again under its name. Raises CloudError with the temporary name of the new image."""
        try:
            return self.ec2.images.register_again(new, described)
        except CloudError as error:
            raise CloudError(
                f"{error}; the new image is kept as {baked.id} '{baked.name}' in {self.ec2.region}",
                code=error.code,
                hint=f"register it as '{new.name}' by hand, or build again",
            ) from error

    def _retire(self, ctx: Context, baked: Image, final: Image, details: Mapping[str, str]) -> None:
        """Delete what is left of the old images. Failures are only logged, because the new image is good."""
        _try(ctx, f"deregistering {baked.id}", lambda: self.ec2.images.deregister(baked.id))
        left = {snapshot for snapshot in details["left"].split(",") if snapshot}
        for snapshot in sorted(left - set(final.snapshots)):
            _try(ctx, f"deleting {snapshot}", lambda snapshot=snapshot: self.ec2.snapshots.delete(snapshot))  # type: ignore[misc]
        for bundle, image in json.loads(details.get("bundles", "{}")).items():
            if bundle != final.bundle:
                _try(ctx, f"deleting {bundle}", partial(self._delete_bundle, bundle, image))

    def _delete_bundle(self, location: str, image: str) -> None:
        """Delete the bundle of an old image.

        Raises CloudError, also if another image uses the bundle, and BundleError if its manifest is invalid.
        """
        from imagepipe.publish import stored_bundle  # loads the libraries of bundles

        bundle = stored_bundle.look_up(self.ec2.s3, location)
        if users := stored_bundle.users(self.ec2, bundle, but=image):
            raise CloudError(f"also used by {', '.join(users)}", code="InUse")
        stored_bundle.delete(self.ec2.s3, bundle)

    def title(self) -> str:
        return f"take over the name in {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{output.id} is '{output.name}'"


def _try(ctx: Context, operation: str, action: Callable[[], object]) -> None:
    try:
        action()
    except (CloudError, BundleError) as error:
        ctx.say(f"{operation}: left in place: {error}")
