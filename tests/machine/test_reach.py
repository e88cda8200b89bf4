"""A program between a build and its machine is found out, and no other computer reaches the local cloud."""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.communicator.sshd import Sshd, sshd
from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

MIDDLE = "127.43.7.9"
MACHINES = re.compile(rb"127\.42\.\d+\.\d+")
SPEC = """\
imagepipe: 1
name: watched
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch: {{region: us-east-1, ssh: {{user: root, timeout: 120s{more}}}}}
provision: [{{shell: "true"}}]
output: {{name: "watched-{{{{ build.id }}}}"}}
"""


class _Lying(BaseHTTPRequestHandler):
    """EC2, but for the addresses of its machines."""

    protocol_version = "HTTP/1.1"
    port: ClassVar[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        onward = http.client.HTTPConnection("127.0.0.1", self.port)
        onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            onward.putheader(name, value)
        onward.endheaders(body)
        answer = onward.getresponse()
        said = MACHINES.sub(MIDDLE.encode(), answer.read())
        onward.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _in_the_middle(bakery: Bakery) -> Iterator[tuple[str, Sshd]]:
    """An endpoint that leads builds to an SSH server of ours, which lets everybody in; it runs nothing for them."""
    port = int(bakery.cloud.endpoint_url.rpartition(":")[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Lying", (_Lying,), {"port": port}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    anybody = ("AuthorizedKeysCommand=/bin/echo %t %k", "AuthorizedKeysCommandUser=nobody", "ForceCommand=/bin/false")
    try:
        with sshd(
            bakery.folder / "middle", f"ListenAddress={MIDDLE}:22", "ForceCommand=/bin/false", *anybody
        ) as middle:
            yield f"http://127.0.0.1:{server.server_port}", middle
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("host_key", ["user-data", "accept-new"])
def test_who_stands_in_the_middle_is_found_out_before_we_log_in(quick_bakery: Bakery, host_key: str) -> None:
    bakery = quick_bakery
    before = bakery.inventory()
    spec = bakery.write("watched.yaml", SPEC.format(more="" if host_key == "user-data" else f", host_key: {host_key}"))
    with _in_the_middle(bakery) as (endpoint, middle):
        built = bakery(
            "build",
            str(spec),
            "--endpoint-url",
            endpoint,
            AWS_ACCESS_KEY_ID=bakery.cloud.access_key_id,
            AWS_SECRET_ACCESS_KEY=bakery.cloud.secret_access_key,
        )
        log = middle.log
    assert "Traceback" not in built.err
    assert bakery.inventory() == before
    if host_key == "accept-new":  # who trusts the first answer is taken in: so the one in the middle is a good one
        assert "Accepted publickey for root" in log
        return
    assert built.code == 6, built.err
    assert "which is not the expected one" in built.err
    assert "or another machine answers at its address" in built.err
    assert "Connection closed by" in log
    assert "publickey" not in log, "no key of ours was shown"


def _listening() -> set[str]:
    """TCP sockets of this computer that listen for others than itself; not those of other tests, at work beside us."""
    found: set[str] = set()
    of_tests = _sockets_of_tests()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
            words, _, port = local.partition(":")
            packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
            address = ipaddress.ip_address(packed)
            is_ours = (getattr(address, "ipv4_mapped", None) or address).is_loopback
            if state == "0A" and not is_ours and inode not in of_tests:
                found.add(f"{address} port {int(port, 16)}")
    return found


def _sockets_of_tests() -> set[str]:
    """Inodes of what pytest's own processes have open: tests bind every address themselves."""
    found: set[str] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getppid() or int(folder.name) == os.getpid():
                links = [str(path.readlink()) for path in (folder / "fd").iterdir()]
                found |= {link[8:-1] for link in links if link.startswith("socket:[")}
    return found


def test_a_cloud_with_machines_listens_on_loopback_alone(bakery: Bakery, quick_bakery: Bakery) -> None:
    before = _listening()
    for cloud in (bakery, quick_bakery):
        image = cloud.client().describe_images(Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}])
        with cloud.instance(image["Images"][0]["ImageId"], "us-east-1", ports=(8080,)) as booted:
            booted.sh("python3 -m http.server 8080 --bind 0.0.0.0 >/dev/null 2>&1 & sleep 1")
            assert _listening() == before
