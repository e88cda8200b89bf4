"""A serving process without machines: `python fake_cloud.py --instances N ARGUMENTS OF serve`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from cheroot import wsgi

from imagepipe.errors import LocalCloudError
from imagepipe.local.daemon import main as daemon
from imagepipe.local.store import Store

IDLE_SECONDS = 0.4


class FakeApplication:
    """Answers every request with its process id; counts starts in a file of the store."""

    def __init__(self, store: Store, instances: int) -> None:
        self._store = store
        self._instances = instances

    def recover(self) -> None:
        with (self._store.root / "starts").open("a") as file:
            file.write("started\n")

    def instances(self) -> int:
        return 0 if (self._store.root / "terminated").exists() else self._instances

    def close(self) -> None:
        (self._store.root / "closed").touch()

    def __call__(self, environ: daemon.Environ, start_response: daemon.StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello"]


def main() -> int:
    instances, arguments = sys.argv[2], sys.argv[3:]

    def build(store: Store) -> daemon.Cloud:
        if instances == "fail":
            raise LocalCloudError("starting: it cannot be", hint="try another")
        if instances == "crash":
            raise RuntimeError("a bug")
        application = FakeApplication(store, int(instances))
        return daemon.Cloud(
            application=application,
            server=lambda app, address, port: wsgi.Server((address, port), app),
            driver_name="fake",
            used_bytes=lambda: 42,
            power_off=lambda: (store.root / "powered-off").touch(),
            close=lambda: None,
        )

    return daemon.main(arguments, build=build, idle_seconds=IDLE_SECONDS)


def command(instances: int | str) -> list[str]:
    """What `connect` starts instead of the real one."""
    return [sys.executable, str(Path(__file__)), "--instances", str(instances)]


if __name__ == "__main__":
    sys.exit(main())
