"""What moto keeps for us: networks, IAM, STS, KMS, parameters and S3, made durable from outside.

moto is used as it is: its own server application answers, in this process, and after each call that may have
changed something the backend concerned is pickled into the ledger before the answer leaves. S3 objects are many and
large, and their bytes never change: the bytes of each are a file of its own, written once, what else there is to say of
it is a blob of its own, written when it changes, and the backend's pickle only names it. So a write costs much the same
however many objects there are.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import FakeKey
from moto.s3.utils import _VersionedKeyStore
from moto.utilities.utils import get_partition

from imagepipe.local.gateway.ledger import Ledger
from imagepipe.local.gateway.refusal import Refused
from imagepipe.local.gateway.signature import Identity, Request
from imagepipe.local.gateway.wire import Answer

PRIVATE_KEYS = (RSAPrivateKey, EllipticCurvePrivateKey)
SERVICES = ("ec2", "s3", "sts", "iam", "kms", "ssm", "secretsmanager", "resource-groups-tagging-api")
"""moto knows some two hundred; these are what images are made with. The rest is refused by name."""
SIGNING_NAMES = {"tagging": "resource-groups-tagging-api"}
GLOBAL_SERVICES = frozenset({"s3", "sts", "iam"})
ONE_KEY = frozenset({"PutObject", "CopyObject", "DeleteObject", "DeleteObjects"})
"""Actions that change no other object than that of the request's key, if any is left: all others are not looked at."""
OBJECT = "object/"
"""What the names of objects' blobs begin with; a backend's has two slashes."""
READS = ("Describe", "Get", "List", "Head", "Lookup", "Search", "Simulate")


