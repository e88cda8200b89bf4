"""HTTP requests of a test, from a real sshd to a real server, with every client that an instance may have."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imagepipe.provision.checks.content import ExpectedText
from imagepipe.provision.checks.http import CheckHttp
from tests.communicator.sshd import Sshd, sshd
from tests.provision.checks.conftest import Bench

BODY = "<h1>héllo 'wörld' \"$(touch /tmp/never)\"</h1>\n"


class Pages(BaseHTTPRequestHandler):
    """A site: a page, a redirect, an echo of the request, a large page, and nothing else."""

    def _answer(self) -> None:
        if self.path == "/moved":
            self.send_response(301)
            self.send_header("Location", "/")
            self.end_headers()
            return
        if self.path.startswith("/echo"):
            self._send(200, f"{self.command} {self.path} {self.headers['Authorization']} {self.headers['Host']}\n")
        elif self.path == "/large":
            self._send(200, "x" * (2 << 20) + "the end\n")
        elif self.path == "/":
            self._send(200, BODY)
        else:
            self._send(404, "nothing here\x1b[2J\n")

    do_GET = do_POST = do_HEAD = _answer  # noqa: N815 - names of the base class

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        return None


@contextmanager
def _served(context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with _served() as port:
        yield port


def _check(
    bench: Bench,
    url: str,
    *,
    status: tuple[int, ...] = (200,),
    contains: str | None = None,
    matches: str | None = None,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    insecure: bool = False,
    within: float = 0.0,
) -> CheckHttp:
    text = ExpectedText(contains, matches)
    return CheckHttp(
        *bench.base(within_seconds=within),
        url=url,
        status=status,
        text=text,
        method=method,
        insecure=insecure,
        headers=headers or {},
    )


CLIENTS = ("curl", "python3", "bash", "wget")


@pytest.fixture(params=CLIENTS)
def machine(request: pytest.FixtureRequest, only: Callable[..., str], tmp_path: Path) -> Iterator[Sshd]:
    """A machine that has only one of the clients."""
    if request.param == "python3":
        option = only()
        (tmp_path / "only/python3").symlink_to(Path(sys.executable).resolve())
    else:
        option = only(request.param)
    with sshd(tmp_path / "machine", option) as server:
        yield server


def test_every_client_sees_the_status_and_the_body(bench: Bench, machine: Sshd, port: int) -> None:
    url = f"http://127.0.0.1:{port}/"
    bench.run(_check(bench, url, contains="héllo 'wörld' \"$(touch", matches="^<h1>.*</h1>$"), machine)
    assert not Path("/tmp/never").exists()
    failed = bench.failure(_check(bench, f"{url}nowhere"), machine)
    first, *body = str(failed).splitlines()
    assert first.startswith(f"test 'it' (web.yaml:9): GET {url}nowhere: expected status 200, got 404 Not Found")
    has_body = not (machine.folder.parent / "only/wget").exists()  # wget drops the body of an error
    assert body == (["    nothing here\N{REPLACEMENT CHARACTER}[2J"] if has_body else [])
    bench.run(_check(bench, f"{url}nowhere", status=(200, 404)), machine)


def test_every_client_reports_a_server_that_does_not_answer(bench: Bench, machine: Sshd) -> None:
    failed = bench.failure(_check(bench, "http://127.0.0.1:9/"), machine)
    assert "GET http://127.0.0.1:9/: no response:" in str(failed)
    assert "starts at boot" in (failed.hint or "")


def test_every_client_keeps_the_status_of_a_redirect(bench: Bench, machine: Sshd, port: int) -> None:
    bench.run(_check(bench, f"http://127.0.0.1:{port}/moved", status=(301,)), machine)


@pytest.mark.parametrize("machine", ["curl", "python3", "bash"], indirect=True)
def test_method_and_headers_reach_the_server(bench: Bench, machine: Sshd, port: int) -> None:
    headers = {"Authorization": 'Bearer a"b\\c $(x)', "Host": "example.com"}
    url = f"http://127.0.0.1:{port}/echo?a=[1]&b='2'"
    wanted = """POST /echo?a=[1]&b='2' Bearer a"b\\c $(x) example.com"""
    bench.run(_check(bench, url, method="POST", headers=headers, contains=wanted), machine)
    bench.run(_check(bench, url, method="HEAD"), machine)
    bench.run(_check(bench, url, contains=f"None 127.0.0.1:{port}"), machine)


@pytest.mark.parametrize("machine", ["curl", "python3", "bash"], indirect=True)
def test_only_the_first_mebibyte_of_a_body_is_searched(bench: Bench, machine: Sshd, port: int) -> None:
    url = f"http://127.0.0.1:{port}/large"
    bench.run(_check(bench, url, contains="xxx"), machine)
    assert "to contain 'the end' in its first 1 MiB" in str(
        bench.failure(_check(bench, url, contains="the end"), machine)
    )


def test_a_client_that_cannot_send_the_request_is_not_used(
    bench: Bench, only: Callable[..., str], tmp_path: Path, port: int
) -> None:
    with sshd(tmp_path / "machine", only("wget")) as server:
        failed = bench.failure(_check(bench, f"http://127.0.0.1:{port}/", headers={"A": "b"}, within=60), server)
    assert "no program that can send this request: curl, python3" in str(failed)
    assert "tried" not in str(failed), "more attempts would not help"


def test_headers_are_in_no_argument(bench: Bench, tmp_path: Path, only: Callable[..., str], port: int) -> None:
    option = only("curl")
    (tmp_path / "only/curl").unlink()
    seen = tmp_path / "arguments"
    (tmp_path / "only/curl").write_text(
        f'#!/bin/sh\nps() {{ :; }}\nprintf "%s\\n" "$@" >{seen}\nexec /usr/bin/curl "$@"\n'
    )
    (tmp_path / "only/curl").chmod(0o755)
    with sshd(tmp_path / "machine", option) as server:
        url = f"http://127.0.0.1:{port}/echo"
        bench.run(_check(bench, url, headers={"Authorization": "hunter2"}, contains="hunter2"), server)
    assert "--url" in seen.read_text()
    assert "hunter2" not in seen.read_text()
    assert "hunter2" not in repr(_check(bench, url, headers={"Authorization": "hunter2"}))


def test_a_certificate_is_verified_unless_the_test_is_insecure(bench: Bench, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    words += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with _served(context) as port:
        url = f"https://localhost:{port}/"
        failed = bench.failure(_check(bench, url))
        assert "insecure: true" in (failed.hint or "")
        bench.run(_check(bench, url, insecure=True, contains="héllo"))


def test_a_service_that_is_late_is_waited_for(bench: Bench) -> None:
    with _served() as port:
        pass  # now the port is known and closed

    def serve() -> None:
        server = ThreadingHTTPServer(("127.0.0.1", port), Pages)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    timer = threading.Timer(1.5, serve)
    timer.start()
    bench.run(_check(bench, f"http://127.0.0.1:{port}/", contains="héllo", within=30))
    assert [line for line in bench.said() if line.startswith("not yet, ") and "no response" in line]


def test_a_test_that_never_holds_names_its_attempts_and_its_time(bench: Bench) -> None:
    failed = bench.failure(_check(bench, "http://127.0.0.1:9/", within=2))
    assert "(tried 3 times in 2 s)" in str(failed) or "(tried 2 times in 2 s)" in str(failed)
    assert failed.exit_code == 7
