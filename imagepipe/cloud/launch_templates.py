"""Launch templates of one region and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.cloud.errors import translating
from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """One version of a launch template."""

    template: str
    """Id of the template."""
    number: int
    image: str
    """Id of its image, or another text that EC2 resolves; empty if it has none."""
    description: str


class LaunchTemplates:
    """Launch templates of one region."""

    def __init__(self, client: Any, region: str) -> None:
        self._client = client
        self.region = region

    def default_and_latest(self, template: Mapping[str, str]) -> tuple[TemplateVersion, TemplateVersion]:
        """Return the default and the latest version, often the same. Raises CloudError if there is no such template.

        `template` has LaunchTemplateId or LaunchTemplateName.
        """
        with translating(f"looking up launch template {_shown(template)} in {self.region}"):
            found = self._client.describe_launch_template_versions(**template, Versions=["$Default", "$Latest"])
        versions = sorted(found["LaunchTemplateVersions"], key=lambda version: int(version["VersionNumber"]))
        default = next(version for version in versions if version["DefaultVersion"])
        return _version(default), _version(versions[-1])

    def with_image(self, template: Mapping[str, str], image: str) -> list[TemplateVersion]:
        """Return the versions of a template that have this image, the newest first."""
        with translating(f"looking for versions of launch template {_shown(template)} in {self.region}"):
            pages = self._client.get_paginator("describe_launch_template_versions").paginate(
                **template, Filters=[{"Name": "image-id", "Values": [image]}]
            )
            found = [_version(version) for page in pages for version in page["LaunchTemplateVersions"]]
        return sorted(found, key=lambda version: version.number, reverse=True)

    def create_version(self, source: TemplateVersion, image: str, *, description: str, token: str) -> TemplateVersion:
        """Create a version that differs from its source version only in the image. Idempotent by its client token."""
        with translating(f"creating a version of launch template {source.template} in {self.region}"):
            answer = self._client.create_launch_template_version(
                LaunchTemplateId=source.template,
                SourceVersion=str(source.number),
                VersionDescription=description,
                LaunchTemplateData={"ImageId": image},
                ClientToken=token,
            )
        return _version(answer["LaunchTemplateVersion"])

    def set_default(self, version: TemplateVersion) -> None:
        """Make a version the default one of its template."""
        with translating(f"making version {version.number} of {version.template} in {self.region} the default"):
            self._client.modify_launch_template(LaunchTemplateId=version.template, DefaultVersion=str(version.number))


def _shown(template: Mapping[str, str]) -> str:
    return ", ".join(template.values())


def _version(described: Mapping[str, Any]) -> TemplateVersion:
    return TemplateVersion(
        str(described["LaunchTemplateId"]),
        int(described["VersionNumber"]),
        str(described.get("LaunchTemplateData", {}).get("ImageId", "")),
        str(described.get("VersionDescription") or ""),
    )
