"""Upload parts to S3, several at once, with presigned URLs from the controller; retry if that may help."""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import Queue
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from imagepipe.capture.agent.errors import AgentError
from imagepipe.capture.agent.frames import Wire

AT_ONCE = 4
"""Number of concurrent uploads. Their parts are in memory, 40 MiB in all."""
TRIES = 9
"""Attempts, with pauses of 1, 2, 4, … 64 and 64 s between them: about three minutes."""
LONGEST_PAUSE = 64.0
TIMEOUT_SECONDS = 60
PIECE_BYTES = 256 << 10
RENEWALS = 5
EXPIRED = ("ExpiredToken", "TokenRefreshRequired")
"""Error codes of an expired session, with status 400 (S3 API reference, "Error responses"). An expired URL has 403."""


class Part(NamedTuple):
    """A part with its content and digests."""

    number: int
    content: bytes
    sha1: str
    md5: str


class Refused(Exception):
    """S3 refused a request. `renew`: a new URL may help; `again`: another attempt may help."""

    def __init__(self, message: str, *, renew: bool, again: bool) -> None:
        super().__init__(message)
        self.renew = renew
        self.again = again


class Answers:
    """Passes the controller's answer for each part to the thread that waits for it."""

    def __init__(self) -> None:
        self._of: dict[int, Queue[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def put(self, index: int, message: dict[str, Any]) -> None:
        self._queue(index).put(message)

    def take(self, index: int) -> dict[str, Any]:
        return self._queue(index).get()

    def _queue(self, index: int) -> Queue[dict[str, Any]]:
        with self._lock:
            return self._of.setdefault(index, Queue())


class Sender:
    """Uploads parts; `put` waits while AT_ONCE uploads are running."""

    def __init__(self, wire: Wire, answers: Answers, sleep: Callable[[float], None] = time.sleep) -> None:
        self._wire = wire
        self._answers = answers
        self._sleep = sleep
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._problem: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def put(self, part: Part) -> None:
        """Start the upload of a part. Raises the error of an earlier one."""
        self._room.acquire()
        if self._problem is not None:
            raise self._problem
        thread = threading.Thread(target=self._run, args=(part,), name=f"part {part.number}", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def finish(self) -> None:
        """Wait until all uploads are complete. Raises the first error."""
        for thread in self._threads:
            thread.join()
        if self._problem is not None:
            raise self._problem

    def _run(self, part: Part) -> None:
        try:
            self._send(part)
        except BaseException as error:  # noqa: BLE001 - raised again by `put` or `finish`
            self._problem = self._problem or error
        finally:
            self._room.release()

    def _send(self, part: Part) -> None:
        order = self._ask(part)
        renewals = 0
        for attempt in range(TRIES):
            if order.get("have"):
                return
            try:
                put_object(order["url"], order["headers"], part.content)
                self._wire.send(sent=part.number)
                return
            except Refused as refused:
                renewals += refused.renew
                if not refused.again or renewals > RENEWALS or attempt == TRIES - 1:
                    raise AgentError(f"uploading part {part.number}: {refused}") from refused
                self._wire.send(say=f"part {part.number}: {refused}; trying again")
                if refused.renew:
                    order = self._ask(part)
                else:
                    self._sleep(min(LONGEST_PAUSE, 2.0**attempt))

    def _ask(self, part: Part) -> dict[str, Any]:
        self._wire.send(part=part.number, size=len(part.content), sha1=part.sha1, md5=part.md5)
        return self._answers.take(part.number)


def put_object(url: str, headers: Mapping[str, str], content: bytes) -> None:
    """Make one PUT request. Raises Refused, whose message does not contain the URL's signature."""
    where = urlsplit(url)
    place = f"{where.path}?{where.query}"
    try:
        with _connected(where.scheme, where.hostname or "", where.port) as connection:
            connection.putrequest("PUT", place, skip_accept_encoding=True)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                connection.putheader(name, value)
            connection.endheaders()
            view = memoryview(content)
            for at in range(0, len(view), PIECE_BYTES):
                connection.send(view[at : at + PIECE_BYTES])
            answer = connection.getresponse()
            body = answer.read(64 << 10).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Refused(
            f"{where.hostname}: no answer: {str(error) or type(error).__name__}", renew=False, again=True
        ) from error
    if answer.status // 100 == 2:
        return
    code, message = _between(body, "Code"), _between(body, "Message")
    is_dead = answer.status == 403 or code in EXPIRED
    raise Refused(
        f"{where.hostname} answered {answer.status} {code} {message}",
        renew=is_dead,
        again=is_dead or answer.status >= 500 or answer.status in (408, 429) or code in ("BadDigest", "RequestTimeout"),
    )


@contextmanager
def _connected(scheme: str, host: str, port: int | None) -> Iterator[http.client.HTTPConnection]:
    made: http.client.HTTPConnection
    if scheme == "https":
        context = ssl.create_default_context()
        made = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    else:
        made = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        yield made
    finally:
        made.close()


def _between(body: str, tag: str) -> str:
    found = re.search(f"<{tag}>([^<]{{0,300}})</{tag}>", body)
    return found.group(1) if found else ""
