"""Connect to a store's local cloud: find its process or start it, and keep it running."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.errors import LocalCloudError
from imagepipe.local.aws.protocol import paths
from imagepipe.local.daemon import rendezvous
from imagepipe.local.daemon.rendezvous import Serving, held, is_locked
from imagepipe.local.host.waiting import tries
from imagepipe.local.machines.guest import imds
from imagepipe.local.store import Store
from imagepipe.values import HostPorts

SERVER = (sys.executable, "-m", "imagepipe.local.daemon.main")
REGION = "us-east-1"
START_SECONDS = 60.0  # measured 2 s; machines to adopt and a loaded computer take more
ASK_SECONDS = 20.0
PROBE_SECONDS = 5.0  # an answer takes milliseconds; a process that was just killed gives none
USED_SECONDS = 0.3
STOP_SECONDS = 120.0  # machines shut down cleanly

Progress = Callable[[str], None]
Prepare = Callable[[Store, Progress], None]


@dataclass(frozen=True, slots=True)
class LocalCloud:
    """The endpoint of a local cloud, and the credentials for it."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    region: str
    host_ports: HostPorts = field(default_factory=HostPorts)

    @property
    def instance_endpoint_url(self) -> str:
        """The same endpoint, as the cloud's own instances reach it."""
        return f"http://{imds.ADDRESS}:{urllib.parse.urlsplit(self.endpoint_url).port}"


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a serving process."""

    pid: int
    endpoint_url: str
    instances: int
    driver: str
    used_bytes: int


@contextmanager
def connect(
    store: Store,
    *,
    progress: Progress = lambda line: None,
    prepare: Prepare | None = None,
    command: Sequence[str] = SERVER,
) -> Iterator[LocalCloud]:
    """Connect to the store's cloud, which is started if it does not run; it runs at least as long as the block.

    `prepare` does the long work of a first start (by default: check this computer, build the base image) in this
    process, where it can be seen and interrupted. Raises LocalCloudError.
    """
    with held(store.clients, fcntl.LOCK_SH):
        found = find(store) or _start(store, progress, prepare or _prepare, command)
        check_driver(store, found)
        yield _cloud(store, found)


def running(store: Store) -> LocalCloud | None:
    """Find the store's cloud; None if it does not run."""
    found = find(store)
    return None if found is None else _cloud(store, found)


def status(store: Store) -> Status | None:
    """Return the state of the store's cloud; None if it does not run."""
    found = find(store)
    return None if found is None else _status(store, found)


def stop(store: Store, *, terminate: Callable[[LocalCloud], None] | None = None) -> bool:
    """Stop the store's cloud cleanly; return false if it did not run.

    Without `terminate`, refuse while the cloud has instances or clients. Raises LocalCloudError.
    """
    found = find(store)
    if found is None:
        return False
    instances = _status(store, found).instances
    if instances and terminate is None:
        hint = "`imagepipe local status` lists them; `imagepipe local stop --force` terminates them and stops"
        raise store.failure("stopping", f"{instances} instance{'s' if instances > 1 else ''} still there", hint)
    if terminate is None and _is_used(store):
        hint = "wait for it: the cloud ends by itself then; or `imagepipe local stop --force`"
        raise store.failure("stopping", "a build, or another command, uses it", hint)
    if instances and terminate is not None:
        terminate(_cloud(store, found))
        _wait_without_instances(store, found)
    os.kill(found.pid, signal.SIGTERM)
    for _ in tries(STOP_SECONDS):
        if not found.is_alive():
            return True
    raise store.failure("stopping", f"process {found.pid} does not end")


