"""Make, import, describe and delete key pairs."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, invalid, unsupported
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.protocol.times import whole_second
from imagepipe.local.aws.state.records import KeyPair

GETTERS: Mapping[str, Getter] = {
    "fingerprint": lambda row: row.fingerprint,
    "key-name": lambda row: row.name,
    "key-pair-id": lambda row: row.id,
}
MAX_NAME_LENGTH = 255


def create_key_pair(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Make a pair and return the private key, once."""
    name = _free_name(backend, call)
    if call.params.get("KeyFormat", "pem") != "pem":
        raise unsupported("The local cloud gives private keys as PEM only")
    kind = call.params.get("KeyType", "rsa")
    private: RSAPrivateKey | Ed25519PrivateKey
    if kind == "rsa":
        private = generate_private_key(public_exponent=65537, key_size=2048)
        material = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        # EC2's own way for the keys that it makes (EC2 user guide, "Verify the fingerprint of your key pair").
        fingerprint = _colons(hashlib.sha1(der, usedforsecurity=False).hexdigest())
    elif kind == "ed25519":
        private = Ed25519PrivateKey.generate()
        material = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        fingerprint = _fingerprint(private.public_key())
    else:
        raise invalid(f"Value ({kind}) for parameter keyType is invalid.")
    pair = _store(backend, call, name, str(kind), private.public_key(), fingerprint)
    return {**_summary(pair), "KeyMaterial": material.decode()}


def import_key_pair(backend: Backend, call: Call) -> Mapping[str, Any]:
    name = _free_name(backend, call)
    public = _public_key(call.params["PublicKeyMaterial"])
    kind = "rsa" if isinstance(public, RSAPublicKey) else "ed25519"
    return _summary(_store(backend, call, name, kind, public, _fingerprint(public)))


def _free_name(backend: Backend, call: Call) -> str:
    name = call.text("KeyName")
    if len(name) > MAX_NAME_LENGTH or not name.isascii():
        raise invalid(f"Value ({name}) for parameter keyName is invalid.")
    if any(pair.name == name for pair in backend.database.key_pairs.owned(call.account, call.region)):
        raise AwsError("InvalidKeyPair.Duplicate", f"The keypair '{name}' already exists.")
    return name


def _public_key(material: bytes) -> RSAPublicKey | Ed25519PublicKey:
    """Load a public key, an OpenSSH line or PEM, of the two kinds that EC2 knows."""
    try:
        key = load_ssh_public_key(material) if material.startswith(b"ssh-") else _pem(material)
    except (ValueError, UnsupportedAlgorithm, binascii.Error):
        key = None
    if isinstance(key, RSAPublicKey | Ed25519PublicKey):
        return key
    raise AwsError("InvalidKey.Format", "Key is not in valid OpenSSH public key format")


def _pem(material: bytes) -> Any:
    if not material.lstrip().startswith(b"-----"):
        material = b"-----BEGIN PUBLIC KEY-----\n" + material.strip() + b"\n-----END PUBLIC KEY-----\n"
    return load_pem_public_key(material)


def _store(
    backend: Backend, call: Call, name: str, kind: str, public: RSAPublicKey | Ed25519PublicKey, fingerprint: str
) -> KeyPair:
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    pair = KeyPair(
        id=new_id("key"),
        account=call.account,
        region=call.region,
        tags=tagging.parse_specifications(call.params, "key-pair")["key-pair"],
        name=name,
        type=kind,
        public_key=f"{line} {name}",
        fingerprint=fingerprint,
        created=whole_second(backend.clock.now()),
    )
    backend.database.put(pair)
    return pair


def _fingerprint(public: RSAPublicKey | Ed25519PublicKey) -> str:
    """Return the MD5 of the DER for an imported RSA key, OpenSSH's SHA-256 for ed25519."""
    if isinstance(public, RSAPublicKey):
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return _colons(hashlib.md5(der, usedforsecurity=False).hexdigest())
    blob = base64.b64decode(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    return base64.b64encode(hashlib.sha256(blob).digest()).decode()


def _colons(digest: str) -> str:
    return ":".join(digest[place : place + 2] for place in range(0, len(digest), 2))


def _summary(pair: KeyPair) -> dict[str, Any]:
    return {
        "KeyPairId": pair.id,
        "KeyName": pair.name,
        "KeyFingerprint": pair.fingerprint,
        "Tags": tagging.to_api(pair.tags),
    }


def describe_key_pairs(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = backend.database.key_pairs.owned(call.account, call.region)
    names, ids = call.params.get("KeyNames", []), call.params.get("KeyPairIds", [])
    for name in names:
        lookup.key_pair(backend, call, name)
    for identifier in ids:
        if not any(row.id == identifier for row in rows):
            raise AwsError("InvalidKeyPair.NotFound", f"The key pair ID '{identifier}' does not exist")
    if names or ids:
        rows = [row for row in rows if row.name in names or row.id in ids]
    shows_key = call.params.get("IncludePublicKey")
    getters = AnswerFilters("DescribeKeyPairs", _summary, GETTERS)
    return {
        "KeyPairs": [
            {
                **_summary(row),
                "KeyType": row.type,
                "CreateTime": row.created,
                "PublicKey": row.public_key if shows_key else None,
            }
            for row in filters.select(rows, call.filters(), getters)
        ]
    }


def delete_key_pair(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Delete a pair by name or id; a missing one is success, as on EC2."""
    name, identifier = call.params.get("KeyName"), call.params.get("KeyPairId")
    if not name and not identifier:
        raise AwsError("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
    for pair in backend.database.key_pairs.owned(call.account, call.region):
        if pair.name == name or pair.id == identifier:
            backend.database.remove(pair)
            return {"Return": True, "KeyPairId": pair.id}
    return {"Return": True}
