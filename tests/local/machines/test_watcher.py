"""The watcher of processes."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from imagepipe.local.machines.watcher import Watcher

SECONDS = 30


@pytest.fixture
def ended() -> SimpleQueue[str]:
    return SimpleQueue()


@pytest.fixture
def watcher(ended: SimpleQueue[str]) -> Iterator[Watcher]:
    made = Watcher(on_end=ended.put, on_tick=lambda: None)
    yield made
    made.close()


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_an_end_is_reported_once_under_its_name(watcher: Watcher, ended: SimpleQueue[str]) -> None:
    process = _sleeper()
    watcher.watch("a", process.pid)
    _end(process)
    assert ended.get(timeout=SECONDS) == "a"
    watcher.watch("gone", process.pid)
    assert ended.get(timeout=SECONDS) == "gone", "it had ended before it was watched"
    assert ended.empty()


def test_a_process_that_is_watched_as_another_one_ends_is_not_taken_for_it(
    watcher: Watcher, ended: SimpleQueue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of the one's descriptor is free once that is closed, and is then the other one's."""
    first, second = _sleeper(), _sleeper()
    close = os.close

    def close_and_watch(fd: int) -> None:
        close(fd)
        if threading.current_thread().name == "machines":
            monkeypatch.setattr(os, "close", close)
            watcher.watch("second", second.pid)

    monkeypatch.setattr(os, "close", close_and_watch)
    watcher.watch("first", first.pid)
    _end(first)
    assert ended.get(timeout=SECONDS) == "first"
    _end(second)
    assert ended.get(timeout=SECONDS) == "second"
