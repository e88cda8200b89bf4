"""Find the source image, and check that the image's name is free everywhere before anything is created."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import assert_never

from imagepipe import render
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import ImageFilter, OwnImage, SourceImage, late_names
from imagepipe.cloud.tags import COMMIT, FINGERPRINT, RUN, SOURCE
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.late import Text
from imagepipe.launch.devices import DevicePlan, check_boot_mode
from imagepipe.names import IMAGE_ID
from imagepipe.spec.scalars import description_problem, image_name_problem, tag_problem
from imagepipe.values import Image, ImageText

MAX_NAME = 128


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest image that matches a filter, or the only one."""

    filter: ImageFilter
    only: bool
    """True if more than one matching image is an error."""


@dataclass(frozen=True, slots=True)
class BySsm:
    """The image whose id is the value of an SSM parameter."""

    parameter: str


@dataclass(frozen=True)
class CheckedSource(Stage[SourceImage]):
    """Find the image to launch from, and check that the spec's devices fit it."""

    ec2: Ec2 = field(repr=False, compare=False)
    devices: DevicePlan = field(default=DevicePlan(), repr=False, compare=False, kw_only=True)
    """The spec's block devices, which must fit the image's."""
    boot_mode: str | None = field(default=None, repr=False, compare=False, kw_only=True)
    """The boot mode of the new image; None for the source's."""
    needs_ebs: bool = field(default=True, kw_only=True)
    """True if the root must be on EBS, because it is captured as a snapshot; a bundle can be made of any root."""

    def check(self, source: SourceImage) -> SourceImage:
        """Return the image. Raises CloudError if the spec's devices, boot mode or tags do not fit it."""
        self.check_root(source)
        self.devices.check(source, self.ec2.snapshots.describe_many)
        check_boot_mode(source, self.boot_mode)
        self._check_device_tags(source)
        return source

    def check_root(self, source: SourceImage) -> None:
        """Raise CloudError if the image's root is not of the kind that the spec needs."""
        if self.needs_ebs and source.root_device_type != "ebs":
            raise CloudError(
                f"source image {source.id} has its root on instance store, which has no snapshots",
                hint="use an image whose root device type is ebs, or set output.type: instance-store",
            )

    def _check_device_tags(self, source: SourceImage) -> None:
        """Check the tags of single devices now: EC2 would find those of the image's devices after the bake."""
        values = late_names(source, self.ec2.region)
        for section, devices in (("launch", self.devices.launch), ("output", self.devices.output)):
            for device in devices:
                key = f"{section}.block_devices: the tags of {device.device}:"
                checked_tags(key, device.tags, values, self.ec2.region)

    def summary(self, output: SourceImage) -> str:
        return f"{output.id} {output.name}"


@dataclass(frozen=True)
class FindBase(CheckedSource):
    """Look up the image of the spec that this one is built on, as soon as it is tested and in the launch region."""

    image: Ref[Image]
    base: str = field(compare=False)
    """Key of the base."""

    def run(self, ctx: Context) -> SourceImage:
        return self.check(self.ec2.images.by_id(ctx[self.image].id))

    def title(self) -> str:
        return f"look up the image of {self.base}"


