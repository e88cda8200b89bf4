"""The process that serves one store: `python -m imagepipe.local.daemon.main`, started by the first client.

It ends some seconds after the last client when no instance is left, or at SIGTERM. If it is killed, nothing is
lost: the next process takes over.
"""

from __future__ import annotations

import argparse
import fcntl
import hmac
import io
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs

from imagepipe.dataclass import dataclass
from imagepipe.errors import ImagepipeError, LocalCloudError
from imagepipe.local.aws.protocol import paths
from imagepipe.local.aws.protocol.paths import HAS_TOKEN
from imagepipe.local.daemon import rendezvous
from imagepipe.local.daemon.rendezvous import Serving
from imagepipe.local.disks.files import StoreFull
from imagepipe.local.host import processes
from imagepipe.local.host.waiting import tries
from imagepipe.local.machines import endpoint
from imagepipe.local.store import ROOT_VARIABLE, Store

if TYPE_CHECKING:
    from imagepipe.local.aws.faults.faults import Fault

IDLE_SECONDS = 10.0
CHUNK_BYTES = 1 << 16
LOCK_SECONDS = 5.0  # others probe the lock for a moment, and our predecessor may be on its way out
LOG_LIMIT = 8 << 20
# Below the range of outgoing connections, one of which could have the port when the cloud starts again.
PORTS = range(20000, 32768)
log = logging.getLogger("imagepipe.local")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class Application(Protocol):
    """The gateway, as its process needs it."""

    def recover(self) -> None:
        """Take over what an earlier process left; before the first request."""

    def instances(self) -> int:
        """Count the instances that are neither stopped nor terminated."""

    def close(self) -> None: ...

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]: ...


@dataclass(frozen=True, slots=True)
class Cloud:
    """The application that a process serves, its server, and the functions that end it."""

    application: Application
    server: Callable[[Any, str, int], Any]
    """A cheroot server for a WSGI application, an address and a port, not bound yet."""
    driver_name: str
    used_bytes: Callable[[], int]
    power_off: Callable[[], None]
    """Shut down the running machines cleanly; their disks stay."""
    close: Callable[[], None]


Build = Callable[[Store], Cloud]


@dataclass(frozen=True, slots=True)
class ExternalAddress:
    """An address that is not loopback, and the token that requests from there need."""

    address: str
    token: str = field(repr=False)


def prepare(store: Store, progress: Callable[[str], None]) -> None:
    """Prepare a first start: check the driver's requirements, and build the base image. Raises LocalCloudError."""
    from imagepipe.local.disks.base_image import ensure_base
    from imagepipe.local.machines import registry
    from imagepipe.local.machines.qemu import kvm

    if problems := registry.PROBLEMS[registry.named(store.driver)]():
        raise LocalCloudError(
            "starting the local cloud: this computer cannot run its machines:"
            + "".join(f"\n  - {problem}" for problem in problems),
            hint="imagepipe local doctor says what to install",
        )
    if store.driver == "qemu" and (why_not := kvm.why_not()):
        progress(f"machines are emulated in software, which is slow: {why_not}")
    ensure_base(store, progress)


def build(store: Store, *, faults: Iterable[Fault] = (), seed: int = 0) -> Cloud:
    """Build the gateway over machines that boot. `faults`, with their generators' seed, are active from the start."""
    from imagepipe.clock import SystemClock
    from imagepipe.local.aws.app import Gateway
    from imagepipe.local.aws.authentication.signature import Secret
    from imagepipe.local.aws.faults.faults import Faults
    from imagepipe.local.aws.http_server import make_server
    from imagepipe.local.aws.state.database import RECORDS, check_format
    from imagepipe.local.disks.base_image import ensure_base
    from imagepipe.local.disks.files import Disks
    from imagepipe.local.machines import registry

    check_format(store.gateway / RECORDS)  # before anything of the store is touched
    base = ensure_base(store, log.info)
    disks = Disks(store.disks)
    disks.sweep()
    driver = registry.open_driver(registry.named(store.driver), store.machines)
    keys = store.credentials()
    gateway = Gateway(
        state=store.gateway,
        disks=disks,
        driver=driver,
        base=base,
        clock=SystemClock(),
        faults=Faults(faults, seed=seed),
        credentials={keys.access_key_id: Secret(keys.secret_access_key, keys.account_id)},
    )

    def power_off() -> None:
        stopping = [threading.Thread(target=driver.stop, args=(machine,)) for machine in driver.running()]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    return Cloud(
        application=gateway,
        server=lambda application, address, port: make_server(application, host=address, port=port),
        driver_name=driver.name,
        used_bytes=disks.used_bytes,
        power_off=power_off,
        close=driver.close,
    )


