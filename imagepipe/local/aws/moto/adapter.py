"""Networks, IAM, STS, KMS, parameters and S3: moto answers, and its state is made durable from outside.

moto is used unchanged: its own applications answer in this process, one call of a service at a time. After each call
that may have changed something, the backend is pickled into the database before the answer is sent. S3's objects are
many and large: `s3_state` keeps them, and `s3_transfers` moves their bytes.
"""

from __future__ import annotations

import io
import logging
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from moto.backends import get_backend
from moto.core.model_instances import model_data
from moto.moto_server.werkzeug_app import create_backend_app
from moto.utilities.utils import get_partition
from werkzeug.test import run_wsgi_app

from imagepipe.errors import LocalCloudError
from imagepipe.local.aws.authentication.signature import Identity, Request
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.moto.pickling import Pickler, Unpickler
from imagepipe.local.aws.moto.s3_state import ACCOUNT, KEY, UPLOAD, Changes, S3State, WouldLose
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer
from imagepipe.local.aws.state.database import Database

TAGGING = "resource-groups-tagging-api"
SERVICES = ("ec2", "s3", "sts", "iam", "kms", "ssm", "secretsmanager", TAGGING)
"""The services that moto answers for. It has some two hundred more, which are refused by name."""
SIGNING_NAMES = {"tagging": TAGGING}
GLOBAL_SERVICES = frozenset({"s3", "sts", "iam"})
READS = ("Describe", "Get", "List", "Head", "Lookup", "Search", "Simulate")
MOTO = "moto"
"""Name of the blob with the version of moto that wrote the others."""
HTML = re.compile(rb"\s*<(!doctype )?html", re.IGNORECASE)
log = logging.getLogger(__name__)


class Moto:
    """moto, called once at a time for each service, with its state in the database and S3's bytes in a folder."""

    def __init__(self, database: Database, objects: Path) -> None:
        # Images are the gateway's own: moto would make 1,300 for each region, and we would keep them.
        os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
        os.environ.pop("MOTO_AMIS_PATH", None)
        self._database = database
        self.objects = objects
        """The folder of the bytes of S3's objects."""
        self.objects.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._apps: dict[str, Any] = {}
        """moto's application of each service. Its dispatcher is left out: it chooses by path and host name, and some
        paths lead to moto's own interface, which resets everything."""
        self._saved: set[str] = set()
        self.s3 = S3State(database, objects)
        self._locks = {service: threading.RLock() for service in SERVICES}
        self._locks["sts"] = self._locks["iam"]  # STS reads IAM's roles
        self._load()

    @contextmanager
    def lock(self, service: str) -> Iterator[None]:
        """Lock the service for the block. Locks of several services are always taken in the same order."""
        wanted = SERVICES if service == TAGGING else (service,)
        with ExitStack() as stack:
            for each in wanted:
                stack.enter_context(self._locks[each])
            yield

    def answer(self, context: RequestContext, action: str) -> Answer:
        """Have moto answer, and save its changes. `action` is empty if the HTTP method alone names it.

        For all of SERVICES but S3. Raises AwsError.
        """
        identity, request = context.identity, context.request
        service = SIGNING_NAMES.get(identity.service, identity.service)
        if request.path not in ("", "/"):
            text = f"The service '{identity.service}' has nothing at {request.path}"
            raise AwsError("InvalidAction", text, status=404)
        with self.lock(service):
            answer = self.call(service, context, context.environ)
            reads = action.startswith(READS) if action else request.method in ("GET", "HEAD")
            for each in SERVICES if service == TAGGING and not reads else (service,):  # tagging changes all services
                region = get_partition(identity.region) if each in GLOBAL_SERVICES else identity.region
                if not reads or _name(each, identity.account, region) not in self._saved:
                    self.save(each, identity.account, region)
        return check_readable(answer, action, request)

    def call(self, service: str, context: RequestContext, environ: Mapping[str, Any]) -> Answer:
        """Have moto answer, and save nothing yet. Call it under the service's lock."""
        if service not in self._apps:
            self._apps[service] = create_backend_app(cast(Any, service))
            _forget_instances()
        return _call(self._apps[service], _environ(context.identity, context.request, environ))

    def model(self, service: str, account: str, region: str) -> Any:
        """Return moto's own model of a service in a region."""
        return get_backend(cast(Any, service))[account][region]

    def save(self, service: str, account: str, region: str) -> None:
        """Save the backend's current state; for S3, only the settings of its buckets."""
        with self.lock(service):
            accounts: Any = get_backend(cast(Any, service))
            if account not in accounts or region not in accounts[account]:
                return
            if service == "s3":
                self.save_s3(account, region, Changes(""))
                return
            buffer = io.BytesIO()
            Pickler(buffer, self.objects, lambda file: False).dump(dict(vars(accounts[account][region])))
            name = _name(service, account, region)
            try:
                self._check_readable(name, buffer.getvalue())
                self._database.write_blobs({name: buffer.getvalue()})
            except BaseException:
                if name in self._saved:  # callers must never see state that is not on disk
                    self._load_backend(name, dict(self._database.blobs())[name])
                raise
            self._saved.add(name)

    def _check_readable(self, name: str, body: bytes) -> None:
        """Raise AwsError if the next process could not read this state, and the store would not start."""
        try:
            Unpickler(body, self.objects).load()
        except Exception as problem:
            log.exception("%s cannot be kept", name)
            text = f"The local cloud cannot keep this, and what is kept of {name} stays as it was: {problem}"
            raise AwsError("InternalError", text, status=500) from problem

    def save_s3(self, account: str, region: str, changed: Changes) -> None:
        """Save the changes of a request to S3. If that fails or would lose data, read S3's state from disk again."""
        try:
            self.s3.save(account, get_partition(region), changed)
        except Exception as problem:
            log.critical("S3's state is read from the disk again: %s", problem)
            self.s3.load(dict(self._database.blobs()))
            if not isinstance(problem, WouldLose):  # for example, the disk is full
                raise
            text = f"The local cloud did not save this, as it would have lost data: {problem}. Try again"
            raise AwsError("InternalError", text, status=500) from problem

    def _load(self) -> None:
        """Replace moto's state, which is global to this process, by the one that an earlier process saved.

        Raises LocalCloudError if this version of moto cannot read it.
        """
        for service in SERVICES:
            get_backend(cast(Any, service)).clear()
        _forget_instances()
        blobs = dict(self._database.blobs())
        here, there = _version(), blobs.pop(MOTO, b"").decode()
        try:
            self.s3.load(blobs)
            for name, body in blobs.items():
                if not name.startswith((f"{ACCOUNT}/", f"{KEY}/", f"{UPLOAD}/")):
                    self._load_backend(name, body)
            self.s3.sweep()
        except Exception as problem:
            raise _unreadable(self.objects.parent, here, there, problem) from problem
        if here != there:
            self._database.write_blobs({MOTO: here.encode()})

    def _load_backend(self, name: str, body: bytes) -> None:
        service, account, region = name.split("/")
        backend = self.model(service, account, region)
        for key, value in Unpickler(body, self.objects).load().items():
            _adopt(backend, key, value)
        self._saved.add(name)


