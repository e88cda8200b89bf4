"""The two kinds of image behind one interface. `capture_for` is the only place that chooses between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, assert_never

from imagepipe.cloud.images import SourceImage
from imagepipe.engine.stage import Ref, Stage
from imagepipe.spec.models import EbsOutput, InstanceStoreOutput
from imagepipe.values import Image, ImageText, Reachable
from imagepipe.wiring.build import ImageBuild
from imagepipe.wiring.ebs import EbsCapture


class Capture(Protocol):
    """The way from a provisioned machine to an image, and from an image to its copies."""

    @property
    def checks(self) -> tuple[Ref[Any], ...]:
        """Stages that must succeed before anything is launched."""

    def image(self, machine: Ref[Reachable]) -> Ref[Image]:
        """Add the stages that scrub the machine and make an image of it."""

    def scan(self, image: Ref[Image], machine: Ref[Reachable]) -> Stage[Image] | None:
        """Return the stage that scans the captured disks; None if the machine itself is scanned instead."""

    def copy(self, image: Ref[Image], region: str) -> Stage[Image]:
        """Return the stage that copies the image to another region."""


def capture_for(build: ImageBuild, source: Ref[SourceImage], text: Ref[Mapping[str, ImageText]]) -> Capture:
    """Return the capture of the kind that `output.type` names; it may add checks to the graph."""
    match build.spec.output:
        case EbsOutput() as output:
            return EbsCapture(build, output, source, text)
        case InstanceStoreOutput() as output:
            from imagepipe.wiring.instance_store import BundleCapture  # loads the libraries of bundles

            return BundleCapture.reserve(build, output, source, text)
        case output:
            assert_never(output)