@dataclass(frozen=True)
class FindSource(CheckedSource):
    """Find the image to launch from."""

    wanted: str | BySsm | Newest
    """The image's id, or how to find it."""
    expected: str | None = field(default=None, compare=False)
    """Id of the image that a plan names; another one is an error."""

    def run(self, ctx: Context) -> SourceImage:
        found = self.find(ctx.say)
        if self.expected not in (None, found.id):
            raise CloudError(
                f"looking for the source image: the plan names {self.expected}, but now it is {found.id}",
                hint="make a new plan: imagepipe plan … --out FILE",
            )
        return self.check(found)

    def find(self, say: Callable[[str], None]) -> SourceImage:
        """Return the image. Raises CloudError if it does not exist or cannot be used as a source."""
        match self.wanted:
            case str():
                found = self.ec2.images.by_id(self.wanted)
            case BySsm():
                found = self._by_ssm(say, self.wanted.parameter)
            case Newest():
                found = self._newest(self.wanted)
            case _:
                assert_never(self.wanted)
        self.check_root(found)
        return found

    def _endpoint(self) -> str:
        """Return the option of the AWS CLI for an endpoint that is not AWS's."""
        return f" --endpoint-url {self.ec2.endpoint_url}" if self.ec2.endpoint_url else ""

    def _by_ssm(self, say: Callable[[str], None], name: str) -> SourceImage:
        value = self.ec2.parameters.value(name)
        where = f"SSM parameter {name} in {self.ec2.region}"
        if value is None:
            raise CloudError(
                f"looking for the source image: {where} does not exist",
                code="ParameterNotFound",
                hint="parameters are regional;"
                f" compare with `aws ssm get-parameter --region {self.ec2.region} --name {name}{self._endpoint()}`",
            )
        if not IMAGE_ID.fullmatch(value):
            raise CloudError(
                f"looking for the source image: {where} holds {value[:60]!r}, which is not an image id",
                code="InvalidAMIID.Malformed",
                hint="source.ami.ssm must name a parameter whose value is an image id (ami-…), not JSON or a path",
            )
        say(f"{where} is {value}")
        return self.ec2.images.by_id(value)

    def _newest(self, wanted: Newest) -> SourceImage:
        found = self.ec2.images.matching(wanted.filter)
        owners = " ".join(wanted.filter.owners)
        where = f"{wanted.filter.name} (owner {owners.replace(' ', ', ')}) in {self.ec2.region}"
        if not found:
            if deprecated := self.ec2.images.matching_even_deprecated(wanted.filter):
                raise CloudError(
                    f"looking for the source image: every available image named {where} is deprecated;"
                    f" the newest is {deprecated[0].id} {deprecated[0].name}",
                    code="InvalidAMIID.NotFound",
                    hint="use a newer name; to use this image anyway, name it by its id in source.ami",
                )
            raise CloudError(
                f"looking for the source image: no available image is named {where}",
                code="InvalidAMIID.NotFound",
                hint=f"compare with `aws ec2 describe-images --region {self.ec2.region} --owners {owners}"
                f" --query Images[].Name{self._endpoint()}`",
            )
        if wanted.only and len(found) > 1:
            listed = ", ".join(f"{image.id} {image.name}" for image in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise CloudError(
                f"looking for the source image: {len(found)} images are named {where}: {listed}{more}",
                hint="use a narrower name, or remove most_recent: false",
            )
        return found[0]

    def title(self) -> str:
        return "find the source image"


def image_names(name: Text, source: SourceImage, regions: Sequence[str]) -> dict[str, str]:
    """Render the image's name for each region. Raises CloudError for a name that EC2 would refuse."""
    names = {region: render.render_late(name, late_names(source, region)) for region in regions}
    for region, text in names.items():
        if problem := image_name_problem(text):
            raise CloudError(f"output.name is {text!r} in {region}: {problem}", code="InvalidAMIName.Malformed")
    return names


def image_description(text: Text, values: Mapping[str, object], region: str) -> str:
    """Render the image's description for one region. Raises CloudError for a text that EC2 would refuse."""
    description = render.render_late(text, values)
    if problem := description_problem(description):
        raise CloudError(f"output.description is {description!r} in {region}: {problem}", code="InvalidParameterValue")
    return description


def checked_tags(key: str, tags: Mapping[str, Text], values: Mapping[str, object], region: str) -> dict[str, str]:
    """Render tags for one region; `key` names them in errors. Raises CloudError for a tag that EC2 would refuse."""
    rendered = render.render_late_values(tags, values)
    for name, value in rendered.items():
        if problem := tag_problem(name, value):
            raise CloudError(f"{key}.{name} is {value!r} in {region}: {problem}", code="InvalidParameterValue")
    return rendered


@dataclass(frozen=True)
class NameImages(Stage[Mapping[str, ImageText]]):
    """Render the image's name, description and tags for each region: they may name the source image and the region.

    Output: the texts by region.
    """

    regions: tuple[str, ...]
    source: Ref[SourceImage]
    name: Text
    description: Text
    tags: Mapping[str, Text]
    fingerprint: Ref[str] | None = None
    commit: str = field(default="", repr=False, compare=False)
    """Git commit of the spec; empty outside a repository."""

    def run(self, ctx: Context) -> Mapping[str, ImageText]:
        source = ctx[self.source]
        names = image_names(self.name, source, self.regions)
        fingerprint = ctx[self.fingerprint] if self.fingerprint else ""
        own = {SOURCE: source.id}
        own |= {FINGERPRINT: fingerprint} if fingerprint else {}
        own |= {COMMIT: self.commit} if self.commit else {}
        return {region: self._text(names[region], late_names(source, region), region, own) for region in self.regions}

    def _text(self, name: str, values: Mapping[str, object], region: str, own: Mapping[str, str]) -> ImageText:
        tags = checked_tags("output.tags", self.tags, values, region)
        return ImageText(name, image_description(self.description, values, region), {**tags, **own})

    def title(self) -> str:
        return "name the image"

    def summary(self, output: Mapping[str, ImageText]) -> str:
        return ", ".join(_distinct_names(output))


@dataclass(frozen=True)
class CheckNames(Stage[Mapping[str, ImageText]]):
    """Check that the image's name is free in every region.

    Output: the texts by region. A name that the new image will take over later is replaced by a temporary one.
    """

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """EC2 by region, for every region that gets the image."""
    wanted: Ref[Mapping[str, ImageText]]
    replaces: bool = False
    """True to bake under a temporary name if the name is taken; the new image takes the name over at the end."""
    best_effort: frozenset[str] = field(default=frozenset(), compare=False)
    """Regions that may fail alone: there, the copy itself reports a name that is taken."""

    def run(self, ctx: Context) -> Mapping[str, ImageText]:
        texts = dict(ctx[self.wanted])
        for region in list(texts):
            ctx.cancel.check()
            try:
                texts[region] = self._checked(ctx, region, texts[region])
            except CloudError as error:
                if region not in self.best_effort:
                    raise
                ctx.say(f"{region} may fail alone: {error}")
        return texts

    def _checked(self, ctx: Context, region: str, text: ImageText) -> ImageText:
        """Return the text for a region. Raises CloudError if its name is taken and cannot be taken over."""
        name = text.name
        named = self.ec2[region].images.own_named(name)
        # An image of this run was made just before the process died: the capture finds it again.
        taken = [image for image in named if image.tags.get(RUN) != ctx.run_id]
        if taken and not self.replaces:
            raise CloudError(
                f"name '{name}' is taken by {taken[0].id} in {region}",
                code="InvalidAMIName.Duplicate",
                hint="put {{ build.timestamp }} into output.name, or set output.on_name_taken: replace",
            )
        if not taken:
            return text
        self._check_replaceable(taken, region)
        temporary = f"{name[: MAX_NAME - len(ctx.run_id) - 1]}-{ctx.run_id}"
        ctx.say(f"'{name}' is {taken[0].id} in {region}, which will be replaced; baking as '{temporary}'")
        return replace(text, name=temporary)

    def _check_replaceable(self, taken: Sequence[OwnImage], region: str) -> None:
        """Raise CloudError now for an old image that could not be deregistered at the end."""
        for image in taken:
            if image.is_protected:
                raise CloudError(
                    f"{image.id} '{image.name}' in {region} cannot be replaced: it is protected against deregistration",
                    code="OperationNotPermitted",
                    hint=f"aws ec2 disable-image-deregistration-protection --region {region} --image-id {image.id}",
                )

    def title(self) -> str:
        return "check that the name is free"

    def summary(self, output: Mapping[str, ImageText]) -> str:
        names = _distinct_names(output)
        return ", ".join(names) + f" {'is' if len(names) == 1 else 'are'} free in {', '.join(output)}"


def _distinct_names(texts: Mapping[str, ImageText]) -> list[str]:
    return sorted({text.name for text in texts.values()})