def serve(
    store: Store,
    *,
    port: int | None,
    ready: Callable[[Serving], None],
    stop: threading.Event,
    build: Build = build,
    idle_seconds: float | None = IDLE_SECONDS,
    external: ExternalAddress | None = None,
) -> None:
    """Serve the store until `stop` is set, or it had neither clients nor instances for `idle_seconds`.

    Without a port, the last one is used if it is free, otherwise another. The cloud always listens on loopback, and
    with the same port on the `external` address. Raises LocalCloudError.
    """
    processes.return_memory()
    with ExitStack() as stack:
        _take_lock(store, stack)
        rendezvous.withdraw(store)
        port = _choose_port(port, endpoint.port_of(store.machines), store)
        cloud = build(store)
        stack.callback(cloud.close)
        stack.callback(cloud.application.close)
        try:
            cloud.application.recover()
        except StoreFull as full:
            hint = "free some room (imagepipe clean --all --local), or name a store on another disk with "
            raise store.failure("starting", f"its store is full: {full}", hint + ROOT_VARIABLE) from full
        servers = [_listen(cloud, _LoopbackApp(cloud, store), port, store)]
        here = Serving.this_process(servers[0].bind_addr[1])
        stack.callback(servers[0].stop)
        if external is not None:
            app = _TokenApp(cloud.application, external.token)
            servers.append(_listen(cloud, app, here.port, store, external.address))
            stack.callback(servers[1].stop)
        threads = [_started(server) for server in servers]
        stack.callback(rendezvous.withdraw, store)
        rendezvous.announce(store, here)
        ready(here)
        log.info("serving %s at %s, process %d", store.root, here.endpoint_url, here.pid)
        is_idle = _wait(store, cloud.application, stop, idle_seconds, stack)
        log.info("ending: %s", "nobody uses it and no instance is left" if is_idle else "asked to")
        rendezvous.withdraw(store)
        for server in servers:
            server.stop()
        for thread in threads:
            thread.join()
        cloud.power_off()


def _started(server: Any) -> threading.Thread:
    thread = threading.Thread(target=server.serve, name="endpoint", daemon=True)
    thread.start()
    return thread


def _take_lock(store: Store, stack: ExitStack) -> None:
    for _ in tries(LOCK_SECONDS):
        with suppress(BlockingIOError):
            stack.enter_context(rendezvous.held(store.lock, fcntl.LOCK_EX | fcntl.LOCK_NB))
            return
    found = rendezvous.current(store)
    where = f" at {found.endpoint_url}, process {found.pid}" if found else ""
    hint = "use that one, or end it with `imagepipe local stop`"
    raise store.failure("starting", f"one runs already{where}", hint)


def _choose_port(port: int | None, last_port: int, store: Store) -> int:
    """Choose the port: the requested one, or the last one if it is free, or any."""
    if port is not None:
        try:
            _check_free(port)
        except OSError as problem:
            hint = "name another port, or none: then a free one is taken"
            raise store.failure("starting", f"port {port} of 127.0.0.1: {problem}", hint) from problem
        return port
    candidates = [last_port] if last_port else []
    for candidate in [*candidates, *random.sample(PORTS, 20)]:
        with suppress(OSError):
            _check_free(candidate)
            return candidate
    return 0


def _listen(cloud: Cloud, app: App, port: int, store: Store, address: str = rendezvous.ADDRESS) -> Any:
    """Make a server that is bound to this address, and answers nobody yet."""
    server: Any = cloud.server(app, address, port)
    server.error_log = _cheroot_log
    try:
        server.prepare()
    except OSError as problem:
        where = f"{address}, port {port}"
        raise LocalCloudError(f"starting the local cloud of {store.root}: {where}: {problem}") from problem
    return server


