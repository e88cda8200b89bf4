"""The sorted list of everything that decided an image's content, and the fingerprint made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from imagepipe.errors import ImagepipeError

FORMAT = 1
"""Version of the fingerprint. A change in how images are made, or in this list, raises it, and every image is stale."""
DIGITS = 32
FOLDER = "inputs"
"""Folder of a run's documents with the manifest of each spec."""


def document_of(key: str) -> str:
    """Return the name of the document with the inputs of a spec."""
    return f"{FOLDER}/{key}.json"


@dataclass(frozen=True, slots=True, order=True)
class Input:
    """One input of an image."""

    kind: str
    """`source`, `variable`, `step`, `file`, `launch`, `output` or `format`."""
    name: str
    """Name of the variable, path of the file, or place of the step: `provision.2`."""
    digest: str
    mode: str = ""
    """Permission bits of a file, in octal; or the target of a link."""
    value: str = ""
    """Short text for people: the value of a variable, the id of the source image, the title of a step."""


@dataclass(frozen=True, slots=True)
class InputManifest:
    """The inputs of an image, sorted."""

    inputs: tuple[Input, ...]

    @classmethod
    def of(cls, inputs: Iterable[Input]) -> InputManifest:
        """Sort the inputs, and add the version of the format."""
        return cls(tuple(sorted({*inputs, Input("format", "imagepipe", str(FORMAT), value=str(FORMAT))})))

    def with_source(self, image: str) -> InputManifest:
        """Return the manifest with the id of the source image, which is known last."""
        return InputManifest.of((*(each for each in self.inputs if each.kind != "source"), source_input(image)))

    @property
    def source(self) -> str:
        """The id of the source image; empty if it is not known yet."""
        return next((each.value for each in self.inputs if each.kind == "source"), "")

    def fingerprint(self) -> str:
        """Return the digest of all inputs. Texts for people do not count."""
        rows = [[each.kind, each.name, each.digest, each.mode] for each in self.inputs]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:DIGITS]

    def to_bytes(self) -> bytes:
        """Return the manifest as a document of its run."""
        rows = [asdict(each) for each in self.inputs]
        return (json.dumps({"fingerprint": self.fingerprint(), "inputs": rows}, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> InputManifest:
        """Read a manifest. Raises ImagepipeError, with the document's name, if it is damaged."""
        try:
            rows = json.loads(content.decode("utf-8"))["inputs"]
            return cls(tuple(sorted(_input(row) for row in rows)))
        except (ValueError, TypeError, KeyError) as error:
            raise ImagepipeError(f"{name} is not a list of inputs: {error}") from error


def source_input(image: str) -> Input:
    """Return the input that stands for the source image."""
    return Input("source", "image", image, value=image)


def digest_of(value: Any) -> str:
    """Return the digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:DIGITS]


def _input(row: Mapping[str, Any]) -> Input:
    return Input(**{item.name: str(row[item.name]) for item in fields(Input)})
