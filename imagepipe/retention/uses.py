"""Find out what uses the images of bakes. A check that fails is never read as "not used"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from imagepipe.clock import Clock, Deadline
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.cloud.errors import DENIED
from imagepipe.cloud.references import Cancel, Reference
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


def uses_now(regions: Regions, bake: Bake, cancel: Cancel, clock: Clock) -> list[str]:
    """Check again right before a step, also with other accounts; return what uses the images of a bake, as text.

    Raises CloudError if a check fails.
    """
    found: list[str] = []
    layers: list[BakedImage] = []
    for region in bake.regions:
        ec2 = regions[region]
        own = [image for image in bake.images if image.region == region]
        ids = [image.id for image in own]
        for references in ec2.references.of_this_account(ids).values():
            found += [f"{each.describe()} in {region}" for each in references]
        layers += [baked_image(each, region) for each in ec2.lifecycle.built_on([image.id for image in bake.images])]
        for image in own:
            found += _of_other_accounts(ec2, image, cancel, clock)
    return list(dict.fromkeys([*found, *describe_layers(layers_among(layers, bake))]))


def _of_other_accounts(ec2: Ec2, image: BakedImage, cancel: Cancel, clock: Clock) -> list[str]:
    """Return the uses of a shared image by other accounts, as text; nothing if it is not shared."""
    if not ec2.images.permissions(image.id):
        return []
    deadline = Deadline.after(REPORT_SECONDS, clock)
    found = ec2.references.of_other_accounts(image.id, deadline=deadline, cancel=cancel)
    return [f"{each.describe()} in {ec2.region}" for each in found]
