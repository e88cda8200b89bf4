"""The gate before publication: the new image boots as a second instance and passes its tests."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.values import Image, Reachable


@dataclass(frozen=True)
class UseImage(Stage[SourceImage]):
    """Look up the captured image, so that an instance can be launched from it."""

    ec2: Ec2 = field(repr=False, compare=False)
    image: Ref[Image]

    def run(self, ctx: Context) -> SourceImage:
        return self.ec2.images.by_id(ctx[self.image].id)

    def title(self) -> str:
        return "look up the new image"

    def summary(self, output: SourceImage) -> str:
        return output.id


@dataclass(frozen=True)
class PublishGate(Stage[Image]):
    """Pass the image on once its test instance has passed every test. Publishing stages take this output."""

    image: Ref[Image]
    machine: Ref[Reachable]
    tests: tuple[Ref[Reachable], ...]

    def run(self, ctx: Context) -> Image:
        return ctx[self.image]

    def must_exist(self) -> tuple[Ref[Any], ...]:
        return (self.image,)

    def title(self) -> str:
        return "the tests passed"

    def summary(self, output: Image) -> str:
        count = len(self.tests)
        return f"{output.id} boots, and passed {count} test{'' if count == 1 else 's'}"
