"""Parse the subset of XML that manifests use: elements, attributes and text. Everything else is refused.

Entities cannot be declared, so none can be expanded or fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import NoReturn
from xml.parsers import expat

from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError

LARGEST_BYTES = 16 << 20
"""Largest manifest: ten times that of a terabyte of random data."""
DEEPEST = 16


@dataclass(slots=True)
class Element:
    """An element with its whole text."""

    tag: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> Iterator[Element]:
        return (child for child in self.children if child.tag == tag)

    def optional(self, tag: str) -> Element | None:
        """Return the only child with this tag, or None. Raises BundleError if there are several."""
        found = list(self.all(tag))
        if len(found) > 1:
            raise BundleError(f"the manifest has <{tag}> several times in <{self.tag}>")
        return found[0] if found else None

    def one(self, tag: str) -> Element:
        """Return the only child with this tag. Raises BundleError if it is missing."""
        found = self.optional(tag)
        if found is None:
            raise BundleError(f"the manifest has no <{tag}> in <{self.tag}>")
        return found


def parse_xml(document: bytes) -> Element:
    """Parse a document and return the root element. Raises BundleError."""
    if len(document) > LARGEST_BYTES:
        raise BundleError(f"the manifest is larger than {LARGEST_BYTES >> 20} MiB")
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = Element("", {})
    stack = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(stack) > DEEPEST:
            raise BundleError("the manifest's elements are nested too deeply")
        element = Element(tag, attributes)
        stack[-1].children.append(element)
        stack.append(element)

    def end(_: str) -> None:
        stack.pop()

    def text(content: str) -> None:
        stack[-1].text += content

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = lambda *_: _refuse("a DOCTYPE")
    parser.EntityDeclHandler = lambda *_: _refuse("an entity declaration")
    parser.CommentHandler = lambda *_: _refuse("a comment")
    parser.ProcessingInstructionHandler = lambda *_: _refuse("a processing instruction")
    parser.StartCdataSectionHandler = lambda *_: _refuse("a CDATA section")
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        raise BundleError(f"the manifest is not XML: {error}") from error
    return top.children[0]


def _refuse(part: str) -> NoReturn:
    raise BundleError(f"the manifest has {part}, which is not allowed in a bundle's manifest")