def _is_used(store: Store) -> bool:
    """Tell if the cloud has a client. The cloud itself takes this lock for moments, so try more than once."""
    for _ in tries(USED_SECONDS):
        with suppress(BlockingIOError), held(store.clients, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
    return True


def check_driver(store: Store, found: Serving) -> None:
    """Raise LocalCloudError if the cloud runs already with a driver other than the requested one."""
    if store.driver and (driver := _status(store, found).driver) != store.driver:
        raise LocalCloudError(
            f"the local cloud of {store.root} runs already, with the driver {driver} and not {store.driver}",
            hint="end it with `imagepipe local stop`, or name another store with IMAGEPIPE_LOCAL_STORE",
        )


def _status(store: Store, found: Serving) -> Status:
    return Status(endpoint_url=found.endpoint_url, **_ask(store, found, "status"))


def _wait_without_instances(store: Store, found: Serving) -> None:
    left = 0
    for _ in tries(STOP_SECONDS, pause=0.1):
        if not (left := _status(store, found).instances):
            return
    raise store.failure("stopping", f"{left} of its instances do not end")


def _cloud(store: Store, found: Serving) -> LocalCloud:
    keys = store.credentials()
    ports = HostPorts(found.first_real_port)
    return LocalCloud(found.endpoint_url, keys.access_key_id, keys.secret_access_key, REGION, ports)


def find(store: Store) -> Serving | None:
    """Find the serving process, and wait for one that is starting. Raises LocalCloudError."""
    for _ in tries(START_SECONDS):
        if not is_locked(store.lock):
            return None
        if found := _answering(store):
            return found
        if is_locked(store.starting):  # another client starts it: wait for that client
            return None
    raise store.failure("waiting for", "it runs, but does not answer")


def _answering(store: Store) -> Serving | None:
    """Return the serving process if it answers: one that was just killed still keeps its lock for a moment."""
    found = rendezvous.current(store)
    if found is None:
        return None
    try:
        _ask(store, found, "alive", within=PROBE_SECONDS)
    except LocalCloudError:
        return None
    return found


def _start(store: Store, progress: Progress, prepare: Prepare, command: Sequence[str]) -> Serving:
    try:
        with held(store.starting, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return _start_alone(store, progress, prepare, command)
    except BlockingIOError:
        progress("waiting for another process that starts the local cloud")
    with held(store.starting, fcntl.LOCK_EX):
        return _start_alone(store, progress, prepare, command)


def _start_alone(store: Store, progress: Progress, prepare: Prepare, command: Sequence[str]) -> Serving:
    for _ in tries(START_SECONDS):
        if not is_locked(store.lock):
            break
        if found := _answering(store):  # another client was faster, or its starter died
            return found
    prepare(store, progress)
    progress("starting the local cloud")  # loading takes some seconds without other output
    answer, answer_end = os.pipe()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    arguments = [f"--store={store.root}", f"--base-cache={store.base_cache}", f"--ready-fd={answer_end}"]
    arguments += [f"--driver={store.driver}"] if store.driver else []
    with os.fdopen(answer, "rb", buffering=0):
        with os.fdopen(answer_end, "wb"):
            # The command detaches itself: its first process ends at once.
            detaching = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(answer_end,),
                env=environment,
                cwd="/",
                start_new_session=True,  # or a Ctrl-C while it loads would reach it too
            )
        detaching.wait()
        reply = _read_answer(answer)
    if isinstance(reply, str):
        raise store.failure("starting", reply)
    if "error" in reply:
        raise LocalCloudError(reply["error"], hint=reply.get("hint"))
    found = rendezvous.current(store)
    if found is None:
        raise store.failure("starting", "it ended at once")
    return found


def _read_answer(answer: int) -> dict[str, Any] | str:
    """Read the one line that a starting process writes when it listens or gives up; without one, say what happened."""
    text, end = b"", time.monotonic() + START_SECONDS
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([answer], [], [], max(0.0, end - time.monotonic()))
        chunk = os.read(answer, 65536) if ready else b""
        if not chunk:
            return "it ended without a word" if ready else f"no answer within {START_SECONDS:.0f} s"
        text += chunk
    reply: dict[str, Any] = json.loads(text)
    return reply


def _ask(store: Store, found: Serving, what: str, *, within: float = ASK_SECONDS) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 a literal http URL
        f"{found.endpoint_url}{paths.PREFIX}{what}",
        method="POST",
        headers={paths.SECRET_HEADER: store.credentials().secret_access_key},
    )
    answer: dict[str, Any] = fetch(request, f"asking the local cloud at {found.endpoint_url} for {what}", within, store)
    return answer


def fetch(request: urllib.request.Request, doing: str, seconds: float, store: Store | None = None) -> Any:
    """Send a request to the cloud and return its JSON. Raises LocalCloudError.

    A proxy from the environment is not used: the cloud is on loopback.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=seconds) as answer:
            return json.load(answer)
    except (OSError, ValueError, http.client.HTTPException) as problem:
        text = ""
        if isinstance(problem, urllib.error.HTTPError):
            with problem:
                text = problem.read().decode(errors="replace")[:500]
        hint = f"its log is {store.log}" if store else None
        raise LocalCloudError(f"{doing}: {problem} {text}".rstrip(), hint=hint) from problem


def _prepare(store: Store, progress: Progress) -> None:
    from imagepipe.local.daemon.main import prepare

    prepare(store, progress)
