"""The tags that everything of ours carries from its create call, so that it is found though its id never came."""

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
"""When the run began, as `build.timestamp` has it: YYYYMMDDTHHMMSSZ."""
EXPIRES = "imagepipe:expires"
"""Until when somebody answers for it, on what lives longer than a while: a process that goes on, or who keeps it."""

TEMPORARY = "temporary"
UNFINISHED = "unfinished"
"""A product of a run that has not succeeded yet."""
KEPT = "kept"
"""A product of a run that succeeded: `clean` never takes it."""


@dataclass(frozen=True, slots=True)
class RunTags:
    """What a run writes on what it makes."""

    run: str
    spec: str
    started: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def temporary(self, token: str, name: str) -> dict[str, str]:
        """Tags of what is cleaned up in any case."""
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
    """One entry of TagSpecifications."""
    return {"ResourceType": kind, "Tags": pairs(tags)}


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def mapping(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """Tags as EC2 gives them."""
    return {tag["Key"]: tag["Value"] for tag in tags or ()}


def by_token(token: str) -> dict[str, Any]:
    """The filter that finds what carries a token."""
    return {"Name": f"tag:{TOKEN}", "Values": [token]}
