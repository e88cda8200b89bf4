"""User data for EC2: imagepipe's host key merged with the user data of the spec.

cloud-init accepts several parts as MIME multipart/mixed, and recognizes each by its Content-Type (cloud-init's
documentation, "User data formats"). If two cloud-configs set the same key, the first one wins (its merge of
dictionaries does not replace). So ours comes first: a host key that the user's part changed could not be verified.

cloud-init decodes a part that has 8-bit characters with Python's `raw-unicode-escape`, and then ignores a part that
is no longer UTF-8. So such parts are sent as base64 or quoted-printable, whichever is shorter.
"""

from __future__ import annotations

import base64
import gzip
import json
import quopri
from collections.abc import Sequence
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart

from imagepipe.communicator.keys import KeyPair
from imagepipe.errors import UsageError
from imagepipe.spec.user_data import NotApplied, Part, is_ignition, kind_of, read_parts

MAX_BYTES = 16384
"""EC2's limit for user data before it is encoded (EC2 user guide, "Run commands when you launch an instance")."""
MAX_LINE = 998
"""Largest number of characters in a line of a message (RFC 5322, 2.1.1)."""


def host_key_config(key: KeyPair) -> bytes:
    """Return the cloud-config that makes this the machine's only host key. It is JSON, which is valid YAML."""
    config = {
        "ssh_deletekeys": True,
        "ssh_genkeytypes": [],
        "ssh_keys": {"ed25519_private": key.private, "ed25519_public": key.public},
    }
    return b"#cloud-config\n" + json.dumps(config).encode("ascii") + b"\n"


def user_data(key: KeyPair | None, own: str | None) -> bytes:
    """Return the user data of an instance, compressed if it is too long for EC2 otherwise.

    Raises UsageError if it is still too long, or if cloud-init does not know its format.
    """
    ours = [Part("cloud-config", host_key_config(key), (_named("imagepipe.cfg"),))] if key else []
    if own and not ours and is_ignition(own):
        return own.encode()
    try:
        parts = [*ours, *(read_parts(own) if own else ())]
    except NotApplied as error:
        raise UsageError(f"launch.user_data: {error}") from error
    whole = _joined(parts)
    if len(whole) > MAX_BYTES:
        whole = gzip.compress(whole, mtime=0)
    if len(whole) > MAX_BYTES:
        raise UsageError(
            f"launch.user_data{' with our host key' if ours else ''} has {len(whole)} bytes compressed; EC2's limit "
            f"is {MAX_BYTES}",
            hint="make it shorter: #include a URL, or upload files in provisioning steps",
        )
    return whole


def _joined(parts: Sequence[Part]) -> bytes:
    # cloud-init treats a body as a MIME message if it has this anywhere near its beginning.
    if not parts or (len(parts) == 1 and not _is_of_mime(parts[0]) and b"mime-version:" not in parts[0].body.lower()):
        return parts[0].body if parts else b""
    boundary = "==imagepipe=="
    while any(f"--{boundary}".encode() in part.body for part in parts):
        boundary += "="
    whole = MIMEMultipart("mixed", boundary=boundary)
    for part in parts:
        whole.attach(_mime(part))
    return whole.as_bytes()


def _is_of_mime(part: Part) -> bool:
    """Return whether the part has information outside its body."""
    return kind_of(part.body) != part.kind or any(name.lower() != "content-disposition" for name, _ in part.headers)


def _mime(part: Part) -> MIMEBase:
    entity = MIMEBase("text", part.kind, charset="utf-8")
    encoding, text = _encoded(part.body)
    entity.set_payload(text)
    entity["Content-Transfer-Encoding"] = encoding
    for name, value in part.headers or (_named("user-data"),):
        entity[name] = value
    return entity


def _encoded(body: bytes) -> tuple[str, str]:
    if body.isascii() and b"\r" not in body and b"\0" not in body and max(map(len, body.split(b"\n"))) < MAX_LINE:
        return "7bit", body.decode("ascii")
    quoted, based = quopri.encodestring(body), base64.encodebytes(body)
    needs_base64 = b"\r" in body  # quopri does not encode it, and a message parser turns it into a line feed
    name, shorter = ("base64", based) if needs_base64 or len(based) <= len(quoted) else ("quoted-printable", quoted)
    return name, shorter.decode("ascii")


def _named(name: str) -> tuple[str, str]:
    return ("Content-Disposition", f'attachment; filename="{name}"')
