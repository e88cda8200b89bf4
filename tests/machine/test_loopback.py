"""Machines reach their cloud's endpoint and the metadata service, and nothing else on this computer's loopback."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from imagepipe.local.machines.nspawn.driver import ContainerDriver
from imagepipe.local.store import Store
from tests.machine.bakery import Bakery
from tests.machine.guests import SSH, NewGuest

pytestmark = pytest.mark.machine


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"secret")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def service() -> Iterator[int]:
    """A service on this computer's loopback; its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_a_machine_reaches_the_endpoint_and_no_other_service_of_loopback(
    driver: ContainerDriver, new_guest: NewGuest, store: Store
) -> None:
    with service() as endpoint, service() as other:
        (store.root / "port").write_text(f"{endpoint}\n")
        guest = new_guest()
        driver.start(guest.machine, [SSH])
        ask = "curl -s -m 5 http://{}:{}/ || echo no"
        guest.run("cloud-init status --wait")
        assert guest.run(ask.format("169.254.169.254", endpoint)) == "secret"
        for address in ("10.0.2.2", "127.0.0.1", "127.42.0.1", "10.0.2.100", "169.254.169.254", "169.254.169.253"):
            assert guest.run(ask.format(address, other)) == "no\n", address
        assert guest.run(ask.format("10.0.2.2", endpoint)) == "no\n"


def test_an_instance_asks_the_endpoint_by_the_name_that_builds_use(bakery: Bakery) -> None:
    [image] = bakery.client().describe_images(
        Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}]
    )["Images"]
    with bakery.instance(image["ImageId"], "us-east-1") as booted, service() as other:
        url = bakery.cloud.instance_endpoint_url
        said = booted.sh(f"curl -s -o /dev/null -w '%{{http_code}}' -m 5 {url}/nothing")
        assert said in ("400", "403", "404"), "S3 has answered"
        assert booted.sh(f"curl -s -m 5 http://10.0.2.2:{other}/ || echo no") == "no"
