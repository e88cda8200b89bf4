"""The health of a worker over HTTP, for load balancers and Kubernetes: `GET /healthz` answers 200 or 503."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from imagepipe.errors import UsageError

PATH = "/healthz"


@contextmanager
def serve_health(host: str, port: int, health: Callable[[], tuple[bool, Mapping[str, Any]]]) -> Iterator[int]:
    """Answer requests for the health until the block ends; yield the port.

    `health` returns whether the worker is well, and what else there is to say. Raises UsageError if the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_GET(self) -> None:
            self.do_HEAD()

        def do_HEAD(self) -> None:
            if self.path.partition("?")[0] != PATH:
                self._answer(404, {"error": f"only {PATH} is here"})
                return
            is_well, details = health()
            self._answer(200 if is_well else 503, {"status": "ok" if is_well else "unavailable", **details})

        def _answer(self, status: int, content: Mapping[str, Any]) -> None:
            body = json.dumps(content).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: a probe asks every few seconds."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise UsageError(f"listening on {host}:{port}: {error.strerror}", hint="choose another port") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
