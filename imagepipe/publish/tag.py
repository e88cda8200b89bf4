"""Tags of an image that exists already, when its spec has got others since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe import render
from imagepipe.cloud import tags as tagging
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context
from imagepipe.late import Text
from imagepipe.publish.attribute import ImageAttribute
from imagepipe.values import Image


@dataclass(frozen=True)
class TagImage(ImageAttribute):
    """Set tags on the image and its snapshots. Other tags are kept: they may be somebody else's."""

    tags: Mapping[str, Text]
    """Tags that may use the region, but nothing that only a build knows."""

    def differences(self, image: Mapping[str, Any]) -> list[str]:
        present = tagging.mapping(image.get("Tags"))
        wanted = self._rendered()
        return [f"~ tag {key}={value}" for key, value in wanted.items() if present.get(key) != value]

    def apply(self, ctx: Context, image: Image) -> None:
        self.ec2.images.tag([image.id, *image.snapshots], self._rendered())

    def _rendered(self) -> dict[str, str]:
        return render.render_late_values(self.tags, {"region": self.ec2.region})

    def title(self) -> str:
        return f"tag the image in {self.ec2.region}"
