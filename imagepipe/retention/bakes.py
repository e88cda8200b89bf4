"""The images of bakes, as their tags and descriptions tell: the copies of one bake in all regions belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import Any

from imagepipe.clock import parse_iso
from imagepipe.cloud import tags
from imagepipe.cloud.images import bundle_of, snapshots_of
from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class BakedImage:
    """An image of a spec in one region."""

    id: str
    region: str
    name: str
    state: str
    """State in EC2: `available`, `disabled`, `pending`…"""
    created: datetime
    tags: Mapping[str, str]
    deprecated_at: datetime | None = None
    last_launched: datetime | None = None
    is_protected: bool = False
    """True if EC2 refuses to deregister the image."""
    is_public: bool = False
    source: tuple[str, str] = ("", "")
    """Id and region of the image that this one was copied or created from, as far as EC2 knows."""
    described: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """Description by EC2."""

    @property
    def spec(self) -> str:
        return self.tags.get(tags.SPEC, "")

    @property
    def variant(self) -> str:
        return self.tags.get(tags.VARIANT, "")

    @property
    def run(self) -> str:
        return self.tags.get(tags.RUN, "")

    @property
    def is_kept(self) -> bool:
        """True if the run of the image has succeeded."""
        return self.tags.get(tags.STATE) == tags.KEPT

    @property
    def snapshots(self) -> tuple[str, ...]:
        return snapshots_of(self.described)

    @property
    def bundle(self) -> str | None:
        return bundle_of(self.described)

    @property
    def disabled_at(self) -> datetime | None:
        """Time at which retention disabled the image; None if it did not."""
        return _time(self.tags.get(tags.DISABLED))

    def describe(self) -> str:
        """Return the image as text."""
        return f"{self.id} in {self.region}"

    def is_deprecated_at(self, now: datetime) -> bool:
        """Return whether the image is deprecated, or will be within minutes: EC2 takes no time in the past."""
        return self.deprecated_at is not None and self.deprecated_at <= now + timedelta(minutes=3)

    def state_at(self, now: datetime) -> str:
        """Return the state in words, with `deprecated` and `unfinished`, which are no states in EC2."""
        if self.state == "available" and not self.is_kept:
            return "unfinished"
        if self.state == "available" and self.is_deprecated_at(now):
            return "deprecated"
        return self.state


def baked_image(described: Mapping[str, Any], region: str) -> BakedImage:
    """Return the image of a description by EC2."""
    return BakedImage(
        id=str(described["ImageId"]),
        region=region,
        name=str(described.get("Name", "")),
        state=str(described.get("State", "")),
        created=_time(described.get("CreationDate")) or datetime.fromtimestamp(0, UTC),
        tags=tags.mapping(described.get("Tags")),
        deprecated_at=_time(described.get("DeprecationTime")),
        last_launched=_time(described.get("LastLaunchedTime")),
        is_protected=str(described.get("DeregistrationProtection") or "disabled") != "disabled",
        is_public=bool(described.get("Public")),
        source=(str(described.get("SourceImageId") or ""), str(described.get("SourceImageRegion") or "")),
        described=described,
    )


def _time(text: object) -> datetime | None:
    """Return a time; None for anything that is not one, because anybody can write a tag."""
    if not isinstance(text, str) or not text:
        return None
    try:
        found = parse_iso(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bake:
    """All images of one bake: the first one and its copies."""

    spec: str
    variant: str
    run: str
    images: tuple[BakedImage, ...]

    @property
    def key(self) -> str:
        """Key of the spec or variant: `web[release=bookworm]`."""
        return f"{self.spec}[{self.variant}]" if self.variant else self.spec

    @property
    def created(self) -> datetime:
        """Time of the youngest copy, because it may be new to its users."""
        return max(image.created for image in self.images)

    @property
    def name(self) -> str:
        """Name of the image, which is often the same in all regions."""
        return self.images[0].name

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(image.region for image in self.images))

    @property
    def is_usable(self) -> bool:
        """True if instances can be launched from some image of the bake."""
        return any(image.state == "available" and image.is_kept for image in self.images)


def bakes_of(images: Iterable[BakedImage]) -> list[Bake]:
    """Group images into bakes, newest first. Images without the tags of a spec and a run are left out.

    A copy that a later run made has that run's tag. It belongs to the image that it was copied from, if both have the
    same fingerprint.
    """
    groups: dict[tuple[str, str, str], list[BakedImage]] = {}
    ours = [image for image in images if image.spec and image.run]
    by_place = {(image.id, image.region): image for image in ours}
    for image in ours:
        first = _first_copy(image, by_place)
        groups.setdefault((first.spec, first.variant, first.run), []).append(image)
    found = [
        Bake(spec, variant, run, tuple(sorted(group, key=lambda image: (image.region, image.created, image.id))))
        for (spec, variant, run), group in groups.items()
    ]
    return sorted(found, key=lambda bake: (bake.created, bake.run), reverse=True)


def _first_copy(image: BakedImage, by_place: Mapping[tuple[str, str], BakedImage]) -> BakedImage:
    """Follow the copies of a bake back to its first image that still exists."""
    seen = {image.id}
    while (earlier := by_place.get(image.source)) is not None and earlier.id not in seen:
        mark = image.tags.get(tags.FINGERPRINT)
        if not mark or (earlier.spec, earlier.variant, earlier.tags.get(tags.FINGERPRINT)) != (
            image.spec,
            image.variant,
            mark,
        ):
            break
        seen.add(earlier.id)
        image = earlier
    return image
