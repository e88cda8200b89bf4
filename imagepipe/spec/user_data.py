"""Parts of user data, split as cloud-init does it (its documentation, "User data formats"), and their problems.

cloud-init ignores parts that it does not understand, so each of those is reported here, before a launch.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from imagepipe.dataclass import dataclass

if TYPE_CHECKING:
    from email.message import Message

BEGINNINGS = {
    "#!": "x-shellscript",
    "#cloud-config-archive": "cloud-config-archive",
    "#cloud-config-jsonp": "cloud-config-jsonp",
    "#cloud-config": "cloud-config",
    "#cloud-boothook": "cloud-boothook",
    "#include-once": "x-include-once-url",
    "#include": "x-include-url",
    "#part-handler": "part-handler",
    "## template: jinja": "jinja2",
}
"""Subtype of `text/` by the start of the first line; a longer start comes before any that is a prefix of it."""
BY_TYPE_ALONE = {"x-shellscript-per-boot", "x-shellscript-per-instance", "x-shellscript-per-once"}
"""Subtypes of `text/` that no first line selects; only a MIME type does."""
BY_CONTENT = {"text/plain", "text/x-not-multipart", "application/octet-stream"}
"""Types of MIME parts whose kind cloud-init takes from the first line."""
COMPRESSED = {
    *("application/gzip", "application/gzip-compressed", "application/gzipped", "application/x-compress"),
    *("application/x-compressed", "application/x-gunzip", "application/x-gzip", "application/x-gzip-compressed"),
}
HOST_KEYS = ("ssh_keys", "ssh_deletekeys", "ssh_genkeytypes")
"""Keys of a cloud-config that imagepipe sets to give the machine a host key. The user's part cannot set them too,
because cloud-init keeps the first of two values, which is ours."""
_FIRST_LINES = "cloud-init recognizes user data by its first line: #cloud-config, #!/bin/sh, #include, …"
_MIME = re.compile(rb"(?i)\A(content-type|mime-version):")
_GZIP = b"\x1f\x8b"
_MOST_BYTES = 1 << 20
"""Limit of decompressed data; no configuration is larger."""
_NOT_KEPT = ("content-type", "content-transfer-encoding", "mime-version", "content-length", "number-attachments")


class NotApplied(Exception):
    """A part of user data that cloud-init would not apply; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of user data."""

    kind: str
    """Subtype of `text/`."""
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    """Headers of a MIME part other than its type and encoding: `Merge-Type`, `Launch-Index`, its file name."""


def read_parts(text: str) -> tuple[Part, ...]:
    """Split user data: a text, a MIME message, or either in base64, or gzip in base64. Raises NotApplied."""
    content = _opened(text)
    if not _MIME.match(content):
        kind = kind_of(content)
        if kind is None:
            raise NotApplied(_FIRST_LINES)
        return (Part(kind, content),)
    from email.parser import BytesParser  # loads sixteen modules, and few specs have such user data

    parts = tuple(_parts_of(BytesParser().parsebytes(content)))
    if not parts:
        raise NotApplied("the MIME message has no parts")
    return parts


def user_data_problem(text: str, *, gives_host_key: bool) -> str | None:
    """Return the problem with user data that cloud-init would ignore, or that would break the build; otherwise None.

    `gives_host_key`: the build adds a cloud-config with a host key of its own.
    """
    if not gives_host_key and is_ignition(text):
        return None
    try:
        for part in read_parts(text):
            _check(part.kind, part.body, gives_host_key=gives_host_key)
    except NotApplied as error:
        return str(error)
    return None


def is_ignition(text: str) -> bool:
    """Return whether user data is for Ignition, which Fedora CoreOS and Flatcar use instead of cloud-init."""
    return text.lstrip().startswith("{") and '"ignition"' in text


def kind_of(content: bytes) -> str | None:
    """Return the subtype of a text by its first line; None if cloud-init does not recognize it."""
    start = content.lstrip()[:100].lower()
    return next((kind for word, kind in BEGINNINGS.items() if start.startswith(word.encode())), None)


def _opened(text: str) -> bytes:
    """Return user data without base64, gzip and leading blank lines."""
    content = text.lstrip().encode()
    if kind_of(content) is None and not _MIME.match(content):
        try:
            content = base64.b64decode(b"".join(content.split()), validate=True)
        except binascii.Error:
            raise NotApplied(_FIRST_LINES) from None
        content = _unzipped(content).lstrip()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise NotApplied(f"it is not UTF-8: byte 0x{content[error.start]:02x} after {error.start} bytes") from error
    return content


def _unzipped(content: bytes) -> bytes:
    if not content.startswith(_GZIP):
        return content
    try:
        opened = zlib.decompressobj(zlib.MAX_WBITS | 16)
        plain = opened.decompress(content, _MOST_BYTES)
    except zlib.error as error:
        raise NotApplied(f"it cannot be decompressed: {error}") from error
    if opened.unconsumed_tail or not opened.eof:
        raise NotApplied("its decompressed content is larger than 1 MiB, or cut off")
    return plain


def _parts_of(message: Message) -> Iterator[Part]:
    for part in message.walk():
        type = part.get_content_type()
        if part.is_multipart():
            continue
        if part.get_content_maintype() == "multipart":
            raise NotApplied(f"the MIME message is {type}, but none of its boundaries was found")
        body = part.get_payload(decode=True)
        assert isinstance(body, bytes)
        headers = tuple((name, str(value)) for name, value in part.items() if name.lower() not in _NOT_KEPT)
        yield _part(type, part.get_param("charset"), body, headers)


def _part(type: str, charset: object, body: bytes, headers: tuple[tuple[str, str], ...]) -> Part:
    if type in COMPRESSED:
        body = _unzipped(body)
    else:
        try:
            body = body.decode(charset if isinstance(charset, str) and charset != "us-ascii" else "utf-8").encode()
        except (LookupError, UnicodeDecodeError) as error:
            raise NotApplied(f"a part of type {type} cannot be decoded: {error}") from error
    kind: str | None = type.removeprefix("text/")
    if type in COMPRESSED | BY_CONTENT:
        kind = kind_of(body)
        if kind is None:
            raise NotApplied(f"a part of type {type}: {_FIRST_LINES}")
    elif not type.startswith("text/") or kind not in BY_TYPE_ALONE | set(BEGINNINGS.values()):
        raise NotApplied(f"a part of type {type}, which cloud-init does not support")
    assert kind is not None
    return Part(kind, body, headers)


def _check(kind: str, body: bytes, *, gives_host_key: bool) -> None:
    """Raise NotApplied if cloud-init would not apply a part, or if the part would end the build."""
    if kind == "cloud-config":
        config = _yaml(body, kind)
        if config is not None and not isinstance(config, Mapping):
            raise NotApplied("a cloud-config is a mapping")
        _check_keys(config or {}, gives_host_key=gives_host_key)
    elif kind == "cloud-config-archive":
        archive = _yaml(body, kind)
        if not isinstance(archive, list):
            raise NotApplied("a cloud-config-archive is a list")
        for entry in archive:
            _check_entry(entry, gives_host_key=gives_host_key)
    elif kind == "cloud-config-jsonp":
        _check_patch(body)
    elif kind == "jinja2" and kind_of(body.partition(b"\n")[2]) is None:
        raise NotApplied(f"below '## template: jinja': {_FIRST_LINES}")


def _check_keys(config: Mapping[Any, Any], *, gives_host_key: bool) -> None:
    if "power_state" in config:
        raise NotApplied(
            "power_state would stop or reboot the machine while it is built; a reboot is a step: reboot: {}"
        )
    if gives_host_key and (taken := [key for key in HOST_KEYS if key in config]):
        raise NotApplied(f"{', '.join(taken)}: the build gives the machine a host key of its own; see ssh.host_key")


def _check_entry(entry: object, *, gives_host_key: bool) -> None:
    content, type = (entry.get("content"), entry.get("type")) if isinstance(entry, Mapping) else (entry, None)
    if not isinstance(content, str):
        raise NotApplied("each entry of a cloud-config-archive is a text, or has content")
    part = _part(str(type or "text/plain"), None, content.encode(), ())
    _check(part.kind, part.body, gives_host_key=gives_host_key)


def _check_patch(body: bytes) -> None:
    try:
        patch = json.loads(body.decode().partition("\n")[2])
    except ValueError as error:
        raise NotApplied(f"a cloud-config-jsonp is not JSON below its first line: {error}") from error
    if "power_state" in json.dumps(patch):
        _check_keys({"power_state": None}, gives_host_key=False)


def _yaml(body: bytes, kind: str) -> object:
    try:
        return yaml.safe_load(body.decode())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1} of the {kind}" if mark else f"the {kind}"
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise NotApplied(f"{where} is not YAML: {why}") from error
