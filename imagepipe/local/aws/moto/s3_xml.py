"""Change the XML of moto's answers to S3 requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def parsed(body: bytes) -> Element:
    """Parse a request's body. Raises AwsError if it is not XML."""
    try:
        # A caller of this store's own, whose signature is good.
        return ElementTree.fromstring(body)  # noqa: S314
    except ElementTree.ParseError as error:
        raise AwsError("MalformedXML", f"The XML you provided was not well-formed: {error}") from error


def changed(answer: Answer, change: Callable[[Element], object]) -> Answer:
    """Return the answer with its XML changed by this function."""
    root = parsed(answer.body)
    change(root)
    return replace(answer, body=serialized(root))


def serialized(root: Element) -> bytes:
    """Serialize XML; elements without a namespace get S3's."""
    for each in root.iter():
        if not each.tag.startswith("{"):
            each.tag = f"{{{NAMESPACE}}}{each.tag}"
    namespace = _namespace(root)
    body: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True, default_namespace=namespace)
    return body


def put(parent: Element, values: Mapping[str, object]) -> None:
    """Set these children of an element, in place of those of the same name; None leaves one out."""
    for name, value in values.items():
        for old in parent.findall(f"{{*}}{name}"):
            parent.remove(old)
        if value is not None:
            child = Element(f"{{{_namespace(parent)}}}{name}")
            child.text = ("true" if value else "false") if isinstance(value, bool) else str(value)
            parent.append(child)


def text(element: Element, name: str) -> str:
    """Return the text of a child; empty without one."""
    return element.findtext(f"{{*}}{name}") or ""


def _namespace(element: Element) -> str:
    return element.tag[1:].partition("}")[0] if element.tag.startswith("{") else NAMESPACE
