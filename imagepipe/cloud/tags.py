"""The tags that every resource gets in its create call, so that it can be found even if its id never arrived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.values import ImageText

RUN = "imagepipe:run"
TOKEN = "imagepipe:token"  # noqa: S105 - a tag's key
SPEC = "imagepipe:spec"
VARIANT = "imagepipe:variant"
"""Variant of the spec, `release=bookworm,size=s`; only on resources of a spec with a matrix."""
FINGERPRINT = "imagepipe:fingerprint"
"""Digest of an image's inputs, on images and their snapshots."""
SOURCE = "imagepipe:source"
"""Id of the source image in the launch region, on images and their snapshots: RegisterImage does not record it."""
COMMIT = "imagepipe:commit"
"""Git commit of the spec, on images and their snapshots; absent outside a repository."""
INHERITED = (FINGERPRINT, SOURCE, COMMIT)
"""Tags that describe the bake. Later copies and renamed images keep them."""
DISABLED = "imagepipe:disabled"
"""Time at which retention disabled the image, because EC2 does not tell it."""
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
    variant: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def temporary(self, token: str, name: str) -> dict[str, str]:
        """Return the tags of a temporary resource."""
        return {**self.extra, "Name": name, **self._own(token, TEMPORARY)}

    def product(self, token: str, text: ImageText) -> dict[str, str]:
        """Return the tags of an image or of its snapshots; a Name tag in the spec replaces the image's name."""
        return {"Name": text.name, **text.tags, **self._own(token, UNFINISHED)}

    def image(self, token: str, text: ImageText, *, snapshots: str = "") -> ImageRequest:
        """Return the request for an image; `snapshots` is the token of the snapshots that the same call creates."""
        of_snapshots = self.product(snapshots, text) if snapshots else {}
        return ImageRequest(text.name, text.description, token, self.product(token, text), of_snapshots)

    def _own(self, token: str, state: str) -> dict[str, str]:
        own = {RUN: self.run, SPEC: self.spec, TOKEN: token, STATE: state}
        if self.started:
            own[STARTED] = self.started
        if self.variant:
            own[VARIANT] = self.variant
        return own


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """The texts and tags of an image to create, and the token that finds it if the answer is lost."""

    name: str
    description: str
    token: str
    tags: Mapping[str, str]
    snapshot_tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of the snapshots, if the same call creates them."""

    def texts(self) -> dict[str, str]:
        """Return the parameters Name and Description; EC2 refuses an empty description."""
        return {"Name": self.name, **({"Description": self.description} if self.description else {})}

    def tag_specifications(self) -> list[dict[str, Any]]:
        """Return the parameter TagSpecifications."""
        both = (("image", self.tags), ("snapshot", self.snapshot_tags))
        return [specification(kind, tags) for kind, tags in both if tags]


def specification(kind: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """Return one entry of TagSpecifications."""
    return {"ResourceType": kind, "Tags": pairs(tags)}


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as a list of Key and Value, for EC2."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def mapping(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """Return EC2's list of tags as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in tags or ()}


def of_bake(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that describe a bake, for another image with the same contents."""
    return {key: tags[key] for key in INHERITED if key in tags}


def by_token(token: str) -> dict[str, Any]:
    """Return the filter for resources with a token."""
    return {"Name": f"tag:{TOKEN}", "Values": [token]}
