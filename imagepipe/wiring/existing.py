"""The images of a spec that is not baked again, because nothing has changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Existing:
    """The images of a spec that is not baked."""

    images: Mapping[str, str]
    """Image id by region; the launch region is always among them."""
    unshared: tuple[str, ...] = ()
    """Regions whose image lacks a launch permission of the spec."""

    def describe(self) -> str:
        """Return the images as text."""
        return ", ".join(f"{id} in {region}" for region, id in self.images.items())

    def record(self) -> dict[str, Any]:
        """Return the value for the journal."""
        return {"images": dict(self.images), "unshared": list(self.unshared)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Existing:
        """Return the value that `record` made."""
        return cls(dict(record["images"]), tuple(record["unshared"]))


@dataclass(frozen=True, slots=True)
class Settled:
    """The facts that are settled before a graph is assembled, by key of the spec."""

    existing: Mapping[str, Existing] = field(default_factory=dict)
    """Images of the specs that need no bake."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source images that a plan expects; another one fails the spec."""
