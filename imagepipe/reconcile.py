"""Find an image of a spec in all regions, and everything about it that differs from the spec. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.errors import CloudError
from imagepipe.reuse import AT_ONCE, NO_IMAGE, differences, newest
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec
from imagepipe.wiring.attributes import additions, withdrawals
from imagepipe.wiring.existing import Existing

_Image = Mapping[str, Any]
"""The description of an image by DescribeImages."""


class Reconciler:
    """Compares images of specs with their specs."""

    def __init__(self, regions: Regions, region: Callable[[Spec], str]) -> None:
        self._regions, self._region = regions, region

    def compare(self, spec: LoadedSpec, image: str | None = None) -> Existing:
        """Return an image of a spec in all its regions, and the differences from the spec; by default the newest image.

        Raises CloudError if the spec has no such image in its launch region.
        """
        home = self._region(spec.checked())
        by_region = self._own_images(spec)
        chosen = newest(by_region[home]) if image is None else _with_id(by_region, image)
        at_home = chosen if chosen is None else _counterpart(chosen, by_region[home])
        if chosen is None or at_home is None:
            raise CloudError(
                f"looking for the image of {spec.key} to publish: {_missing(spec, image, home, chosen)}",
                code="InvalidAMIID.NotFound",
                hint="only images that a build of this spec has kept can be published; `imagepipe build` makes one",
            )
        images = {home: at_home}
        for region, candidates in by_region.items():
            if region != home and (found := _counterpart(at_home, candidates)) is not None:
                images[region] = found
        changes = differences(
            spec,
            self._regions,
            images,
            lambda ec2: [*withdrawals(spec, ec2, NO_IMAGE), *additions(spec, ec2, NO_IMAGE, home=home)],
        )
        return Existing({region: str(each["ImageId"]) for region, each in images.items()}, changes)

    def missing(self, spec: LoadedSpec, existing: Existing) -> list[str]:
        """Return the regions of a spec in which the image does not exist yet."""
        return existing.missing(self._everywhere(spec))

    def _everywhere(self, spec: LoadedSpec) -> list[str]:
        checked = spec.checked()
        return checked.publish.everywhere(self._region(checked))

    def _own_images(self, spec: LoadedSpec) -> dict[str, list[_Image]]:
        """Return the kept, available images of a spec by region. A region that may fail alone may have no answer."""
        regions = self._everywhere(spec)
        may_fail = spec.checked().publish.best_effort
        own = {tags.SPEC: spec.key.name, tags.VARIANT: spec.key.variant, tags.STATE: tags.KEPT}

        def of_region(region: str) -> list[_Image]:
            try:
                found = self._regions[region].images.own_of_specs([spec.key.name])
            except CloudError:
                if region not in may_fail:
                    raise
                return []
            return [image for image in found if image["State"] == "available" and _has(image, own)]

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(regions, pool.map(of_region, regions), strict=True))


def _has(image: _Image, wanted: Mapping[str, str]) -> bool:
    present = tags.mapping(image.get("Tags"))
    return all(present.get(key, "") == value for key, value in wanted.items())


def _with_id(by_region: Mapping[str, Sequence[_Image]], id: str) -> _Image | None:
    return next((image for images in by_region.values() for image in images if image["ImageId"] == id), None)


def _counterpart(image: _Image, candidates: Sequence[_Image]) -> _Image | None:
    """Return the same image in another region: itself, its copy, its origin, or one of the same run; or None."""
    return newest([each for each in candidates if _is_same(image, each)])


def _is_same(image: _Image, other: _Image) -> bool:
    one, two = (tags.mapping(each.get("Tags")) for each in (image, other))
    if other["ImageId"] == image["ImageId"]:
        return True
    if other.get("SourceImageId") == image["ImageId"] or image.get("SourceImageId") == other["ImageId"]:
        return True
    if tags.RUN in one and one[tags.RUN] == two.get(tags.RUN):
        return True
    mark = one.get(tags.FINGERPRINT)
    return mark is not None and mark == two.get(tags.FINGERPRINT) and image.get("Name") == other.get("Name")


def _missing(spec: LoadedSpec, image: str | None, home: str, chosen: _Image | None) -> str:
    if image is None:
        return f"there is none in {home}"
    if chosen is None:
        return f"{image} is not one of its images in the regions of the spec"
    return f"{image} has no counterpart in {home}, the launch region, from which it could be copied"
