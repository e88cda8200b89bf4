"""Launch permissions: who else may launch the image, in every region, once every copy is there."""

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
    """That no region blocks public images, before anything is launched for one."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """By region."""

    def run(self, ctx: Context) -> None:
        for region, ec2 in self.ec2.items():
            ctx.cancel.check()
            if (state := ec2.images.block_public_access()) != "unblocked":
                raise CloudError(
                    f"publish.share.public: this account does not share images publicly in {region}: block public"
                    f" access is {state}",
                    code="OperationNotPermitted",
                    hint="an administrator can lift it: `aws ec2 disable-image-block-public-access`;"
                    " or share with accounts",
                )

    def title(self) -> str:
        return "see that public images are allowed"


@dataclass(frozen=True)
class ShareImage(Stage[Image]):
    """The image, launchable by others. Accounts may also copy it: they are let at its snapshots."""

    ec2: Ec2 = field(repr=False, compare=False)
    image: Ref[Image]
    audience: Audience
    after: tuple[Ref[Any], ...]
    """Nothing is shared before every region has its copy."""

    def run(self, ctx: Context) -> Image:
        image = ctx[self.image]
        self.ec2.images.share(image.id, image.snapshots, self.audience)
        return image

    def title(self) -> str:
        return f"share the image in {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{output.id} with {self.audience.describe()}"
