"""Pipelines of blocks through threads: each step works ahead of the next by a limited number of blocks.

Also sent to instances (see `capture.agent`), whose Python may be 3.7: use nothing newer here.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Queue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

BLOCK_BYTES = 1 << 20
"""Size of the blocks between steps: large enough to make Python's overhead negligible."""


def workers() -> int:
    """Return the useful number of threads; more than eight would only take memory."""
    return min(8, len(os.sched_getaffinity(0)))


def ahead(items: Iterable[T], *, depth: int) -> Generator[T, None, None]:
    """Yield the same items, which a separate thread makes at most `depth` items ahead.

    Errors of the thread are raised here. Closing the generator ends the thread and closes `items` on it.
    """
    queue: Queue[tuple[T] | BaseException | None] = Queue(depth)
    stop = threading.Event()

    def make() -> None:
        try:
            for item in items:
                queue.put((item,))
                if stop.is_set():
                    break
            queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer
            queue.put(error)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=make, name="bundle", daemon=True)
    thread.start()
    try:
        while True:
            got = queue.get()
            if got is None:
                return
            if isinstance(got, BaseException):
                raise got
            yield got[0]
    finally:
        stop.set()
        while thread.is_alive():
            _drain(queue)
            thread.join(0.01)


def in_order(function: Callable[[T], R], items: Iterable[T], *, threads: int, waiting: int) -> Generator[R, None, None]:
    """Yield `function` of each item in order, computed by several threads; at most `waiting` results are pending."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="bundle")
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) >= waiting:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
        pool.shutdown()


def in_sizes(pieces: Iterable[bytes], size: int) -> Generator[bytes, None, None]:
    """Yield the same bytes in blocks of exactly this size; the last may be shorter but is never empty."""
    kept: list[bytes] = []
    have = 0
    for piece in pieces:
        rest = piece
        while have + len(rest) >= size:
            kept.append(rest[: size - have])
            rest = rest[size - have :]
            yield kept[0] if len(kept) == 1 else b"".join(kept)
            kept, have = [], 0
        if rest:
            kept.append(rest)
            have += len(rest)
    if kept:
        yield b"".join(kept)


def _drain(queue: Queue[tuple[T] | BaseException | None]) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        pass
