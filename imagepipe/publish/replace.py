"""`on_name_taken: replace`: the name passes from the old image to the new one, last of all.

A name is taken once in an account and region, and an image's name cannot be changed (EC2 API reference,
RegisterImage). So the new image is baked, tested, copied and kept under a name of its own, and only then, in each
region: the old image is deregistered, the new one's snapshots or bundle are registered under the name, and what is
left over goes. At no moment is there neither: whatever fails in between, the new image is there under the name it was
baked with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import Audience, OwnImage, bundle_of, snapshots_of
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.journal import Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import BundleError, CloudError
from imagepipe.publish import stored_bundle
from imagepipe.values import Image, ImageText

COPY_SECONDS = 12 * 3600


@dataclass(frozen=True)
class ReplaceImage(Stage[Image]):
    """The new image under the name that was taken; the old one retired with its snapshots."""

    ec2: Ec2 = field(repr=False, compare=False)
    run_tags: RunTags = field(repr=False, compare=False)
    images: Ref[tuple[Image, ...]]
    """Kept already: what becomes of the old image, these stay."""
    wanted: Ref[Mapping[str, ImageText]]
    """By region, with the name to take over."""
    audience: Audience

    def run(self, ctx: Context) -> Image:
        images = self.ec2.images
        baked = next(image for image in ctx[self.images] if image.region == self.ec2.region)
        name = ctx[self.wanted][self.ec2.region].name
        if baked.name == name:  # it was free here
            return baked
        described = images.describe_many([baked.id])[baked.id]
        # What an image leaves when it is deregistered is found by nobody who does not know of it.
        left = {s for one in images.own_named(name) for s in one.snapshots} | set(baked.snapshots)
        details = {"left": ",".join(sorted(left))}
        claim = ctx.intend("image", self.ec2.region, lifetime=Lifetime.PRODUCT, details=details)
        made = claim.id or ctx.found_again(claim, images.first_of_token)
        old = [one for one in images.own_named(name) if one.id != made]
        # Kept from its create call on: it is made of the snapshots of an image that is kept.
        own = {k: v for k, v in tags.mapping(described.get("Tags")).items() if not k.startswith("imagepipe:")}
        label = {**self.run_tags.product(claim.token, ImageText(name, "", own)), tags.STATE: tags.KEPT}
        if own.get("Name") == baked.name:
            label["Name"] = name
        for one in old:
            ctx.say(f"{one.id} gives up the name '{name}'")
            images.deregister(one.id)
        made = made or self._under(name, described, claim.token, label, baked)
        ctx.bind(claim, made)
        seen = self.ec2.await_image(made, deadline=ctx.deadline(COPY_SECONDS), cancel=ctx.cancel)
        final = Image(made, self.ec2.region, name, snapshots_of(seen), bundle=bundle_of(seen))
        if self.audience:
            images.share(made, final.snapshots, self.audience)
        ctx.journal.keep(claim)
        self._retire(ctx, baked, final, old, {one for one in claim.details["left"].split(",") if one})
        return final

    def _under(
        self, name: str, described: Mapping[str, Any], token: str, label: Mapping[str, str], baked: Image
    ) -> str:
        """The same image once more, under the name. Raises CloudError that says where the new image is."""
        try:
            return self.ec2.images.register_again(described, name, token=token, tags=label)
        except CloudError as error:
            raise CloudError(
                f"{error}; the new image is there as {baked.id} '{baked.name}' in {self.ec2.region}, kept",
                code=error.code,
                hint=f"register it under '{name}' by hand, or build again",
            ) from error

    def _retire(self, ctx: Context, baked: Image, final: Image, old: list[OwnImage], left: set[str]) -> None:
        """What could not be retired is said, and costs: the new image is good all the same."""
        _try(ctx, f"deregistering {baked.id}", lambda: self.ec2.images.deregister(baked.id))
        for snapshot in sorted(left - set(final.snapshots)):
            _try(ctx, f"deleting {snapshot}", lambda snapshot=snapshot: self.ec2.snapshots.delete(snapshot))  # type: ignore[misc]
        for one in old:
            if one.bundle and one.bundle != final.bundle:
                _try(ctx, f"deleting {one.bundle}", lambda one=one: self._delete_bundle(one.bundle, one.id))  # type: ignore[misc]

    def _delete_bundle(self, location: str, image: str) -> None:
        """What an old image was made of. Raises CloudError where another image is too, BundleError."""
        bundle = stored_bundle.look_up(self.ec2.s3, location)
        if users := stored_bundle.users(self.ec2, bundle, but=image):
            raise CloudError(f"{', '.join(users)} is made of it too", code="InUse")
        stored_bundle.delete(self.ec2.s3, bundle)

    def title(self) -> str:
        return f"take over the name in {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{output.id} is '{output.name}'"


@dataclass(frozen=True)
class CollectImages(Stage[tuple[Image, ...]]):
    """The images of the run under the names that the spec has."""

    images: tuple[Ref[Image], ...]

    def run(self, ctx: Context) -> tuple[Image, ...]:
        return tuple(ctx[ref] for ref in self.images)

    def title(self) -> str:
        return "the names are taken over"


def _try(ctx: Context, what: str, action: Callable[[], object]) -> None:
    try:
        action()
    except (CloudError, BundleError) as error:
        ctx.say(f"{what}: left, as {error}")
