"""Use an image that an earlier run baked, instead of baking it again. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from imagepipe import render
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import bundle_of, snapshots_of
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.late import Text
from imagepipe.values import Image, ImageText


@dataclass(frozen=True)
class UseExisting(Stage[Image]):
    """Check that an image of an earlier run is still available."""

    ec2: Ec2 = field(repr=False, compare=False)
    image: str

    def run(self, ctx: Context) -> Image:
        found = self.ec2.images.describe(self.image)
        if found["State"] != "available":
            raise CloudError(
                f"reusing {self.image} in {self.ec2.region}: the image is {found['State']}",
                code="InvalidAMIID.Unavailable",
                hint="build with --force to bake a new one",
            )
        return Image(self.image, self.ec2.region, found.get("Name", ""), snapshots_of(found), bundle_of(found))

    def title(self) -> str:
        return f"use the image of an earlier run in {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{output.id} {output.name}: unchanged"


@dataclass(frozen=True)
class ExistingText(Stage[Mapping[str, ImageText]]):
    """Take the name, description and tags of an existing image for its copies.

    Output: the texts by region.
    """

    ec2: Ec2 = field(repr=False, compare=False)
    image: Ref[Image]
    regions: tuple[str, ...]
    tags: Mapping[str, Text] = field(default_factory=dict)
    """Tags of the spec that the image may not have yet; they may use the region."""
    after: tuple[Ref[Any], ...] = ()
    """Checks that must succeed before anything is copied."""

    def run(self, ctx: Context) -> Mapping[str, ImageText]:
        found = self.ec2.images.describe(ctx[self.image].id)
        every = tags.mapping(found.get("Tags"))
        own = {key: value for key, value in every.items() if not key.startswith("imagepipe:")}
        own |= tags.of_bake(every)
        name, description = str(found.get("Name", "")), str(found.get("Description", ""))
        return {
            region: ImageText(name, description, {**own, **render.render_late_values(self.tags, {"region": region})})
            for region in self.regions
        }

    def title(self) -> str:
        return "take over the name and the tags"
