"""The HTTP server in front of the gateway: cheroot's threads, on loopback alone."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import Any

from cheroot import wsgi

from imagepipe.local.aws.app import CLOSE, SEVER, Gateway

THREADS = 24  # twenty builds side by side, each with a call under way, and something over


class _WsgiGateway(wsgi.Gateway_10):
    """Lets the application close the connection without an answer, which WSGI itself cannot."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # cheroot's hints are of its base class
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


def server(gateway: Gateway, *, host: str = "127.0.0.1", port: int = 0) -> wsgi.Server:
    """A server that is ready to `prepare()` and `serve()`; port 0 is any free one, told by `bind_addr` then."""
    made = wsgi.Server((host, port), gateway, numthreads=THREADS, request_queue_size=128, timeout=60)
    made.gateway = _WsgiGateway
    # cheroot keeps every server for ever in a table of statistics, with the gateway behind it.
    getattr(logging, "statistics", {}).pop(f"Cheroot HTTPServer {id(made)}", None)
    return made
