"""Find the source image, and see that the image's name is free everywhere, before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from imagepipe import render
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import ImageFilter, SourceImage, late_names
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.values import Text


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest image that a filter finds, or the only one."""

    filter: ImageFilter
    only: bool
    """More than one match is an error."""


@dataclass(frozen=True)
class FindSource(Stage[SourceImage]):
    """The image to launch from."""

    ec2: Ec2 = field(repr=False, compare=False)
    wanted: str | Newest
    """An image's id, or how to find it."""

    def run(self, ctx: Context) -> SourceImage:
        match self.wanted:
            case str():
                found = self.ec2.images.by_id(self.wanted)
            case Newest():
                found = self._newest(self.wanted)
            case _:
                assert_never(self.wanted)
        if found.root_device_type != "ebs":
            raise CloudError(
                f"source image {found.id} has an instance store root; only EBS-backed images can be baked from yet",
                hint="take an image whose root device type is ebs",
            )
        return found

    def _newest(self, wanted: Newest) -> SourceImage:
        found = self.ec2.images.matching(wanted.filter)
        where = f"{wanted.filter.name} of {', '.join(wanted.filter.owners)} in {self.ec2.region}"
        if not found:
            raise CloudError(
                f"looking for the source image: no available image is named {where}",
                code="InvalidAMIID.NotFound",
                hint="compare with `aws ec2 describe-images --owners … --filters Name=name,Values=…`",
            )
        if wanted.only and len(found) > 1:
            listed = ", ".join(f"{image.id} {image.name}" for image in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise CloudError(
                f"looking for the source image: {len(found)} images are named {where}: {listed}{more}",
                hint="narrow the name, or leave out newest: false",
            )
        return found[0]

    def title(self) -> str:
        return "find the source image"

    def summary(self, output: SourceImage) -> str:
        return f"{output.id} {output.name}"


@dataclass(frozen=True)
class CheckNames(Stage[Mapping[str, str]]):
    """The image's name in each region, free in all of them. Its output: names by region."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """By region: every region that gets the image."""
    source: Ref[SourceImage]
    name: Text

    def run(self, ctx: Context) -> Mapping[str, str]:
        names = {region: render.finish(self.name, late_names(ctx[self.source], region)) for region in self.ec2}
        for region, name in names.items():
            ctx.cancel.check()
            if taken := self.ec2[region].images.own_named(name):
                raise CloudError(
                    f"name '{name}' is taken by {taken[0].id} in {region}",
                    code="InvalidAMIName.Duplicate",
                    hint="put {{ build.timestamp }} into output.name",
                )
        return names

    def title(self) -> str:
        return "see that the name is free"

    def summary(self, output: Mapping[str, str]) -> str:
        return ", ".join(sorted(set(output.values()))) + f" is free in {', '.join(output)}"
