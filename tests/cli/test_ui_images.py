"""The page of an image in `imagepipe ui`: its copies, its lineage and its users, as the cloud has them."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagepipe.cli.ui_server import UiServer
from imagepipe.clock import SystemClock
from imagepipe.cloud import tags
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.journal import Journal, RunRecord
from tests.local.aws import harness
from tests.retention.baked import HOME, Workshop
from tests.retention.conftest import workshop

__all__ = ["workshop"]


@pytest.fixture
def server(workshop: Workshop, tmp_path: Path) -> Iterator[UiServer]:
    with UiServer(0, FileStore(tmp_path / "runs"), "the-token") as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.is_over = True
        server.shutdown()


def _run(server: UiServer, workshop: Workshop, run: str, image: str, *, endpoint: str = "") -> None:
    """Write the journal of a run that made an image."""
    cloud = {"endpoint_url": endpoint or workshop.account.cloud.endpoint}
    record = RunRecord(run, "2026-11-23T03:00:00Z", ("web",), {}, cloud)
    journal = Journal.create(server.store, record, SystemClock())
    kept = [{"id": image, "region": HOME, "name": f"web-{run}"}]
    journal.note("output", stage="keep", fingerprint="f", value=kept)
    journal.note("finished", outcome="succeeded", held=[])
    journal.close()


def _get(server: UiServer, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=300)
    try:
        connection.request("GET", path, headers={"Cookie": f"{server.cookie}=the-token"})
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_page_of_an_image_has_its_copies_its_lineage_and_its_users(server: UiServer, workshop: Workshop) -> None:
    debian = harness.base_image(workshop.client())
    image = workshop.bake("aaaaaaa1", **{tags.SOURCE: debian, tags.COMMIT: "c0ffee"})
    copied = workshop.copy(image)
    layer = workshop.bake("bbbbbbb2", "app", **{tags.SOURCE: image})
    user = harness.running(workshop.client(), ImageId=image)
    _run(server, workshop, "aaaaaaa1", image)
    code, listed = _get(server, "/images")
    assert code == 200
    assert f'href="/images/{image}"' in listed
    code, page = _get(server, f"/images/{image}")
    assert code == 200, page
    for text in ("web-aaaaaaa1", "c0ffee", debian, copied, layer, f"instance {user} in {HOME}", "/runs/aaaaaaa1"):
        assert text in page


def test_an_image_that_is_gone_or_unknown_gets_a_page_that_says_so(server: UiServer, workshop: Workshop) -> None:
    _run(server, workshop, "aaaaaaa1", "ami-0123456789abcdef0")
    code, page = _get(server, "/images/ami-0123456789abcdef0")
    assert code == 500
    assert "has no image ami-0123456789abcdef0" in page
    code, page = _get(server, "/images/ami-00000000000000000")
    assert code == 404
    assert "No run here has made" in page


def test_a_cloud_that_does_not_answer_gets_a_page_that_says_so(
    server: UiServer, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    _run(server, workshop, "aaaaaaa1", "ami-0123456789abcdef0", endpoint="http://127.0.0.1:9")
    code, page = _get(server, "/images/ami-0123456789abcdef0")
    assert code == 500
    assert "127.0.0.1:9" in page
