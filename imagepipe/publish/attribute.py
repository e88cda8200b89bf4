"""An attribute of an image that its spec asks for, in one region: a stage that sets it and knows if it is set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from imagepipe.cloud.ec2 import Ec2
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.values import Image


@dataclass(frozen=True)
class ImageAttribute(Stage[Image]):
    """Set one attribute of an image, and pass the image on. To set it twice is to set it once."""

    ec2: Ec2 = field(repr=False, compare=False)
    image: Ref[Image]
    after: tuple[Ref[Any], ...] = field(default=(), kw_only=True)
    """Further stages that must succeed first."""

    @abstractmethod
    def differences(self, image: Mapping[str, Any]) -> list[str]:
        """Return the changes that `apply` would make, for people; none if the image is as the spec wants it.

        `image` is its description by DescribeImages. Reads from the cloud, and changes nothing.
        """

    @abstractmethod
    def apply(self, ctx: Context, image: Image) -> None:
        """Make the changes. Raises CloudError."""

    def run(self, ctx: Context) -> Image:
        image = ctx[self.image]
        self.apply(ctx, image)
        return image
