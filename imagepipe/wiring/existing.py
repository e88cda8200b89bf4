"""The images of a spec that is not baked again, because nothing has changed since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between an image and its spec, in one region, and the stage that removes it."""

    region: str
    stage: str
    """Name of the stage, without the region: `share`."""
    lines: tuple[str, ...] = ()
    """The difference, for people."""


@dataclass(frozen=True, slots=True)
class Existing:
    """The images of a spec that is not baked."""

    images: Mapping[str, str]
    """Image id by region; the launch region is always among them."""
    changes: tuple[Change, ...] = ()
    """The differences of these images from the spec; a region without an image is not among them."""
    is_published: bool = False
    """True if another run has published the images: a region that it has not reached is no affair of this one."""

    def describe(self) -> str:
        """Return the images as text."""
        return ", ".join(f"{id} in {region}" for region, id in self.images.items())

    def missing(self, regions: Iterable[str]) -> list[str]:
        """Return those of these regions in which the image does not exist yet."""
        return [] if self.is_published else [region for region in regions if region not in self.images]

    def stages(self, region: str) -> frozenset[str]:
        """Return the names of the stages that change the image in a region."""
        return frozenset(change.stage for change in self.changes if change.region == region)

    def record(self) -> dict[str, Any]:
        """Return the value for the journal."""
        changes = [[change.region, change.stage, list(change.lines)] for change in self.changes]
        published = {"is_published": True} if self.is_published else {}
        return {"images": dict(self.images), "changes": changes, **published}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Existing:
        """Return the value that `record` made."""
        changes = tuple(Change(region, stage, tuple(lines)) for region, stage, lines in record["changes"])
        return cls(dict(record["images"]), changes, record.get("is_published", False))


@dataclass(frozen=True, slots=True)
class Settled:
    """The facts that are settled before a graph is assembled, by key of the spec."""

    existing: Mapping[str, Existing] = field(default_factory=dict)
    """Images of the specs that need no bake."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source images that a plan expects; another one fails the spec."""