@cache
def _version() -> str:
    """Return moto's version; looking it up reads files."""
    return version("moto")


def _unreadable(state: Path, here: str, there: str, problem: Exception) -> LocalCloudError:
    """Make the error for state that cannot be read, with a way forward."""
    if there and there != here:
        text = f"it was written with moto {there}, and this is moto {here}"
        hint = f"to keep everything, install that version: pip install 'moto[ec2,s3,server]=={there}'; or"
    else:
        text = f"it is damaged, or written with another version of moto than this one, {here}"
        hint = "restore it from a backup; or"
    return LocalCloudError(
        f"reading the local cloud's networks, keys, parameters and S3 objects in {state}: {text}"
        f" ({type(problem).__name__}: {problem})",
        hint=f"{hint} begin with an empty store: --store NEW_FOLDER, or `mv {state.parent} {state.parent}.old`",
    )


def check_readable(answer: Answer, action: str, request: Request) -> Answer:
    """Return moto's answer if clients can read it. Raises AwsError for a page of HTML, and for moto's own failures."""
    if answer.status >= 500 or (answer.status >= 400 and HTML.match(answer.body)):
        log.error("moto answered %s with %s: %r", action or request.path, answer.status, answer.body[:500])
        raise AwsError("InternalError", f"The local cloud cannot do {action or request.method} like this", status=500)
    return answer


class _NoInstances(list[Any]):
    """Keeps nothing."""

    def append(self, _: Any, /) -> None:
        pass


def _forget_instances() -> None:
    """Stop moto from listing all instances of its models: only its own interface needs them, and none is ever freed."""
    for models in model_data.values():
        for model in models.values():
            if not isinstance(model.instances_tracked, _NoInstances):
                cast(Any, model).instances_tracked = _NoInstances()


def _adopt(backend: Any, key: str, value: object) -> None:
    """Set an attribute; a defaultdict stays a defaultdict."""
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


def _name(service: str, account: str, region: str) -> str:
    return f"{service}/{account}/{region}"


def _environ(identity: Identity, request: Request, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare the request for moto: an unread body, and a header that names the account that was verified."""
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
    chunks, status, headers = run_wsgi_app(app, environ, buffered=True)
    kept = tuple((name, value) for name, value in headers if not name.lower().startswith("access-control-"))
    return Answer(int(status.split(" ", 1)[0]), kept, b"".join(chunks))
