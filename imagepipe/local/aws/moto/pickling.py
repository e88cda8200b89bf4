"""Pickle moto's state, and read it back: handle classes that cannot be pickled as they are, and limit what is read.

A pickle can name any function of any module. Here only moto's own classes are looked up, and the few others of which
its state consists. So a file that somebody else wrote cannot run code.
"""

from __future__ import annotations

import importlib
import io
import pickle
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from moto.s3.models import FakeKey
from moto.s3.utils import _VersionedKeyStore

from imagepipe.local.aws.protocol.bodies import ObjectFile, new_file

PRIVATE_KEYS = (RSAPrivateKey, EllipticCurvePrivateKey)
FILE = "imagepipe_file"
"""The attribute of an S3 object that names the file with its bytes; empty if it no longer has any."""
NOT_PICKLED = frozenset({"lock"})


class Pickler(pickle.Pickler):
    """Writes state. The bytes of S3's objects stay in their files; `named` collects the names of these files."""

    def __init__(self, file: io.BytesIO, objects: Path, taken: Callable[[str], bool]) -> None:
        """`taken` tells if a file belongs to another object: an object that moto copied gets a file of its own."""
        super().__init__(file)
        self._objects = objects
        self._taken = taken
        self.named: set[str] = set()

    def persistent_id(self, value: Any) -> Any:
        return ("bytes", value.path.name if value.path else "") if isinstance(value, ObjectFile) else None

    def reducer_override(self, value: Any) -> Any:
        """Reduce defaultdicts: those with a lambda become plain dicts, and moto's own subclasses are kept.

        Private keys of KMS are pickled in their serialized form.
        """
        if isinstance(value, FakeKey):
            self._keep(value)
            return _blank_key, (), {k: v for k, v in vars(value).items() if k not in NOT_PICKLED}, None, None, _set_key
        if isinstance(value, PRIVATE_KEYS):
            plain = value.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            return _private_key, (plain,)
        if isinstance(value, _VersionedKeyStore):  # iterating over it gives the newest versions alone
            return _key_store, (dict(dict.items(value)),)
        if not isinstance(value, defaultdict):
            return NotImplemented
        if type(value) is not defaultdict:
            return _blank, (type(value), value.default_factory), vars(value), None, iter(dict.items(value))
        if "<" in getattr(value.default_factory, "__qualname__", ""):
            return dict, (), None, None, iter(value.items())
        return NotImplemented

    def _keep(self, key: FakeKey) -> None:
        """Give an object a file of its own for its bytes."""
        kept = key._value_buffer
        name = str(getattr(key, FILE, ""))
        if not isinstance(kept, ObjectFile) or (name and (name in self.named or self._taken(name))):
            keep(key, self._objects)
            name = str(getattr(key, FILE))
        if name:
            self.named.add(name)


def keep(key: Any, objects: Path) -> None:
    """Write an object's bytes from moto's memory to a new file, and make moto read that file."""
    key._etag = key.etag.strip('"')
    path = objects / uuid.uuid4().hex
    with new_file(path) as file:
        file.write(key.value)
    adopt(key, path)


def adopt(key: Any, path: Path | None) -> None:
    """Have moto read the object's bytes from this file."""
    key._value_buffer.close()
    key._value_buffer = ObjectFile(path)
    key.contentsize = path.stat().st_size if path else key.contentsize
    setattr(key, FILE, path.name if path else "")
    key.disposed = True  # nothing is left to close; without this, moto warns when the object is garbage-collected


def _blank_key() -> Any:
    key: Any = FakeKey.__new__(FakeKey)
    key.disposed = True  # its destructor looks at it
    return key


def _set_key(key: Any, state: Mapping[str, Any]) -> None:

    vars(key).update(state)
    key.lock = threading.Lock()
    key.disposed = True


def _private_key(plain: bytes) -> Any:
    """Load a private key. A pickle names this function, because it cannot import cryptography's own by name."""
    return load_der_private_key(plain, None)


def _key_store(versions: dict[str, Any]) -> _VersionedKeyStore:
    """Make a bucket's key store from the versions of each key."""
    made = _VersionedKeyStore()
    dict.update(made, versions)
    return made


def _blank(kind: type[defaultdict[Any, Any]], factory: Any) -> Any:
    """Make an empty map of moto's; its constructor needs values that only its backend has."""
    if not issubclass(kind, defaultdict):
        raise pickle.UnpicklingError(f"{kind} is not a map with defaults")
    made = kind.__new__(kind)
    made.default_factory = factory
    return made


def _method(of: Any, name: str) -> Any:
    """Return a method of an object of moto's, as pickle requests it: `getattr` itself would give anything."""
    found = getattr(of, name) if is_moto_class(type(of)) else None
    if getattr(found, "__self__", None) is not of or name.startswith("_"):
        raise pickle.UnpicklingError(f"{name} is no method of an object of moto's")
    return found


def is_moto_class(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "moto"


OWN = {each.__name__: each for each in (_blank_key, _set_key, _private_key, _key_store, _blank)}
_PLAIN_NAMES = """
    builtins: bool bytearray bytes complex dict float frozenset int list object range set slice str tuple
    collections: Counter OrderedDict defaultdict deque
    copyreg: _reconstructor
    datetime: date datetime time timedelta timezone
    decimal: Decimal
    ipaddress: IPv4Address IPv4Network IPv6Address IPv6Network
    re: _compile
    requests.structures: CaseInsensitiveDict
    uuid: SafeUUID UUID
    _codecs: encode
    """
PLAIN = frozenset(
    (module.strip(), name)
    for module, _, names in (line.partition(":") for line in _PLAIN_NAMES.strip().splitlines())
    for name in names.split()
)
"""Names outside of moto that pickles of its state need. All of them only hold values."""


class Unpickler(pickle.Unpickler):
    """Reads the pickles of `Pickler`. Raises UnpicklingError for a pickle that names anything else."""

    def __init__(self, body: bytes, objects: Path) -> None:
        super().__init__(io.BytesIO(body))
        self._objects = objects
        self.named: set[str] = set()

    def find_class(self, module: str, name: str, /) -> Any:
        if module == __name__ and name in OWN:
            return OWN[name]
        if (module, name) == ("builtins", "getattr"):
            return _method
        if (module, name) in PLAIN:
            return getattr(importlib.import_module(module), name)
        if module.partition(".")[0] == "moto":
            found = super().find_class(module, name)
            # A dotted name could also reach something that a module of moto's imports: that is refused.
            if isinstance(found, type) and is_moto_class(found):
                return found
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of the state of a cloud")

    def persistent_load(self, named: Any) -> Any:
        _, name = named
        if name:
            self.named.add(name)
        return ObjectFile(self._objects / Path(name).name if name else None)
