"""What cloud-init reads at boot, over HTTP from the host's loopback: nothing of it is on the machine's disk.

Every machine can reach the host's loopback, so each machine's seed is under a secret of its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from imagepipe.local.machines.api import Seed

HOST_FROM_INSIDE = "10.0.2.2"  # the host's 127.0.0.1, by slirp4netns and by QEMU's user network alike
VENDOR_DATA = {
    # Else "sudo: unable to resolve host".
    "manage_etc_hosts": "localhost",
    # Else cloud-init ends with an error: the base image has no locales.
    "locale": "C.UTF-8",
}


def seed_files(seed: Seed) -> dict[str, bytes]:
    """The documents of cloud-init's NoCloud datasource, by name."""
    meta = {
        "instance-id": seed.instance_id,
        "local-hostname": seed.hostname,
        "public-keys": list(seed.public_keys),
        "region": seed.region,
    }
    return {
        "meta-data": json.dumps(meta).encode(),  # JSON is YAML
        "user-data": seed.user_data,
        "vendor-data": b"#cloud-config\n" + json.dumps(VENDOR_DATA).encode() + b"\n",
    }


class SeedServer:
    """Serves seeds on 127.0.0.1, on the same port as the last time where that is free."""

    def __init__(self, port_file: Path) -> None:
        self._seeds: dict[str, Mapping[str, bytes]] = {}
        seeds = self._seeds

        class Handler(_SeedHandler):
            pass

        Handler.seeds = seeds
        self._server = _bind(Handler, _last_port(port_file))
        self.port = int(self._server.server_address[1])
        port_file.write_text(f"{self.port}\n")
        # shutdown() waits for the next poll.
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="seeds", daemon=True
        )
        self._thread.start()

    def offer(self, secret: str, seed: Seed) -> None:
        self._seeds[secret] = seed_files(seed)

    def withdraw(self, secret: str) -> None:
        self._seeds.pop(secret, None)

    def url(self, secret: str) -> str:
        """Where a machine finds its seed, with a slash at the end."""
        return f"http://{HOST_FROM_INSIDE}:{self.port}/{secret}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _SeedHandler(BaseHTTPRequestHandler):
    seeds: Mapping[str, Mapping[str, bytes]]

    def do_GET(self) -> None:
        _, _, rest = self.path.partition("/")
        secret, _, name = rest.partition("/")
        body = self.seeds.get(secret, {}).get(name)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a path is a secret."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def _last_port(port_file: Path) -> int:
    try:
        return int(port_file.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _bind(handler: type[_SeedHandler], port: int) -> _Server:
    try:
        return _Server(("127.0.0.1", port), handler)
    except OSError:
        if port == 0:
            raise
        return _Server(("127.0.0.1", 0), handler)
