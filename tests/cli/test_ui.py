"""`imagepipe ui`: the pages, and who may read them."""

from __future__ import annotations

import http.client
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagepipe.cli.ui_server import UiServer
from imagepipe.clock import SystemClock
from imagepipe.engine import events as ev
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.journal import Journal, RunRecord
from tests.report.browser import browser

AT = datetime(2026, 11, 23, 3, tzinfo=UTC)
TOKEN = "the-token"
ODD = "<script>alert(1)</script>"
BROKEN = """(() => [...document.querySelectorAll(".badge, td code, .image")].filter((each) => {
  const range = document.createRange();
  range.selectNodeContents(each);
  return range.getClientRects().length > 1;
}).map((each) => each.textContent))()"""
WEST = {"region": "us-west-2", "name": "web-1"}


def _create(store: FileStore, run: str, *, spec: str = "web", ends: bool = True) -> Journal:
    journal = Journal.create(store, RunRecord(run, f"2026-11-23T03:00:0{run[-1]}Z", (spec,), {}, {}), SystemClock())
    with journal.event_sink() as sink:
        sink(ev.RunStarted(AT, run, (spec,)))
        sink(ev.StageStarted(AT, run, "launch", f"launch {ODD}"))
        sink(ev.StageFinished(AT, run, "launch", float(run[-1])))
    if ends:
        journal.note("output", stage="keep", fingerprint="f", value=[{"id": f"ami-{run}", **WEST}])
        journal.note("finished", outcome="succeeded", held=[])
        journal.close()
    return journal


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path / "runs")
    _create(store, "aaaaaaa1")
    _create(store, "bbbbbbb2", spec=ODD)
    return store


@pytest.fixture
def server(store: FileStore) -> Iterator[UiServer]:
    with UiServer(0, store, TOKEN) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.is_over = True
        server.shutdown()


def _get(server: UiServer, path: str, **headers: str) -> tuple[int, str, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=300)
    try:
        connection.request("GET", path, headers={"Cookie": f"{server.cookie}={TOKEN}", **headers})
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode(), answer
    finally:
        connection.close()


def test_the_token_in_the_address_becomes_a_cookie_that_no_script_and_no_other_site_can_use(server: UiServer) -> None:
    code, _, answer = _get(server, f"/?token={TOKEN}", Cookie="")
    assert code == 303
    assert answer.headers["Location"] == "/"
    assert answer.headers["Set-Cookie"] == f"{server.cookie}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/", {"Cookie": ""}, 403),
        ("/", {"Cookie": "imagepipe=wrong"}, 403),
        ("/", {"Cookie": "a=b=c;;=\x7f"}, 403),
        ("/?token=wrong", {"Cookie": ""}, 403),
        ("/", {"Host": "evil.example"}, 421),
        ("/", {"Host": "127.0.0.1"}, 421),
        ("/", {"Origin": "https://evil.example"}, 403),
        ("/", {"Origin": "null"}, 403),
    ],
)
def test_nobody_else_reads_a_page(server: UiServer, path: str, headers: dict[str, str], code: int) -> None:
    seen, text, _ = _get(server, path, **headers)
    assert seen == code
    assert "aaaaaaa1" not in text
    assert TOKEN not in text


def test_every_page_has_the_headers_that_a_browser_needs_to_be_strict(server: UiServer) -> None:
    for path in ("/", "/images", "/runs/aaaaaaa1", "/compare?a=aaaaaaa1&b=bbbbbbb2"):
        code, _, answer = _get(server, path)
        assert code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_runs_are_listed_newest_first_and_their_names_are_only_text(server: UiServer) -> None:
    _, text, _ = _get(server, "/")
    assert text.index("bbbbbbb2") < text.index("aaaaaaa1")
    assert ODD not in text
    assert "&lt;script&gt;" in text


def test_the_images_of_runs_are_listed_with_the_runs_and_on_a_page_of_their_own(server: UiServer) -> None:
    _, runs, _ = _get(server, "/")
    assert "ami-bbbbbbb2 (us-west-2)" in runs
    _, images, _ = _get(server, "/images")
    assert "<code>ami-bbbbbbb2</code></a></td><td>us-west-2</td><td>web-1</td>" in images