class Elsewhere:
    """moto behind one call at a time, with its state in the ledger and S3's bytes in a folder."""

    def __init__(self, ledger: Ledger, objects: Path) -> None:
        # Images are the gateway's own: moto would make 1,300 for each region, and we would keep them.
        os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
        os.environ.pop("MOTO_AMIS_PATH", None)
        self._ledger = ledger
        self._objects = objects
        self._objects.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._apps: dict[str, Any] = {}
        """moto's application of each service. Its dispatcher is left out: it chooses by path and host name, and some
        paths lead to moto's own interface, which resets everything."""
        self._saved: set[str] = set()
        self._named: dict[str, set[str]] = {}
        """The objects that each saved state of S3 names."""
        self._states: dict[str, bytes] = {}
        """By object, the digest of what is saved of it."""
        self.lock = threading.RLock()
        self._load()

    def answer(
        self, identity: Identity, request: Request, environ: dict[str, Any], action: str, key: str = ""
    ) -> Answer:
        """moto's answer, once what it changed is on disk. `action` is empty where the method says it all.

        `key` is that of an S3 object.
        """
        service = SIGNING_NAMES.get(identity.service, identity.service)
        if service not in SERVICES:
            raise Refused(
                "UnsupportedOperation",
                f"The local cloud has no service '{identity.service}'; it has {', '.join(SERVICES)}",
            )
        if service != "s3" and request.path not in ("", "/"):
            raise Refused(
                "InvalidAction", f"The service '{identity.service}' has nothing at {request.path}", status=404
            )
        with self.lock:
            answer = _call(self._app(service), _environ(identity, request, environ))
            region = get_partition(identity.region) if service in GLOBAL_SERVICES else identity.region
            reads = action.startswith(READS) if action else request.method in ("GET", "HEAD")
            if not reads or _name(service, identity.account, region) not in self._saved:
                only = key if service == "s3" and action in ONE_KEY else None
                self.save(service, identity.account, region, only_key=only)
                if service == "s3":  # whoever may write to another account's bucket changes that account's state
                    for account in set(get_backend("s3")) - {identity.account}:
                        self.save(service, account, region, only_key=only)
        return answer

    def _app(self, service: str) -> Any:
        if service not in self._apps:
            self._apps[service] = create_backend_app(cast(Any, service))
        return self._apps[service]

    def backend(self, service: str, account: str, region: str) -> Any:
        """moto's own model of a service in a region."""
        return get_backend(service)[account][region]

    def save(self, service: str, account: str, region: str, *, only_key: str | None = None) -> None:
        """Put the backend's present state on disk; of S3's objects only those of a key, where it is given."""
        with self.lock:
            accounts = get_backend(service)
            if account not in accounts or region not in accounts[account]:
                return
            name = _name(service, account, region)
            buffer = io.BytesIO()
            pickler = _Pickler(buffer, self._objects, frozenset(self._states), only_key)
            pickler.dump(dict(vars(accounts[account][region])))
            changed, gone = self._changed(pickler.states), self._gone(name, pickler.named)
            with self._ledger.change():
                self._ledger.put_blob(name, buffer.getvalue())
                for each, state in changed.items():
                    self._ledger.put_blob(OBJECT + each, state)
                for each in gone:
                    self._ledger.drop_blob(OBJECT + each)
            self._saved.add(name)
            self._named[name] = pickler.named
            self._states.update((each, _digest(state)) for each, state in changed.items())
            for each in gone:
                self._states.pop(each, None)
                (self._objects / each).unlink(missing_ok=True)

    def _changed(self, states: Mapping[str, bytes]) -> dict[str, bytes]:
        return {each: state for each, state in states.items() if self._states.get(each) != _digest(state)}

    def _gone(self, name: str, named: set[str]) -> set[str]:
        """The objects that only the state before this one named."""
        gone = self._named.get(name, set()) - named
        return gone.difference(*(self._named[other] for other in self._named if other != name)) if gone else gone

    def _load(self) -> None:
        """Give moto what an earlier process saved, and nothing else: moto's state is the process's own."""
        for service in SERVICES:
            get_backend(service).clear()
        get_backend("s3").bucket_accounts.clear()
        blobs = dict(self._ledger.blobs())
        states = {name.removeprefix(OBJECT): blobs.pop(name) for name in list(blobs) if name.startswith(OBJECT)}
        for name, body in blobs.items():
            service, account, region = name.split("/")
            backend = get_backend(service)[account][region]
            unpickler = _Unpickler(body, self._objects, states)
            for key, value in unpickler.load().items():
                _adopt(backend, key, value)
            self._saved.add(name)
            self._named[name] = unpickler.named
            if service == "s3":
                for bucket in backend.buckets:
                    get_backend("s3").bucket_accounts[bucket] = (region, account)
        self._states = {name: _digest(state) for name, state in states.items()}
        self._sweep()

    def _sweep(self) -> None:
        """Delete what is left of objects that are no more: a process may have ended before it came to that."""
        named = set().union(*self._named.values())
        for path in self._objects.iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)
        with self._ledger.change():
            for each in set(self._states) - named:
                self._ledger.drop_blob(OBJECT + each)
                del self._states[each]


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, objects: Path, saved: frozenset[str], only_key: str | None) -> None:
        super().__init__(file)
        self._objects = objects
        self._saved = saved
        self._only_key = only_key
        self.named: set[str] = set()
        self.states: dict[str, bytes] = {}
        """By object, what there is to say of it, where that may have changed."""
        self._seen: dict[str, FakeKey] = {}

    def persistent_id(self, value: Any) -> Any:
        """An S3 object is pickled as the name of the file that has its bytes."""
        if not isinstance(value, FakeKey):
            return None
        name = getattr(value, "imagepipe_file", None)
        if name is None or self._seen.get(name, value) is not value:  # new, or moto's copy of another
            name = uuid.uuid4().hex
            _write(self._objects / name, _bytes(value))
            value.imagepipe_file = name
        is_new = name not in self._seen
        self._seen[name] = value
        self.named.add(name)
        if is_new and not (name in self._saved and self._is_untouched(value)):
            self.states[name] = self._state(value)
        return name

    def _is_untouched(self, value: FakeKey) -> bool:
        """By an action on one key alone; what is of parts names them, so that they are not taken for gone."""
        return self._only_key is not None and value.name != self._only_key and value.multipart is None

    def _state(self, value: FakeKey) -> bytes:
        """Its attributes without the bytes; the parts of an upload that it was put together of are with it."""
        buffer = io.BytesIO()
        nested = _Pickler(buffer, self._objects, self._saved, self._only_key)
        nested.dump({k: v for k, v in vars(value).items() if k not in ("_value_buffer", "lock")})
        self.named |= nested.named
        self.states |= nested.states
        return buffer.getvalue()

    def reducer_override(self, value: Any) -> Any:
        """Maps with defaults: those whose default is a lambda go as plain maps, moto's own subclasses whole.

        Private keys, of KMS, go as what they are written as.
        """
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


