"""The HTTP server in front of the gateway: cheroot's threads, on loopback alone."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from cheroot import wsgi

from imagepipe.local.aws.protocol.paths import CLOSE, SEVER

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
THREADS = 48  # 50 builds poll every 0.2 to 1 s; an answer takes milliseconds
HEADER_BYTES = 1 << 16


class _WsgiGateway(wsgi.Gateway_10):
    """Lets the application close the connection without an answer, which WSGI itself cannot."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # cheroot declares that it returns None
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ[SEVER] = self._sever
        environ[CLOSE] = self._close
        return environ

    def _close(self) -> None:
        self.req.close_connection = True

    def _sever(self) -> None:
        self.req.close_connection = True
        with suppress(OSError):
            self.req.conn.socket.shutdown(socket.SHUT_RDWR)


def make_server(application: Application, *, host: str = "127.0.0.1", port: int = 0) -> wsgi.Server:
    """Make a server, ready to `prepare()` and `serve()`. With port 0 it takes a free one, which `bind_addr` names."""
    server = wsgi.Server((host, port), application, numthreads=THREADS, request_queue_size=256, shutdown_timeout=5)
    server.timeout = 300  # longer than any client waits between two polls on one connection
    server.max_request_header_size = HEADER_BYTES
    server.keep_alive_conn_limit = 1000
    server.gateway = _WsgiGateway
    # cheroot keeps every server for ever in a table of statistics, with the gateway behind it.
    getattr(logging, "statistics", {}).pop(f"Cheroot HTTPServer {id(server)}", None)
    return server
