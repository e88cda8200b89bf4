"""The instance metadata service, asked over HTTP."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagepipe.files import write_atomically
from imagepipe.local.machines.guest.imds import TOKEN, TTL, Reread, server

Ask = Callable[..., tuple[int, str]]


def _document(**changes: Any) -> dict[str, Any]:
    return {
        "meta-data": {
            "instance-id": "i-1",
            "placement/region": "us-east-1",
            "placement/availability-zone": "us-east-1a",
            "public-keys/0/openssh-key": "ssh-ed25519 AAAA me",
        },
        "identity": '{"instanceId": "i-1"}',
        "user-data": base64.b64encode(b"#!/bin/sh\n").decode(),
        "tokens-required": True,
        **changes,
    }


@pytest.fixture
def serve() -> Iterator[Callable[..., Ask]]:
    services = []

    def start(reread: Callable[[], Any] = lambda: None, **changes: Any) -> Ask:
        service = server(_document(**changes), ("127.0.0.1", 0), reread)
        services.append(service)
        threading.Thread(target=service.serve_forever, daemon=True).start()

        def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            url = f"http://127.0.0.1:{service.server_address[1]}{path}"
            request = urllib.request.Request(url, method=method, headers=names)
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        return ask

    yield start
    for service in services:
        service.shutdown()
        service.server_close()


def _token(ask: Ask) -> dict[str, str]:
    status, token = ask("/latest/api/token", "PUT", **{TTL: "60"})
    assert status == 200
    return {TOKEN: token}


def test_with_a_token_everything_is_answered(serve: Callable[..., Ask]) -> None:
    ask = serve()
    token = _token(ask)
    assert ask("/latest/meta-data/instance-id", **token) == (200, "i-1")
    assert ask("/2021-03-23/meta-data/placement/region", **token) == (200, "us-east-1")
    assert ask("/latest/user-data", **token) == (200, "#!/bin/sh\n")
    assert ask("/latest/dynamic/instance-identity/document", **token) == (200, '{"instanceId": "i-1"}')
    assert ask("/latest/meta-data/public-keys/0/openssh-key", **token) == (200, "ssh-ed25519 AAAA me")


def test_folders_are_listed_as_ec2_lists_them(serve: Callable[..., Ask]) -> None:
    ask = serve()
    token = _token(ask)
    assert ask("/latest/", **token)[1].split() == ["dynamic/", "meta-data/", "user-data"]
    assert ask("/latest/meta-data/", **token)[1].split() == ["instance-id", "placement/", "public-keys/"]
    assert ask("/latest/meta-data/public-keys/", **token)[1] == "0=me"
    assert "latest" in ask("/", **token)[1].split()


def test_without_a_token_it_is_unauthorized_where_the_instance_requires_one(serve: Callable[..., Ask]) -> None:
    assert serve()("/latest/meta-data/instance-id")[0] == 401
    assert serve(**{"tokens-required": False})("/latest/meta-data/instance-id") == (200, "i-1")


def test_an_unknown_token_is_unauthorized_either_way(serve: Callable[..., Ask]) -> None:
    for required in (True, False):
        ask = serve(**{"tokens-required": required})
        assert ask("/latest/meta-data/instance-id", **{TOKEN: "made-up"})[0] == 401


@pytest.mark.parametrize("ttl", ["0", "21601", "-1", "soon"])
def test_a_token_lives_from_a_second_to_six_hours(serve: Callable[..., Ask], ttl: str) -> None:
    assert serve()("/latest/api/token", "PUT", **{TTL: ttl})[0] == 400


def test_no_token_is_given_through_a_proxy(serve: Callable[..., Ask]) -> None:
    assert serve()("/latest/api/token", "PUT", **{TTL: "60", "X-Forwarded-For": "10.0.0.1"})[0] == 403


def test_a_replaced_document_is_obeyed_at_once_and_tokens_stay_valid(serve: Callable[..., Ask], tmp_path: Path) -> None:
    file = tmp_path / "document"

    def write(**changes: Any) -> None:
        write_atomically(file, json.dumps({"service": _document(**changes)}))

    write(**{"tokens-required": False})
    ask = serve(reread=Reread(file, part="service"), **{"tokens-required": False})
    token = _token(ask)
    assert ask("/latest/meta-data/instance-id") == (200, "i-1")
    write()
    assert ask("/latest/meta-data/instance-id")[0] == 401
    assert ask("/latest/meta-data/instance-id", **token) == (200, "i-1")
    write(**{"is-enabled": False})
    assert ask("/latest/meta-data/instance-id", **token)[0] == 403
    file.unlink()
    assert ask("/latest/meta-data/instance-id", **token)[0] == 403
    write(**{"meta-data": {"instance-id": "i-1", "iam/security-credentials/web": "{}"}})
    assert ask("/latest/meta-data/iam/security-credentials/", **token) == (200, "web")
    assert ask("/latest/meta-data/iam/security-credentials/web", **token) == (200, "{}")
    assert ask("/latest/meta-data/placement/region", **token)[0] == 404


def test_an_unknown_path_is_not_found(serve: Callable[..., Ask]) -> None:
    ask = serve(**{"user-data": ""})
    token = _token(ask)
    for path in ("/latest/user-data", "/latest/meta-data/iam/info", "/1999-01-01/meta-data/", "/latest/meta-data/instance-id/x"):  # fmt: skip  # noqa: E501
        assert ask(path, **token)[0] == 404, path
    assert "user-data" not in ask("/latest/", **token)[1].split()
    assert ask("/latest/meta-data/", "POST", **token)[0] == 405