def _check_free(port: int) -> None:
    """Raise OSError early, before the long work of a start, if a process listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((rendezvous.ADDRESS, port))


def _cheroot_log(msg: str = "", level: int = 20, traceback: bool = False) -> None:
    log.log(level, msg, exc_info=traceback)


def _wait(
    store: Store, application: Application, stop: threading.Event, idle_seconds: float | None, stack: ExitStack
) -> bool:
    """Wait until it is time to end. Return true if nobody uses the cloud; new users then wait until it has ended."""
    if idle_seconds is None:
        stop.wait()
        return False
    clients = stack.enter_context(store.clients.open("a"))
    last_use = time.monotonic()
    while not stop.wait(min(1.0, idle_seconds / 5)):
        try:
            fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            last_use = time.monotonic()
            continue
        if application.instances():
            last_use = time.monotonic()
        if time.monotonic() - last_use >= idle_seconds:
            return True
        fcntl.flock(clients, fcntl.LOCK_UN)
    return False


class _LoopbackApp:
    """The gateway, and the few paths of the process itself."""

    def __init__(self, cloud: Cloud, store: Store) -> None:
        self._cloud = cloud
        self._secret = store.credentials().secret_access_key

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if not path.startswith(paths.PREFIX):
            return self._cloud.application(environ, start_response)
        secret = environ.get("HTTP_" + paths.SECRET_HEADER.upper().replace("-", "_"), "")
        if not hmac.compare_digest(secret.encode(), self._secret.encode()):
            return _answer(start_response, "403 Forbidden", {"error": "not for you"})
        try:
            return _answer(start_response, "200 OK", self._do(path.removeprefix(paths.PREFIX)))
        except KeyError as unknown:
            return _answer(start_response, "404 Not Found", {"error": f"no {unknown}"})

    def _do(self, what: str) -> Mapping[str, Any]:
        return {"status": self._status, "alive": dict[str, Any]}[what]()

    def _status(self) -> Mapping[str, Any]:
        return {
            "pid": os.getpid(),
            "instances": self._cloud.application.instances(),
            "driver": self._cloud.driver_name,
            "used_bytes": self._cloud.used_bytes(),
        }


class _TokenApp:
    """The gateway for other machines, which need the token: AWS's clients send it as their session token.

    Requests are signed as everywhere, and the signature covers the token. The cloud's own paths are refused.
    """

    def __init__(self, application: App, token: str) -> None:
        self._application = application
        self._token = token.encode()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        query = parse_qs(environ.get("QUERY_STRING", ""))
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN") or (query.get("X-Amz-Security-Token") or [""])[0]
        has_token = hmac.compare_digest(str(token).encode(), self._token)
        is_own = environ.get("PATH_INFO", "").startswith(paths.OWN_PATHS)
        if is_own or not has_token:
            environ = _without_body(environ)
        if is_own:
            return _answer(start_response, "403 Forbidden", {"error": "not from other machines"})
        return self._application({**environ, HAS_TOKEN: has_token}, start_response)


def _without_body(environ: Environ) -> Environ:
    """Read and drop the body of a request, however long it is, because the answer must wait for it.

    A chunked body is not read, because cheroot would load each chunk into memory. The connection is then useless.
    """
    while not environ.get("wsgi.input_terminated") and environ["wsgi.input"].read(CHUNK_BYTES):
        pass
    return {**environ, "wsgi.input": io.BytesIO(), "wsgi.input_terminated": False, "CONTENT_LENGTH": ""}


def _answer(start_response: StartResponse, status: str, values: Mapping[str, Any]) -> Iterable[bytes]:
    body = json.dumps(values).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def main(arguments: Sequence[str], *, build: Build = build, idle_seconds: float = IDLE_SECONDS) -> int:
    """Detach, serve, and report to the starter over `--ready-fd` once the cloud listens, or why it cannot."""
    parser = argparse.ArgumentParser(prog="imagepipe.local.daemon.main")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--base-cache", type=Path)
    parser.add_argument("--driver")
    parser.add_argument("--ready-fd", type=int, required=True)
    options = parser.parse_args(arguments)
    if os.fork():
        return 0
    os.setsid()
    with os.fdopen(options.ready_fd, "w") as starter:

        def report(result: Mapping[str, Any]) -> None:
            with suppress(BrokenPipeError):  # the client that started this process has ended; others will follow
                starter.write(json.dumps(result) + "\n")
                starter.flush()

        try:
            store = Store.open(options.store, base_cache=options.base_cache, driver=options.driver)
            _log_to(store.log)
            stop = threading.Event()
            set_on_signals(stop)

            def ready(_: Serving) -> None:
                report({"ok": True})
                starter.close()

            serve(store, port=None, ready=ready, stop=stop, build=build, idle_seconds=idle_seconds)
        except ImagepipeError as problem:
            log.error("%s", problem)
            report({"error": problem.message, "hint": problem.hint})
            return 1
        except Exception as problem:
            log.exception("the cloud's process fails")
            if not starter.closed:
                what = f"starting the local cloud of {options.store}: {type(problem).__name__}: {problem}"
                report({"error": what, "hint": f"its log is {options.store / 'cloud.log'}"})
            return 1
    return 0


def set_on_signals(stop: threading.Event) -> None:
    """Set the event at SIGTERM and Ctrl-C."""

    def handle(number: int, frame: object) -> None:
        # In another thread: the main thread may be waiting for the event at this moment, and hold its lock.
        threading.Thread(target=stop.set).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _log_to(path: Path) -> None:
    """Send all output of this process to the log, and nothing to the terminal of its starter."""
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.rename(path.with_suffix(".log.1"))
    file: IO[str] = path.open("a")
    for fd in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(file.fileno(), fd)
    file.close()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(threadName)s %(message)s"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
