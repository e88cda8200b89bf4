"""The SSM parameter that names an image: written last in each region, and only if it belongs to the image's spec.

A parameter belongs to the spec, and the variant, that its tags name. A run writes it only when the image is kept, so it
never names an image that a failed run deletes. It is never written back: every earlier value is in its history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from imagepipe import render
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.parameters import IMAGE_TYPE, StoredParameter
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Stage
from imagepipe.errors import CloudError
from imagepipe.late import Text
from imagepipe.publish.attribute import ImageAttribute
from imagepipe.spec.scalars import parameter_name_problem
from imagepipe.values import Image

STORED_SECONDS = 120.0
"""Time for Systems Manager to check an image and store its id, after it has accepted the request."""
POLL_SECONDS = 0.5
CHANGED_MEANWHILE = "ParameterAlreadyExists"


@dataclass(frozen=True, slots=True)
class ImageParameter:
    """A parameter for the images of one spec."""

    name: Text
    """Name, which may use the region."""
    spec: str
    variant: str = ""

    def name_in(self, region: str) -> str:
        """Return the name in a region. Raises CloudError if no parameter with this name can be written."""
        name = render.render_late(self.name, {"region": region})
        if problem := parameter_name_problem(name):
            raise CloudError(
                f"the name of the SSM parameter is {name!r} in {region}: {problem}", code="ValidationException"
            )
        return name

    def tags(self) -> dict[str, str]:
        """Return the tags that say to which spec the parameter belongs."""
        return {tags.SPEC: self.spec, **({tags.VARIANT: self.variant} if self.variant else {})}

    def look_up(self, ec2: Ec2) -> StoredParameter | None:
        """Return the parameter in a region; None if it does not exist. Raises CloudError if it is not this spec's."""
        name = self.name_in(ec2.region)
        found = ec2.parameters.stored(name)
        if found is None:
            return None
        place = f"SSM parameter {name} in {ec2.region} exists"
        value = "a secret" if found.type == "SecureString" else repr(found.value[:60])
        described = f"{value}, type {found.type}, data type {found.data_type}, version {found.version}"
        if (found.type, found.data_type) != ("String", IMAGE_TYPE):
            raise CloudError(
                f"{place} and is not for images: {described}; its type must be String, its data type {IMAGE_TYPE}",
                code="ParameterOfAnotherType",
                hint="choose another name; or delete it, and the build creates it again:"
                f" aws ssm delete-parameter --region {ec2.region} --name {name}",
            )
        own = {key: found.tags.get(key, "") for key in (tags.SPEC, tags.VARIANT)}
        if own != {tags.SPEC: self.spec, tags.VARIANT: self.variant}:
            owner = _key(own[tags.SPEC], own[tags.VARIANT]) or "no spec"
            wanted = " ".join(f"'Key={key},Value=\"{text}\"'" for key, text in self.tags().items())
            raise CloudError(
                f"{place} and belongs to {owner}, not to {_key(self.spec, self.variant)}: {described}",
                code="ParameterOfAnotherSpec",
                hint="choose another name; or give it to this spec: aws ssm add-tags-to-resource --region"
                f" {ec2.region} --resource-type Parameter --resource-id {name} --tags {wanted}",
            )
        return found


def _key(spec: str, variant: str) -> str:
    return f"{spec}[{variant}]" if spec and variant else spec


@dataclass(frozen=True)
class CheckParameter(Stage[None]):
    """Check, before anything is launched, that the parameter is this spec's or does not exist yet."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """EC2 by region, for every region that must succeed."""
    parameter: ImageParameter

    def run(self, ctx: Context) -> None:
        for ec2 in self.ec2.values():
            ctx.cancel.check()
            self.parameter.look_up(ec2)

    def title(self) -> str:
        return "check the SSM parameter"


@dataclass(frozen=True)
class WriteParameter(ImageAttribute):
    """Store the image's id in the parameter, and wait until Systems Manager has checked and stored it."""

    parameter: ImageParameter

    def differences(self, image: Mapping[str, Any]) -> list[str]:
        found = self.parameter.look_up(self.ec2)
        name, id = self.parameter.name_in(self.ec2.region), image["ImageId"]
        if found is None:
            return [f"+ SSM parameter {name} is {id}"]
        return [] if found.value == id else [f"~ SSM parameter {name} is {id}, not {found.value}"]

    def apply(self, ctx: Context, image: Image) -> None:
        name = self.parameter.name_in(self.ec2.region)
        ctx.cancel.check()
        found = self.parameter.look_up(self.ec2)
        if found is None:
            try:
                self.ec2.parameters.create_image_parameter(name, image.id, self.parameter.tags())
            except CloudError as error:
                if error.code != CHANGED_MEANWHILE:
                    raise
                found = self.parameter.look_up(self.ec2)  # somebody else has created it since
        if found is not None and found.value != image.id:
            self.ec2.parameters.overwrite_image_parameter(name, image.id)
        self._await(ctx, name, image.id)

    def _await(self, ctx: Context, name: str, image: str) -> None:
        """Wait until the parameter has this value. Raises CloudError at the deadline."""
        deadline = ctx.deadline(STORED_SECONDS)
        while (value := self.ec2.parameters.value(name)) != image:
            if deadline.is_past():
                raise CloudError(
                    f"writing SSM parameter {name} in {self.ec2.region}: Systems Manager accepted {image}, but"
                    f" {deadline.seconds:g} s later the value is {value or 'still missing'}",
                    hint="it stores the id of an image only if the image is available to this account; or somebody else"
                    " has written another value since",
                )
            ctx.cancel.sleep(POLL_SECONDS)

    def title(self) -> str:
        return f"write the SSM parameter in {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{self.parameter.name_in(self.ec2.region)} is {output.id}"
