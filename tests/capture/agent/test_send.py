"""Parts by presigned URLs, to a server that has its moods."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from imagepipe.capture.agent.errors import AgentError
from imagepipe.capture.agent.frames import Wire
from imagepipe.capture.agent.send import AT_ONCE, Answers, Part, Sender

SIGNATURE = "X-Amz-Signature=f00dfeed"


@dataclass
class Server:
    """Answers each PUT with what stands first in `moods`, else with 200."""

    moods: list[tuple[int, str] | str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def _serving(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            with server.lock:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
                mood = server.moods.pop(0) if server.moods else (200, "")
            body = self.rfile.read(10 if isinstance(mood, str) else int(self.headers["Content-Length"]))
            time.sleep(server.delay)
            with server.lock:  # before the answer, after which the next one may come
                server.at_once -= 1
            if isinstance(mood, str):  # the connection is cut in the middle
                return
            status, said = mood
            if status == 200:
                server.stored[self.path.partition("?")[0]] = body
                server.headers.update(self.headers.items())
            self.send_response(status)
            answer = said.encode()
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class Controller:
    """The other end of the wire: it gives a URL for each part that is asked for, a new one each time."""

    def __init__(self, server: Server, have: frozenset[int] = frozenset()) -> None:
        self.answers = Answers()
        self.said: list[dict[str, Any]] = []
        self.urls = 0
        self._server = server
        self._have = have
        self.pauses: list[float] = []
        self.sender = Sender(_Ear(self), self.answers, self.pauses.append)

    def answer(self, message: dict[str, Any]) -> None:
        self.said.append(message)
        if "part" in message:
            number = message["part"]
            self.urls += 1
            url = f"http://127.0.0.1:{self._server.port}/bucket/part.{number}?{SIGNATURE}&n={self.urls}"
            self.answers.put(number, {"have": True} if number in self._have else {"url": url, "headers": {"x-a": "b"}})

    def told(self, key: str) -> list[Any]:
        return [message[key] for message in self.said if key in message]


class _Ear(Wire):
    def __init__(self, controller: Controller) -> None:
        super().__init__(lambda _: b"", lambda _: None)
        self._controller = controller

    def send(self, **message: Any) -> None:
        self._controller.answer(message)


def _part(number: int, size: int = 1000) -> Part:
    return Part(number, bytes([number % 256]) * size, "s", "m")


def _error(code: str, message: str = "No") -> str:
    return (
        f"<Error><Code>{code}</Code><Message>{message}</Message><SignatureProvided>f00dfeed</SignatureProvided></Error>"
    )


@contextmanager
def _rig(*moods: tuple[int, str] | str, have: frozenset[int] = frozenset(), delay: float = 0.0) -> Iterator[Controller]:
    with _serving(Server(list(moods), delay=delay)) as server:
        yield Controller(server, have)


def test_every_part_arrives_with_the_headers_that_were_signed() -> None:
    with _rig() as rig:
        for number in range(10):
            rig.sender.put(_part(number))
        rig.sender.finish()
        assert rig._server.stored == {f"/bucket/part.{n}": bytes([n]) * 1000 for n in range(10)}
        assert rig._server.headers["x-a"] == "b"
        assert sorted(rig.told("sent")) == list(range(10))


def test_no_more_parts_than_four_are_on_their_way() -> None:
    with _rig(delay=0.02) as rig:
        for number in range(20):
            rig.sender.put(_part(number))
        rig.sender.finish()
        assert 1 < rig._server.most_at_once <= AT_ONCE


@pytest.mark.parametrize(
    "mood", [(503, _error("SlowDown")), (500, ""), "cut", (400, _error("RequestTimeout"))],
    ids=["SlowDown", "500", "cut", "timeout"],
)  # fmt: skip
def test_what_may_pass_is_tried_again_after_growing_pauses(mood: tuple[int, str] | str) -> None:
    with _rig(mood, mood, mood) as rig:
        rig.sender.put(_part(7))
        rig.sender.finish()
        assert rig.told("sent") == [7]
        assert rig.pauses == [1.0, 2.0, 4.0]
        assert rig.urls == 1


@pytest.mark.parametrize(
    "mood",
    [(403, _error("AccessDenied", "Request has expired")), (400, _error("ExpiredToken", "The token has expired"))],
    ids=["URL", "session"],
)
def test_a_url_that_died_is_asked_for_again(mood: tuple[int, str]) -> None:
    with _rig(mood) as rig:
        rig.sender.put(_part(3))
        rig.sender.finish()
        assert (rig.told("sent"), rig.urls, rig.pauses) == ([3], 2, [])


def test_a_part_that_is_there_already_is_not_sent() -> None:
    with _rig(have=frozenset({1})) as rig:
        rig.sender.put(_part(1))
        rig.sender.put(_part(2))
        rig.sender.finish()
        assert list(rig._server.stored) == ["/bucket/part.2"]


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ((404, _error("NoSuchBucket", "Gone")), "404 NoSuchBucket Gone"),
        ((400, _error("InvalidDigest")), "InvalidDigest"),
    ],
    ids=["no bucket", "refused"],
)
def test_what_will_not_pass_ends_the_upload_at_once_and_names_the_part(mood: tuple[int, str], words: str) -> None:
    with _rig(mood) as rig:
        rig.sender.put(_part(5))
        with pytest.raises(AgentError, match=f"uploading part 5: .*{words}"):
            rig.sender.finish()
        with pytest.raises(AgentError):
            rig.sender.put(_part(6))


def test_denied_again_and_again_it_gives_up_without_a_word_of_the_signature() -> None:
    with _rig(*[(403, _error("AccessDenied"))] * 20) as rig:
        rig.sender.put(_part(5))
        with pytest.raises(AgentError, match="AccessDenied") as caught:
            rig.sender.finish()
        assert "f00dfeed" not in str(caught.value) + str(rig.told("say"))
        assert rig.urls <= 7
