"""List this account's images in all regions, with a few calls for each, and remember the regions that do not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from typing import TypeVar

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError
from imagepipe.retention.bakes import Bake, BakedImage, baked_image, bakes_of

T = TypeVar("T")

REGIONS_AT_ONCE = 20

SourceOf = Callable[[str, str], str]
"""Returns the source image of a bake, given its run and the key of its spec; empty if it is not known here."""


def in_regions(regions: Iterable[str], call: Callable[[str], T]) -> tuple[dict[str, T], dict[str, CloudError]]:
    """Call a function for all regions at once; return the results, and the errors of regions that failed."""
    names = list(dict.fromkeys(regions))

    def attempt(region: str) -> T | CloudError:
        try:
            return call(region)
        except CloudError as error:
            return error

    with ThreadPoolExecutor(REGIONS_AT_ONCE) as pool:
        answers = dict(zip(names, pool.map(attempt, names), strict=True))
    found = {region: answer for region, answer in answers.items() if not isinstance(answer, CloudError)}
    return found, {region: answer for region, answer in answers.items() if isinstance(answer, CloudError)}


@dataclass(frozen=True, slots=True)
class Survey:
    """The images of the account."""

    images: tuple[BakedImage, ...]
    """All images of the account in the regions that answered, those of others tools included."""
    failed: Mapping[str, CloudError] = field(default_factory=dict)
    """Regions that did not answer, with the reason."""
    built_on: Mapping[str, tuple[BakedImage, ...]] = field(default_factory=dict)
    """Images that were built on an image, or copied from it, by its id."""

    def bakes(self, specs: Iterable[str] | None = None) -> list[Bake]:
        """Return the bakes of these specs, or of all, newest first."""
        wanted = None if specs is None else set(specs)
        return bakes_of(image for image in self.images if wanted is None or image.spec in wanted)

    def layers_of(self, bake: Bake) -> list[BakedImage]:
        """Return the images that are built on an image of a bake, without the copies of the bake itself."""
        return layers_among([each for image in bake.images for each in self.built_on.get(image.id, ())], bake)


def layers_among(images: Iterable[BakedImage], bake: Bake) -> list[BakedImage]:
    """Return those of these images that do not belong to the bake themselves."""
    own = {(image.id, image.region) for image in bake.images}
    return list({(image.id, image.region): image for image in images if (image.id, image.region) not in own}.values())


def survey(regions: Regions, names: Sequence[str], source_of: SourceOf = lambda run, key: "") -> Survey:
    """List the images of the account in these regions. Raises CloudError if no region answers."""
    described, failed = in_regions(names, lambda region: regions[region].lifecycle.own())
    if failed and not described:
        raise next(iter(failed.values()))
    images = tuple(baked_image(each, region) for region, rows in described.items() for each in rows)
    built_on: dict[str, list[BakedImage]] = {}
    for image in images:
        for base in {sources_of(image, source_of), image.source[0]} - {""}:
            built_on.setdefault(base, []).append(image)
    return Survey(images, failed, {base: tuple(layers) for base, layers in built_on.items()})


def sources_of(image: BakedImage, source_of: SourceOf) -> str:
    """Return the source image of an image: its tag, or for an image without one, the inputs that its run kept."""
    if known := image.tags.get(tags.SOURCE):
        return known
    if not image.tags.get(tags.FINGERPRINT):
        return ""
    return source_of(image.run, f"{image.spec}[{image.variant}]" if image.variant else image.spec)
