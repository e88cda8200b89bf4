"""Launch permissions: let others launch the image in every region, once every copy exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import Audience
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.values import Image


@dataclass(frozen=True)
class CheckPublic(Stage[None]):
    """Check, before anything is launched, that no region blocks public images."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """EC2 by region."""

    def run(self, ctx: Context) -> None:
        for region, ec2 in self.ec2.items():
            ctx.cancel.check()
            if (state := ec2.images.block_public_access()) != "unblocked":
                raise CloudError(
                    f"publish.share.public: this account blocks public images in {region}: block public access"
                    f" is {state}",
                    code="OperationNotPermitted",
                    hint="an administrator can allow them: `aws ec2 disable-image-block-public-access`;"
                    " or share with single accounts",
                )

    def title(self) -> str:
        return "check that public images are allowed"


@dataclass(frozen=True)
class ShareImage(Stage[Image]):
    """Let others launch the image. Accounts also get access to its snapshots, so that they can copy it."""

    ec2: Ec2 = field(repr=False, compare=False)
    image: Ref[Image]
    audience: Audience
    after: tuple[Ref[Any], ...]
    """The images of all regions: nothing is shared before every copy exists."""

    def run(self, ctx: Context) -> Image:
        image = ctx[self.image]
        self.ec2.images.share(image.id, image.snapshots, self.audience)
        return image

    def title(self) -> str:
        return f"share the image in {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{output.id} with {self.audience.describe()}"
