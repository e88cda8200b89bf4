"""Find out what uses the images of bakes. A check that fails is never read as "not used"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from imagepipe.clock import Clock, Deadline
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.cloud.errors import DENIED
from imagepipe.cloud.references import Cancel, Reference
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError
from imagepipe.retention.bakes import Bake, BakedImage, baked_image
from imagepipe.retention.survey import in_regions, layers_among

REPORT_SECONDS = 120.0
"""Time limit of a usage report."""


@dataclass(frozen=True, slots=True)
class Uses:
    """The resources of this account that use images."""

    references: Mapping[tuple[str, str], tuple[Reference, ...]] = field(default_factory=dict)
    """References by id and region of the image."""
    failed: Mapping[str, CloudError] = field(default_factory=dict)
    """Regions in which a check failed, with the reason."""

    def of(self, image: BakedImage) -> tuple[Reference, ...]:
        """Return the references to one image."""
        return self.references.get((image.id, image.region), ())

    def missing_permission(self) -> CloudError | None:
        """Return the error of a check that these credentials may not make, if there is one."""
        return next((error for error in self.failed.values() if is_denied(error)), None)


def is_denied(error: CloudError) -> bool:
    """Return whether an error is a missing permission."""
    return error.iam_action is not None or error.code in DENIED


def uses_of(regions: Regions, images: Iterable[BakedImage]) -> Uses:
    """Return what uses these images, region by region, with as few calls as there are pages."""
    by_region: dict[str, list[str]] = {}
    for image in images:
        by_region.setdefault(image.region, []).append(image.id)
    found, failed = in_regions(by_region, lambda region: regions[region].references.of_this_account(by_region[region]))
    references = {(id, region): tuple(rows) for region, answer in found.items() for id, rows in answer.items() if rows}
    return Uses(references, failed)


def describe_uses(bake: Bake, uses: Uses, layers: Sequence[BakedImage]) -> list[str]:
    """Return everything that uses the images of a bake, as text."""
    texts = [f"{each.describe()} in {image.region}" for image in bake.images for each in uses.of(image)]
    return list(dict.fromkeys([*texts, *describe_layers(layers)]))


def describe_layers(layers: Sequence[BakedImage]) -> list[str]:
    """Return the images that are built on another one, as text."""
    return [f"image {image.id} ({image.name}) in {image.region}, which is built on it" for image in layers]


@dataclass(frozen=True, slots=True)
class LatestUses:
    """The resources of this account that use images right before a step, and the images that are built on them."""

    uses: Uses
    layers: tuple[BakedImage, ...] = ()

    def of(self, bake: Bake) -> list[str]:
        """Return everything that uses the images of a bake, as text. Raises CloudError if a check failed."""
        for region in bake.regions:
            if (error := self.uses.failed.get(region)) is not None:
                raise error
        ids = {image.id for image in bake.images}
        layers = [each for each in self.layers if ids & {each.tags.get(tags.SOURCE), each.source[0]}]
        return describe_uses(bake, self.uses, layers_among(layers, bake))


def uses_now(regions: Regions, images: Sequence[BakedImage]) -> LatestUses:
    """Check again what uses these images, with as few calls as there are pages."""
    uses = uses_of(regions, images)
    ids = [image.id for image in images]
    names = (image.region for image in images)
    built, failed = in_regions(names, lambda region: regions[region].lifecycle.built_on(ids))
    layers = tuple(baked_image(each, region) for region, rows in built.items() for each in rows)
    return LatestUses(Uses(uses.references, {**failed, **uses.failed}), layers)


def uses_by_others(regions: Regions, bake: Bake, cancel: Cancel, clock: Clock) -> list[str]:
    """Return the uses of a bake's images by other accounts, as text. Raises CloudError if a check fails."""
    return [each for image in bake.images for each in _of_other_accounts(regions[image.region], image, cancel, clock)]


def _of_other_accounts(ec2: Ec2, image: BakedImage, cancel: Cancel, clock: Clock) -> list[str]:
    """Return the uses of a shared image by other accounts, as text; nothing if it is not shared."""
    if not ec2.images.permissions(image.id):
        return []
    deadline = Deadline.after(REPORT_SECONDS, clock)
    found = ec2.references.of_other_accounts(image.id, deadline=deadline, cancel=cancel)
    return [f"{each.describe()} in {ec2.region}" for each in found]
