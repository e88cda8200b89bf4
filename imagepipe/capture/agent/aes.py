"""AES-128-CBC with the libcrypto that Python's ssl module uses, so that no key is in a command's arguments."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterable, Iterator

from imagepipe.capture.agent.errors import AgentError

BLOCK = 16
NAMES = ("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so.10", "libcrypto.so.1.0.0")


def encrypted(blocks: Iterable[bytes], key: bytes, iv: bytes) -> Iterator[bytes]:
    """Encrypt the blocks, with PKCS#7 padding at the end. Raises AgentError if there is no libcrypto."""
    crypto = _library()
    context = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    try:
        _checked(crypto.EVP_EncryptInit_ex(context, ctypes.c_void_p(crypto.EVP_aes_128_cbc()), None, key, iv))
        for block in blocks:
            room = ctypes.create_string_buffer(len(block) + BLOCK)
            length = ctypes.c_int()
            _checked(crypto.EVP_EncryptUpdate(context, room, ctypes.byref(length), block, len(block)))
            yield room.raw[: length.value]
        last = ctypes.create_string_buffer(2 * BLOCK)
        length = ctypes.c_int()
        _checked(crypto.EVP_EncryptFinal_ex(context, last, ctypes.byref(length)))
        yield last.raw[: length.value]
    finally:
        crypto.EVP_CIPHER_CTX_free(context)


def _library() -> ctypes.CDLL:
    for name in (*NAMES, ctypes.util.find_library("crypto")):
        try:
            found = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if found is not None:
            found.EVP_CIPHER_CTX_new.restype = found.EVP_aes_128_cbc.restype = ctypes.c_void_p
            return found
    raise AgentError(
        "encrypting: the machine has no libcrypto ({})".format(", ".join(NAMES)),
        "install OpenSSL's library in a provisioning step, or use bundle_on: controller",
    )


def _checked(result: int) -> None:
    if result != 1:
        raise AgentError("encrypting: libcrypto reported an error")
