"""Plan the work of cloud-init for a machine without it; the supervisor carries the plan out.

User data is taken apart as cloud-init does it (its documentation, "User data formats"): gzip, MIME multipart,
cloud-config, scripts. Of two cloud-configs that set a key the first one wins.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from email import message_from_bytes
from email.message import Message
from functools import cache
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.disks.base_image import CLOUD_CONFIG
from imagepipe.local.machines.driver import Seed

CONFIG, SCRIPT = "text/cloud-config", "text/x-shellscript"
STARTS = {"#cloud-config": CONFIG, "#!": SCRIPT}
DONE = frozenset(
    {"hostname", "fqdn", "users", "ssh_authorized_keys", "ssh_keys", "ssh_deletekeys", "ssh_genkeytypes"}
)  # fmt: skip
KINDS = ("ed25519",)
"""Host keys that are made where user data says nothing. cloud-init makes RSA and ECDSA too, in a second or two."""


@dataclass(frozen=True, slots=True)
class User:
    """A user who may log in."""

    name: str
    keys: tuple[str, ...]
    gecos: str = ""
    shell: str = "/bin/bash"
    groups: tuple[str, ...] = ()
    sudo: tuple[str, ...] = ()
    """Rules, as sudoers has them after the name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes of a boot to a machine's tree; after the first boot only the name is set."""

    instance_id: str
    hostname: str
    users: tuple[User, ...]
    host_keys: Mapping[str, str]
    """By cloud-init's name: `ed25519_private`."""
    host_key_kinds: tuple[str, ...]
    """Kinds of host keys to make if none is given."""
    deletes_host_keys: bool
    scripts: tuple[str, ...]
    not_done: tuple[str, ...]
    """Further requests of the user data, in words for the console."""


def plan(seed: Seed) -> Plan:
    """Make the plan for a seed."""
    configs, scripts, not_done = [], [], []
    for kind, text in _parts(seed.user_data):
        if kind == SCRIPT:
            scripts.append(text)
        elif kind != CONFIG:
            not_done.append(f"user data of type {kind}")
        elif (config := _config(text)) is None:
            not_done.append("a cloud-config that is no mapping")
        else:
            configs.append(config)
    merged: dict[str, Any] = {}
    for config in reversed(configs):
        merged |= config
    not_done += [f"{key} of the cloud-config" for key in merged if key not in DONE]
    name = str(merged.get("fqdn") or merged.get("hostname") or seed.hostname).partition(".")[0]
    return Plan(
        instance_id=seed.instance_id,
        hostname=name,
        users=tuple(_users(merged, seed.public_keys)),
        host_keys={str(key): str(text) for key, text in (merged.get("ssh_keys") or {}).items()},
        host_key_kinds=tuple(map(str, merged.get("ssh_genkeytypes", KINDS))),
        deletes_host_keys=bool(merged.get("ssh_deletekeys", True)),
        scripts=tuple(scripts),
        not_done=tuple(not_done),
    )


def _users(config: Mapping[str, Any], public_keys: tuple[str, ...]) -> Iterator[User]:
    """List the image's own user and those of the config; `users` without `default` leaves the former out."""
    own_keys = _unique(*public_keys, *map(str, config.get("ssh_authorized_keys") or ()))
    for entry in config.get("users") or ("default",):
        if entry == "default":
            yield _user(_default_user(), own_keys)
        elif isinstance(entry, Mapping) and entry.get("name"):
            yield _user(entry, _unique(*map(str, entry.get("ssh_authorized_keys") or ())))


def _user(entry: Mapping[str, Any], keys: tuple[str, ...]) -> User:
    groups, sudo = entry.get("groups") or (), entry.get("sudo") or ()
    return User(
        name=str(entry["name"]),
        keys=keys,
        gecos=str(entry.get("gecos", "")),
        shell=str(entry.get("shell", "/bin/bash")),
        groups=tuple(g.strip() for g in (groups.split(",") if isinstance(groups, str) else groups)),
        sudo=(sudo,) if isinstance(sudo, str) else tuple(sudo),
    )


@cache
def _default_user() -> Mapping[str, Any]:
    config = _config(CLOUD_CONFIG)
    assert config is not None
    found: Mapping[str, Any] = config["system_info"]["default_user"]
    return found


def _unique(*values: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value.strip() for value in values))


def _parts(data: bytes) -> Iterator[tuple[str, str]]:
    """Return kind and text of each part; nothing for data that is empty or cannot be read."""
    try:
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, zlib.error):
        return
    if not data.strip():
        return
    message = message_from_bytes(data)
    for part in message.walk() if message.is_multipart() else ():
        if not part.is_multipart():
            yield from _part(part)
    if not message.is_multipart():
        text = data.decode(errors="replace")
        yield _kind(text, "text/plain"), text


def _part(part: Message) -> Iterator[tuple[str, str]]:
    body = part.get_payload(decode=True)
    assert isinstance(body, bytes)
    if body.startswith(b"\x1f\x8b"):
        yield from _parts(body)
        return
    text = body.decode(errors="replace")
    yield _kind(text, part.get_content_type()), text


def _kind(text: str, said: str) -> str:
    """Return the kind by the first line if the type says only that it is text, as cloud-init does."""
    if said not in ("text/plain", "application/octet-stream"):
        return said
    return next((kind for start, kind in STARTS.items() if text.startswith(start)), said)


def _config(text: str) -> dict[str, Any] | None:
    body = text.partition("\n")[2] if text.startswith("#cloud-config") else text
    try:
        found = json.loads(body)  # as imagepipe writes it; YAML takes its time to load
    except ValueError:
        found = _yaml(body)
    return found if isinstance(found, dict) else None


def _yaml(text: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
