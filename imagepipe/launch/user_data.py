"""What cloud-init is told at the first boot: our host key, merged with the user data of the spec.

cloud-init takes several parts as MIME multipart/mixed, and knows a part by its Content-Type (cloud-init's
documentation, "User data formats"). Of two cloud-configs with the same key the first one wins (its merge of
dictionaries does not replace), so ours comes first: a host key that the user's part changed could not be verified.
"""

from __future__ import annotations

import json
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.parser import Parser

from imagepipe.communicator.keys import KeyPair
from imagepipe.errors import UsageError
from imagepipe.spec.user_data import is_mime, kind_of, user_data_problem

MAX_BYTES = 16384
"""EC2's limit for user data before it is encoded (EC2 user guide, "Run commands when you launch an instance")."""


def host_key_config(key: KeyPair) -> bytes:
    """cloud-config that makes this the machine's only host key. JSON is YAML, and needs no indentation."""
    config = {
        "ssh_deletekeys": True,
        "ssh_genkeytypes": [],
        "ssh_keys": {"ed25519_private": key.private, "ed25519_public": key.public},
    }
    return b"#cloud-config\n" + json.dumps(config).encode("ascii") + b"\n"


def user_data(key: KeyPair | None, own: str | None) -> bytes:
    """The user data of an instance. Raises UsageError where both together are too long, or cloud-init knows no part."""
    if key is None:
        return (own or "").encode()
    ours = host_key_config(key)
    merged = _merged(ours, own) if own else ours
    if len(merged) > MAX_BYTES:
        raise UsageError(
            f"launch.user_data with our host key has {len(merged)} bytes, and EC2 takes {MAX_BYTES}",
            hint="make it shorter (#include a URL), or set launch.ssh.host_key: console",
        )
    return merged


def _merged(ours: bytes, own: str) -> bytes:
    whole = MIMEMultipart("mixed", boundary="==imagepipe==")
    whole.attach(_part("cloud-config", ours.decode("ascii"), "imagepipe.cfg"))
    text = own.lstrip()
    if is_mime(text):
        inner = Parser().parsestr(text)
        for part in inner.get_payload() if inner.is_multipart() else [inner]:
            assert isinstance(part, Message)
            whole.attach(part)
    else:
        kind = kind_of(text)
        if kind is None:
            raise UsageError(f"launch.user_data: {user_data_problem(own)}", hint="or set launch.ssh.host_key: console")
        whole.attach(_part(kind, text, "user-data"))
    return whole.as_bytes()


def _part(kind: str, text: str, name: str) -> MIMEBase:
    part = MIMEBase("text", kind, charset="utf-8")
    part.set_payload(text.encode("utf-8"))
    part["Content-Transfer-Encoding"] = "8bit"
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part
