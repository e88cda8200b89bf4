"""The encryption of a bundle: AES-128-CBC for its bytes, and RSA for the key, once for each recipient.

RSA PKCS#1 v1.5 encrypts the 32 hex digits of key and IV, not their 16 bytes.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterable, Iterator
from dataclasses import field

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError

BLOCK = 16
PIECE_BYTES = 256 << 10
"""Bytes that are decrypted at a time: with whole parts of 10 MiB, several copies would be in memory."""
DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Secret:
    """The key and IV of a bundle; never in a log, an argument or a journal."""

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Secret:
        return cls(secrets.token_bytes(BLOCK), secrets.token_bytes(BLOCK))


@dataclass(frozen=True, slots=True)
class Envelope:
    """The secret, encrypted for one RSA key; key and IV in hex."""

    key: str
    iv: str


def seal(secret: Secret, recipient: RSAPublicKey) -> Envelope:
    """Encrypt the secret for the owner of this key."""
    key, iv = (recipient.encrypt(part.hex().encode(), PKCS1v15()).hex() for part in (secret.key, secret.iv))
    return Envelope(key, iv)


def unseal(envelope: Envelope, private_key: RSAPrivateKey) -> Secret | None:
    """Decrypt the secret; None if the envelope is for another key."""
    key, iv = (_decrypted_hex(part, private_key) for part in (envelope.key, envelope.iv))
    return Secret(key, iv) if key and iv else None


def encrypted(blocks: Iterable[bytes], secret: Secret) -> Generator[bytes, None, None]:
    """Encrypt the blocks, with PKCS#7 padding at the end."""
    encryptor = Cipher(AES(secret.key), CBC(secret.iv)).encryptor()
    size = 0
    for block in blocks:
        size += len(block)
        yield encryptor.update(block)
    count = BLOCK - size % BLOCK
    yield encryptor.update(bytes([count]) * count) + encryptor.finalize()


def decrypted(blocks: Iterable[bytes], secret: Secret) -> Generator[bytes, None, None]:
    """Decrypt the blocks, in small pieces and without padding. Raises BundleError."""
    decryptor = Cipher(AES(secret.key), CBC(secret.iv)).decryptor()
    last = b""
    for block in blocks:
        for piece in _pieces(block):
            clear = decryptor.update(piece)
            if clear:
                yield last + clear[:-BLOCK]
                last = clear[-BLOCK:]
    try:
        decryptor.finalize()
    except ValueError as error:
        raise BundleError("the bundle's bytes are not a whole number of AES blocks") from error
    count = last[-1] if last else 0
    if not 0 < count <= BLOCK or last[-count:] != bytes([count]) * count:
        raise BundleError("the bundle's last bytes are not AES padding: it was made with another key or IV")
    yield last[:-count]


def _pieces(block: bytes) -> Iterator[memoryview]:
    view = memoryview(block)
    return (view[at : at + PIECE_BYTES] for at in range(0, len(view), PIECE_BYTES))


def _decrypted_hex(text: str, private_key: RSAPrivateKey) -> bytes | None:
    """Decrypt 16 bytes. With a wrong key, OpenSSL 3.2 and newer return random bytes; older versions report an error."""
    try:
        digits = private_key.decrypt(bytes.fromhex(text), PKCS1v15()).decode("ascii")
    except ValueError:
        return None
    return bytes.fromhex(digits) if len(digits) == 2 * BLOCK and DIGITS.issuperset(digits.lower()) else None