def test_a_run_is_shown_with_its_report_and_found_by_latest(server: UiServer) -> None:
    assert 'src="/runs/aaaaaaa1/report"' in _get(server, "/runs/aaaaaaa1")[1]
    code, text, answer = _get(server, "/runs/latest/report")
    assert code == 200
    assert "Run bbbbbbb2" in text
    assert ODD not in text
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'self'"


def test_two_runs_are_compared_stage_by_stage(server: UiServer) -> None:
    _, text, _ = _get(server, "/compare?a=aaaaaaa1&b=bbbbbbb2")
    assert "1.0 s" in text
    assert "2.0 s" in text
    assert '<td class="number slower">+1.0 s</td>' in text


@pytest.mark.parametrize("path", ["/nothing", "/runs/ffffffff", "/runs/..%2f..", "/compare?a=ffffffff&b=x"])
def test_a_page_that_does_not_exist_says_so(server: UiServer, path: str) -> None:
    code, text, _ = _get(server, path)
    assert code == 404
    assert "<h2>" in text


def test_a_journal_that_cannot_be_read_is_named_beside_the_others(server: UiServer, store: FileStore) -> None:
    (store.folder("aaaaaaa1") / "journal.jsonl").write_text("nonsense\n")
    code, text, _ = _get(server, "/")
    assert code == 200
    assert "Runs that cannot be read" in text
    assert "bbbbbbb2" in text


def test_only_reading_is_possible(server: UiServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=300)
    connection.request("POST", "/", headers={"Cookie": f"{server.cookie}={TOKEN}"})
    with connection.getresponse() as answer:
        assert answer.status == 501
    connection.close()


def test_a_run_in_progress_tells_the_browser_of_news_and_of_its_end(server: UiServer, store: FileStore) -> None:
    journal = _create(store, "ccccccc3", ends=False)
    assert "/runs/ccccccc3/changes" in _get(server, "/runs/ccccccc3")[1]
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=300)
    try:
        connection.request("GET", "/runs/ccccccc3/changes", headers={"Cookie": f"{server.cookie}={TOKEN}"})
        with connection.getresponse() as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            with journal.event_sink() as sink:
                sink(ev.StageStarted(AT, "ccccccc3", "step-1", "install"))
            assert answer.readline() == b"event: change\n"
            journal.close()
            assert b"event: end\n" in answer.read()
    finally:
        journal.close()
        connection.close()


def test_a_browser_opens_the_printed_address_and_sees_the_runs(server: UiServer, tmp_path: Path) -> None:
    with browser(tmp_path) as chromium:
        chromium.open(server.url, width=1000)
        chromium.wait("document.body?.innerText.includes('bbbbbbb2')")
        assert chromium.evaluate("location.search") == "", "the token does not stay in the address"
        assert chromium.evaluate(BROKEN) == [], "a word that is broken into two lines"
        chromium.evaluate("document.querySelector('a[href=\"/runs/aaaaaaa1\"]').click()")
        chromium.wait("document.querySelector('iframe')?.contentDocument?.body?.innerText?.includes('Run aaaaaaa1')")
        assert chromium.problems() == []


def test_the_command_prints_the_address_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from imagepipe.cli.main import run; run()", "ui"]
    environment = {"XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 0


@pytest.mark.parametrize("line", ["GET http://[ HTTP/1.1", "GET / HTTP/1.1\r\nOrigin: http://[x"])
def test_an_address_that_is_none_gets_an_answer(server: UiServer, capfd: pytest.CaptureFixture[str], line: str) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=300) as browser:
        browser.sendall(f"{line}\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode())
        assert browser.recv(100).startswith(b"HTTP/1.1 400")
    assert "Traceback" not in capfd.readouterr().err


def test_a_browser_that_goes_between_two_requests_is_no_error(
    server: UiServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
        browser.recv(100)
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
    assert _get(server, "/")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_two_servers_leave_each_other_logged_in(server: UiServer, store: FileStore) -> None:
    with UiServer(0, store, "another") as other:
        assert other.cookie != server.cookie
