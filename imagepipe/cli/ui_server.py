"""The HTTP server of `imagepipe ui`: read-only, on loopback, for the browser that got the token.

Any program of this computer can reach a port of loopback, and so can a web page in the user's browser. So every request
needs the token (in the address at first, then in a cookie), and the Host and Origin headers must be ours: a page of
another site can neither read anything nor pretend to be us by DNS rebinding.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from imagepipe.cli.options import CloudOptions
from imagepipe.cli.run_report import run_report
from imagepipe.cli.run_store import past_runs, run_of, started_of
from imagepipe.cli.runs import images_by_spec, run_row, state
from imagepipe.clock import SystemClock
from imagepipe.engine.journal import JournalState, read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.errors import ImagepipeError, UsageError
from imagepipe.report import site
from imagepipe.report.html import page

COOKIE = "imagepipe"
MOST_RUNS = 500
POLL_SECONDS = {True: 1.0, False: 5.0}
"""Interval of looking for something new: of runs on this computer, and of those in a bucket."""
ALIVE_SECONDS = 15.0
"""Interval of a comment to a silent browser, by which a closed one is noticed."""


class UiServer(ThreadingHTTPServer):
    """Serves the runs of a store; a thread for each request."""

    daemon_threads = True

    def __init__(self, port: int, store: JournalStore, token: str, cloud: CloudOptions | None = None) -> None:
        """`cloud` has the profile and endpoint for questions about images, if they are not those of the run."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.store, self.token, self.cloud = store, token, cloud or CloudOptions()
        self.clock = SystemClock()
        self.is_over = False
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.cookie = f"{COOKIE}-{self.server_port}"  # browsers send a cookie to every port of a host

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about a browser that has gone between two requests; the log shows any other error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"


def _made(past: JournalState) -> set[str]:
    """Return the ids of the images that a run kept."""
    return {str(image.get("id")) for images in images_by_spec(past).values() for image in images}


class _Refused(Exception):
    """A request that gets no page."""

    def __init__(self, code: int, title: str, text: str) -> None:
        super().__init__(title)
        self.code, self.title, self.text = code, title, text


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise _Refused(400, "This is no address", str(error)) from error


class _Handler(BaseHTTPRequestHandler):
    server: UiServer
    server_version = "imagepipe"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            try:
                self._answer()
            except _Refused as refused:
                self._send(site.message_page(refused.title, refused.text), code=refused.code)
            except ImagepipeError as error:
                code = 404 if isinstance(error, UsageError) else 500
                self._send(site.message_page("This cannot be shown", str(error)), code=code)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the browser has gone

    def _answer(self) -> None:
        if self.headers.get("Host", "") not in self.server.hosts:
            raise _Refused(421, "Not this server", "The Host header is not one of imagepipe ui.")
        origin = self.headers.get("Origin")
        if origin is not None and _split(origin).netloc not in self.server.hosts:
            raise _Refused(403, "Not for other pages", "Another page asked for this.")
        url = _split(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if "token" in query:
            self._log_in(query["token"])
            return
        self._check_cookie()
        parts = [part for part in url.path.split("/") if part]
        match parts:
            case []:
                self._send(self._runs())
            case ["images"]:
                self._send(site.images_page(self._rows()[0]))
            case ["images", image]:
                self._send(self._image(image))
            case ["compare"]:
                self._send(self._compared(query))
            case ["changes"]:
                self._stream(lambda: False, self._list_mark)
            case ["runs", run]:
                past = read(self.server.store, run_of(self.server.store, run))
                self._send(site.run_page(past.run.id, past.run.specs, state(past)))
            case ["runs", run, "report"]:
                report = run_report(self.server.store, run_of(self.server.store, run))
                self._send(page(report), policy="frame-ancestors 'self'")
            case ["runs", run, "changes"]:
                self._follow(run_of(self.server.store, run))
            case _:
                raise _Refused(404, "There is no such page", self.path)

    def _log_in(self, token: str) -> None:
        self._check_token(token)
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"{self.server.cookie}={token}; Path=/; HttpOnly; SameSite=Strict")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _check_cookie(self) -> None:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            found = None
        self._check_token(found.value if found else "")

    def _check_token(self, token: str) -> None:
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(403, "Who are you?", "Open the address that `imagepipe ui` has printed; it has a token.")

    def _runs(self) -> str:
        return site.runs_page(*self._rows())

    def _rows(self) -> tuple[list[dict[str, object]], list[tuple[str, str]]]:
        store = self.server.store
        found = sorted(past_runs(store), key=lambda pair: started_of(store, *pair), reverse=True)[:MOST_RUNS]
        rows = [run_row(past, self.server.clock) for _, past in found if not isinstance(past, ImagepipeError)]
        return rows, [(run, str(past)) for run, past in found if isinstance(past, ImagepipeError)]

    def _image(self, id: str) -> str:
        """Ask the cloud of an image's run for its copies, lineage and uses."""
        store, clock = self.server.store, self.server.clock
        runs = [past for _, past in past_runs(store) if not isinstance(past, ImagepipeError)]
        past = next((past for past in runs if id in _made(past)), None)
        if past is None:
            raise _Refused(404, "There is no such image", f"No run here has made {id}.")
        from imagepipe.cli.cloud import open_cloud, recorded_target  # loads the library of the cloud
        from imagepipe.cli.images_show import look_up, to_json

        with open_cloud(recorded_target(past.run.cloud, self.server.cloud), region=None, clock=clock) as regions:
            found = look_up(id, regions, (), store, clock.now())
        return site.image_page(to_json(found, store), [f"{name}: {error}" for name, error in found.failed.items()])

    def _compared(self, query: Mapping[str, str]) -> str:
        store = self.server.store
        earlier, later = (run_report(store, run_of(store, query.get(name, ""))) for name in ("a", "b"))
        return site.compare_page(earlier, later)

    def _list_mark(self) -> object:
        store = self.server.store
        return [
            (run, store.is_local and store.is_held(run)) for run in store.runs()
        ]  # a bucket would be asked for each

    def _follow(self, run: str) -> None:
        store, reader, count = self.server.store, self.server.store.event_reader(run), 0
        for _ in reader.new():
            pass

        def mark() -> int:
            nonlocal count
            count += sum(1 for _ in reader.new())
            return count

        self._stream(lambda: not store.is_held(run), mark)

    def _stream(self, is_over: Callable[[], bool], mark: Callable[[], object]) -> None:
        """Send an event whenever the mark is another one, until it is over or the browser has gone."""
        last, sent = mark(), time.monotonic()  # first, so that whatever comes after our answer is news
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while not self.server.is_over:
            was_over = is_over()
            if (now := mark()) != last:
                last, sent = now, time.monotonic()
                self._write("event: change\ndata: new\n\n")
            if was_over:
                self._write("event: end\ndata: over\n\n")
                return
            if time.monotonic() - sent > ALIVE_SECONDS:
                sent = time.monotonic()
                self._write(": alive\n\n")
            time.sleep(POLL_SECONDS[self.server.store.is_local])

    def _write(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()

    def _send(self, text: str, *, code: int = 200, policy: str | None = None) -> None:
        content = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", policy or site.policy())
        for name, value in (
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the address of the first request has the token."""
