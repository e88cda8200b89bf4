"""Launch templates: a new version with the image, which differs from its source version in nothing else.

A version is created only when the image is kept, so no version names an image that a failed run deletes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.launch_templates import TemplateVersion
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Stage
from imagepipe.errors import CloudError
from imagepipe.publish.attribute import ImageAttribute
from imagepipe.values import Image


@dataclass(frozen=True, slots=True)
class TemplateTarget:
    """A launch template in one region, and the way to update it."""

    id: str | None
    name: str | None
    """Name; None if the id is given."""
    source_version: Literal["default", "latest"]
    sets_default: bool

    def __str__(self) -> str:
        return str(self.id or self.name)

    def request(self) -> dict[str, str]:
        """Return the parameter that names the template."""
        return {"LaunchTemplateId": self.id} if self.id else {"LaunchTemplateName": str(self.name)}

    def look_up(self, ec2: Ec2) -> tuple[TemplateVersion, TemplateVersion]:
        """Return the default and the latest version. Raises CloudError if there is no such template in the region."""
        try:
            return ec2.launch_templates.default_and_latest(self.request())
        except CloudError as error:
            if not error.code.startswith("InvalidLaunchTemplate"):
                raise
            raise CloudError(
                str(error),
                code=error.code,
                hint="imagepipe adds versions to templates that exist; set its `region` if it is not everywhere",
            ) from error


@dataclass(frozen=True)
class CheckTemplates(Stage[None]):
    """Check, before anything is launched, that the launch templates exist."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """EC2 by region, for every region that must succeed."""
    targets: Mapping[str, tuple[TemplateTarget, ...]]
    """Templates by region."""

    def run(self, ctx: Context) -> None:
        for region, targets in self.targets.items():
            for target in targets:
                ctx.cancel.check()
                target.look_up(self.ec2[region])

    def title(self) -> str:
        return "check the launch templates"


@dataclass(frozen=True)
class UpdateTemplate(ImageAttribute):
    """Create a version of a launch template with the image, and make it the default one if the spec says so."""

    target: TemplateTarget

    def differences(self, image: Mapping[str, Any]) -> list[str]:
        default, latest = self.target.look_up(self.ec2)
        used = default if self.target.sets_default else latest
        if used.image == image["ImageId"]:
            return []
        which = "default" if self.target.sets_default else "latest"
        return [f"~ launch template {self.target}: a new {which} version with {image['ImageId']}, not {used.image}"]

    def apply(self, ctx: Context, image: Image) -> None:
        ctx.cancel.check()
        default, latest = self.target.look_up(self.ec2)
        if (default if self.target.sets_default else latest).image == image.id:
            return
        source = default if self.target.source_version == "default" else latest
        version = source if source.image == image.id else self._version(ctx, source, image.id)
        if self.target.sets_default and version.number != default.number:
            self.ec2.launch_templates.set_default(version)

    def _version(self, ctx: Context, source: TemplateVersion, image: str) -> TemplateVersion:
        """Return the version that an earlier run made of the same source version, or else create it."""
        description = f"imagepipe: version {source.number} with {image}"
        for version in self.ec2.launch_templates.with_image(self.target.request(), image):
            if version.description == description:
                return version
        token = f"{ctx.run_id}-{source.template}-{source.number}-{image}"
        return self.ec2.launch_templates.create_version(source, image, description=description, token=token)

    def title(self) -> str:
        return f"update launch template {self.target} in {self.ec2.region}"
