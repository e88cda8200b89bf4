"""The local cloud for other machines: only by an address that is asked for, and only with the token."""

from __future__ import annotations

import io
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from click.testing import CliRunner

from imagepipe.cli.local import local
from imagepipe.errors import UsageError
from imagepipe.local.daemon import main
from imagepipe.local.daemon.rendezvous import Serving
from imagepipe.local.store import Store
from tests.local.aws.harness import KEY_ID, SECRET, Cloud

TOKEN = "0123456789abcdef-token"
OTHER_ADDRESS = "127.42.255.7"
"""Loopback too, and no address that the gateway knows itself by."""


@contextmanager
def _served(cloud: Cloud, folder: Path) -> Iterator[Serving]:
    from imagepipe.local.aws.http_server import make_server

    def build(store: Store) -> main.Cloud:
        return main.Cloud(
            application=cloud.gateway,
            server=lambda app, address, port: make_server(app, host=address, port=port),
            driver_name="fake",
            used_bytes=lambda: 0,
            power_off=lambda: None,
            close=lambda: None,
        )

    stop, ready = threading.Event(), threading.Event()
    found: list[Serving] = []

    def tell(here: Serving) -> None:
        found.append(here)
        ready.set()

    def run() -> None:
        store = Store.open(folder / "store", base_cache=None, driver=None)
        beyond = main.ExternalAddress(OTHER_ADDRESS, TOKEN)
        main.serve(store, port=None, ready=tell, stop=stop, build=build, idle_seconds=None, external=beyond)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        yield found[0]
    finally:
        stop.set()
        thread.join()


def _client(service: str, address: str, port: int, token: str | None) -> Any:
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=f"http://{address}:{port}",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": 1}, signature_version="v4" if service == "ec2" else "s3v4"),
    )


def test_another_address_answers_to_the_token_alone_and_loopback_as_ever(cloud: Cloud, tmp_path: Path) -> None:
    with _served(cloud, tmp_path) as here:
        assert _client("ec2", "127.0.0.1", here.port, None).describe_regions()["Regions"]
        assert _client("ec2", OTHER_ADDRESS, here.port, TOKEN).describe_regions()["Regions"]
        s3 = _client("s3", OTHER_ADDRESS, here.port, TOKEN)
        s3.create_bucket(Bucket="ours")
        url = s3.generate_presigned_url("list_objects_v2", Params={"Bucket": "ours"})
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"<Name>ours</Name>" in answer.read()
        for token in (None, "0123456789abcdef-other"):
            with pytest.raises(ClientError) as refused:
                _client("s3", OTHER_ADDRESS, here.port, token).put_object(Bucket="ours", Key="k", Body=bytes(1 << 20))
            assert refused.value.response["Error"]["Code"] == "AccessDenied"
            with pytest.raises(ClientError) as refused:
                _client("ec2", OTHER_ADDRESS, here.port, token).describe_regions()
            assert refused.value.response["Error"]["Code"] == "AccessDenied"
            assert "AWS_SESSION_TOKEN" in str(refused.value)


class _Body(io.RawIOBase):
    """One that does not end for long, and says how much of it somebody wanted at once."""

    def __init__(self, size: int) -> None:
        self.left, self.most = size, 0

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        self.most = max(self.most, wanted)
        self.left -= wanted
        return bytes(min(wanted, 1 << 20))


@pytest.mark.parametrize(
    ("token", "path", "is_kept"),
    [("x" * 20, "/b/k", False), ("", "/b/k", False), (TOKEN, "/_imagepipe/faults", False), (TOKEN, "/b/k", True)],
)
def test_the_body_of_a_request_that_is_refused_at_the_door_is_never_in_memory(
    token: str, path: str, is_kept: bool
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        content.append(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)))
        return []

    content: list[bytes] = []
    body = _Body(8 << 20)
    length = {"wsgi.input": body, "CONTENT_LENGTH": str(body.left)}
    environ = {**length, "PATH_INFO": path, "HTTP_X_AMZ_SECURITY_TOKEN": token}
    list(main._TokenApp(application, TOKEN)(environ, lambda *_: None))
    assert any(content) is is_kept
    assert (body.most > 1 << 20) is is_kept
    assert body.left == 0


def test_chunks_of_a_request_without_the_token_are_not_read(cloud: Cloud, tmp_path: Path) -> None:
    with (
        _served(cloud, tmp_path) as here,
        socket.create_connection((OTHER_ADDRESS, here.port), timeout=10) as connection,
    ):
        head = b"PUT /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"fffffffff\r\n")  # 64 GiB would follow
        assert b" 403 " in connection.recv(4096).partition(b"\r\n")[0]


def test_headers_without_end_are_refused(cloud: Cloud, tmp_path: Path) -> None:
    with (
        _served(cloud, tmp_path) as here,
        socket.create_connection((OTHER_ADDRESS, here.port), timeout=10) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (1 << 17))
        assert b" 413 " in connection.recv(4096).partition(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/_imagepipe/process/status", "/_imagepipe/faults", "/%5Fimagepipe/accounts"])
def test_the_clouds_own_paths_do_not_answer_beyond_loopback(cloud: Cloud, tmp_path: Path, path: str) -> None:
    with _served(cloud, tmp_path) as here:
        url = f"http://{OTHER_ADDRESS}:{here.port}{path}"
        request = urllib.request.Request(url, headers={"X-Amz-Security-Token": TOKEN})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        with refused.value as answer:
            assert answer.code == 403


@pytest.mark.parametrize(
    ("address", "token", "says"),
    [
        ("0.0.0.0", None, "open to other machines, because IMAGEPIPE_LOCAL_TOKEN is not set"),
        ("::", "short", "IMAGEPIPE_LOCAL_TOKEN has fewer than 16 characters"),
        ("example.org", TOKEN, "not an IP address"),
        ("127.0.0.1", TOKEN, "loopback is always served"),
    ],
)
def test_serve_refuses_an_address_that_would_open_it_to_everybody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, token: str | None, says: str
) -> None:
    monkeypatch.delenv("IMAGEPIPE_LOCAL_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("IMAGEPIPE_LOCAL_TOKEN", token)
    result = CliRunner().invoke(local, ["--store", str(tmp_path), "serve", "--address", address])
    assert isinstance(result.exception, UsageError)
    assert says in result.exception.message
    assert token is None or token not in result.output + str(result.exception)
