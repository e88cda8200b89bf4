"""The tags that every resource gets in its create call, so that it can be found even if its id never arrived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from imagepipe.values import ImageText

RUN = "imagepipe:run"
TOKEN = "imagepipe:token"  # noqa: S105 - a tag's key
SPEC = "imagepipe:spec"
STATE = "imagepipe:state"
STARTED = "imagepipe:started"
"""Start time of the run, as in `build.timestamp`: YYYYMMDDTHHMMSSZ."""
EXPIRES = "imagepipe:expires"
"""Expiry time of a resource, renewed by a living process or set by `--keep-on-failure`."""

TEMPORARY = "temporary"
UNFINISHED = "unfinished"
"""State of a product of a run that has not succeeded yet."""
KEPT = "kept"
"""State of a product of a successful run: `clean` never deletes it."""


@dataclass(frozen=True, slots=True)
class RunTags:
    """The tags that a run puts on the resources that it creates."""

    run: str
    spec: str
    started: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def temporary(self, token: str, name: str) -> dict[str, str]:
        """Return the tags of a temporary resource."""
        return {**self.extra, "Name": name, **self._own(token, TEMPORARY)}

    def product(self, token: str, text: ImageText) -> dict[str, str]:
        """Return the tags of an image or of its snapshots; a Name tag in the spec replaces the image's name."""
        return {"Name": text.name, **text.tags, **self._own(token, UNFINISHED)}

    def _own(self, token: str, state: str) -> dict[str, str]:
        own = {RUN: self.run, SPEC: self.spec, TOKEN: token, STATE: state}
        return {**own, STARTED: self.started} if self.started else own


@dataclass(frozen=True, slots=True)
class ProductTags:
    """The tags of an image and of its snapshots, which one call creates."""

    image: Mapping[str, str]
    snapshots: Mapping[str, str]

    def specifications(self) -> list[dict[str, Any]]:
        """Return both as TagSpecifications."""
        return [specification("image", self.image), specification("snapshot", self.snapshots)]


def specification(kind: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """Return one entry of TagSpecifications."""
    return {"ResourceType": kind, "Tags": pairs(tags)}


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as a list of Key and Value, for EC2."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def mapping(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """Return EC2's list of tags as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in tags or ()}


def by_token(token: str) -> dict[str, Any]:
    """Return the filter for resources with a token."""
    return {"Name": f"tag:{TOKEN}", "Values": [token]}