def _private_key(plain: bytes) -> Any:
    """Named in the pickle by this module: that of the function it calls cannot be imported by its name."""
    return load_der_private_key(plain, None)


def _key_store(versions: dict[str, Any]) -> _VersionedKeyStore:
    """A bucket's objects, from all versions by key."""
    made = _VersionedKeyStore()
    dict.update(made, versions)
    return made


def _blank(kind: type[defaultdict[Any, Any]], factory: Any) -> Any:
    """One of moto's maps before its contents; its constructor wants what only its backend knows."""
    made = kind.__new__(kind)
    made.default_factory = factory
    return made


class _Unpickler(pickle.Unpickler):
    """Only ever reads what `_Pickler` wrote into this store's own database."""

    def __init__(self, body: bytes, objects: Path, states: Mapping[str, bytes]) -> None:
        super().__init__(io.BytesIO(body))
        self._objects = objects
        self._states = states
        self.named: set[str] = set()

    def persistent_load(self, named: Any) -> Any:
        """By name; format 2 had all there is to say of an object in its place."""
        nested = _Unpickler(named if isinstance(named, bytes) else self._states[named], self._objects, self._states)
        state = nested.load()
        self.named |= {state["imagepipe_file"], *nested.named}
        key = FakeKey.__new__(FakeKey)
        key.__setstate__({**state, "value": (self._objects / state["imagepipe_file"]).read_bytes()})
        return key


def _digest(state: bytes) -> bytes:
    return hashlib.blake2b(state, digest_size=16).digest()


def _bytes(key: FakeKey) -> bytes:
    """moto closes the parts of an upload once they are put together, and keeps them."""
    return b"" if key.disposed else bytes(key.value)


def _adopt(backend: Any, key: str, value: object) -> None:
    """Set an attribute; a map with defaults stays one."""
    present = getattr(backend, key, None)
    if type(present) is defaultdict and isinstance(value, dict):
        present.clear()
        for name, item in value.items():
            inner = present[name]
            if type(inner) is defaultdict and isinstance(item, dict):
                inner.update(item)
            else:
                present[name] = item
        return
    setattr(backend, key, value)


def _write(path: Path, body: bytes) -> None:
    half = path.with_name(f".{path.name}")
    with half.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    half.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _name(service: str, account: str, region: str) -> str:
    return f"{service}/{account}/{region}"


def _environ(identity: Identity, request: Request, environ: dict[str, Any]) -> dict[str, Any]:
    """The request as moto should see it: body not read yet, signed in the header, of the account we verified."""
    scope = f"{identity.access_key_id}/20000101/{identity.region}/{identity.service}/aws4_request"
    passed = {
        **environ,
        "wsgi.input": io.BytesIO(request.body),
        "CONTENT_LENGTH": str(len(request.body)),
        "HTTP_X_MOTO_ACCOUNT_ID": identity.account,
        "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
    }
    passed.pop("HTTP_TRANSFER_ENCODING", None)
    if request.method == "PUT" and passed.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        # Python's urllib sends that type by itself; moto then takes the object's bytes for a form, and keeps none.
        passed["CONTENT_TYPE"] = "binary/octet-stream"
    return passed


def _call(app: Any, environ: dict[str, Any]) -> Answer:
    status, headers = "500 Internal Server Error", []

    def start(given: str, given_headers: Iterable[tuple[str, str]], exc_info: object = None) -> None:
        nonlocal status, headers
        status, headers = given, list(given_headers)

    chunks = app(environ, start)
    try:
        body = b"".join(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    kept = tuple((name, value) for name, value in headers if not name.lower().startswith("access-control-"))
    return Answer(int(status.split(" ", 1)[0]), kept, body)
