"""The log on a terminal: the test sees the screen that a user sees, drawn by a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pyte
import pytest

from imagepipe.report.text import short_duration

SCRIPT = """\
import sys
from datetime import UTC, datetime
from imagepipe.engine import events as ev
from imagepipe.report.live import LiveReport

AT = datetime(2026, 11, 23, tzinfo=UTC)
out = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)
clock = [0.0]
report = LiveReport(out, now=lambda: clock[0], first_seconds=float(sys.argv[1]))

def wait(text):
    input()

def start(stage, title="a title"): report(ev.StageStarted(AT, "r", stage, title))
def line(stage, text): report(ev.Line(AT, "r", stage, "out", text))
def progress(stage, text, done=None, of=None): report(ev.Progress(AT, "r", stage, text, done, of))
def finish(stage): report(ev.StageFinished(AT, "r", stage, 1.0))
def held(id): report(ev.Held(AT, "r", "instance", "us-east-1", id))
def end(): report(ev.RunFinished(AT, "r", "succeeded", 9.0))

report(ev.RunStarted(AT, "r", ("web",)))
"""
SECONDS = 300.0


@dataclass
class Terminal:
    """A process on a terminal, and the terminal's screen."""

    process: subprocess.Popen[bytes]
    descriptor: int
    screen: pyte.Screen
    raw: bytes = b""

    def __post_init__(self) -> None:
        self._stream = pyte.ByteStream(self.screen)

    def until(self, is_shown: Callable[[list[str]], bool]) -> list[str]:
        """Read until the screen is as wanted; fail at the end of the process."""
        end = time.monotonic() + SECONDS  # the screen is drawn again and again, so this would never end by itself
        while not is_shown(self.lines()):
            if not self._read() or time.monotonic() > end:
                raise AssertionError("not shown:\n" + "\n".join(self.lines()))
        return self.lines()

    def press_enter(self) -> None:
        os.write(self.descriptor, b"\n")

    def to_the_end(self) -> list[str]:
        while self._read():
            pass
        assert self.process.wait(60) == 0, "\n".join(self.lines())
        return self.lines()

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def _read(self) -> bool:
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # the process has ended (Linux)
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)


@contextmanager
def _terminal(
    script: str,
    *,
    columns: int = 100,
    rows: int = 24,
    env: Mapping[str, str] | None = None,
    first_seconds: float = 0.01,
) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    settings = termios.tcgetattr(theirs)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", **(env or {})}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + script, str(first_seconds)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours, pyte.Screen(columns, rows))
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _shows(*texts: str) -> Callable[[list[str]], bool]:
    return lambda lines: all(any(text in line for line in lines) for text in texts)


def test_the_log_scrolls_above_what_runs_now_and_stays_when_the_run_is_over() -> None:
    script = """
start("web/launch", "launch t3.small")
start("web/source", "find the image")
finish("web/source")
held("i-1")
clock[0] = 65.0
wait("shown")
finish("web/launch")
end()
"""
    with _terminal(script) as terminal:
        lines = terminal.until(_shows("1 running, 1 done, 1 resource held, 1m 05s"))
        assert lines[-2].split() == ["web/launch", "launch", "t3.small", "1m", "05s"]
        assert set(lines[-3]) == {"─"}
        assert any("#2  web/source      done in 1.0 s" in line for line in lines)
        terminal.press_enter()
        lines = terminal.to_the_end()
    assert not _shows("running,")(lines)
    assert "run             succeeded in 9.0 s" in lines[-1]
    assert _shows("launch t3.small", "done in 1.0 s")(lines)


def test_a_run_that_is_over_at_once_draws_nothing() -> None:
    with _terminal('start("source")\nfinish("source")\nend()\n', first_seconds=3600) as terminal:
        terminal.to_the_end()
    assert "─".encode() not in terminal.raw


def test_progress_has_a_rate_and_the_time_that_remains() -> None:
    script = """
start("copy")
progress("copy", "0 of 1000 MiB", 0.0, 1000 << 20)
clock[0] = 10.0
progress("copy", "250 of 1000 MiB", 0.25, 1000 << 20)
wait("shown")
end()
"""
    with _terminal(script) as terminal:
        lines = terminal.until(_shows("25%  25 MiB/s  30s left  10s"))
        assert any(line.startswith("copy ") and "250 of 1000 MiB" in line for line in lines)
        terminal.press_enter()
        terminal.to_the_end()


def test_sixty_columns_and_many_stages_fit_the_screen() -> None:
    script = """
for number in range(40):
    start(f"web-server-with-a-long-name/step-{number}", "a title that is much longer than the terminal is wide " * 3)
wait("shown")
end()
"""
    with _terminal(script, columns=60, rows=20) as terminal:
        lines = terminal.until(_shows("40 running"))
        below = lines[max(at for at, line in enumerate(lines) if set(line) == {"─"}) :]
        assert len(below) <= 12
        assert "and 33 more" in below[-2]
        assert all(len(line) <= 60 for line in below)
        terminal.press_enter()
        terminal.to_the_end()


def test_the_last_line_of_a_step_is_beside_it() -> None:
    script = 'start("step-1", "install")\nline("step-1", "Unpacking \\x1b[2J nginx")\nwait("")\nend()\n'
    with _terminal(script) as terminal:
        lines = terminal.until(_shows("1 running"))
        assert any(line.startswith("step-1 ") and "nginx" in line for line in lines)
        terminal.press_enter()
        terminal.to_the_end()


def test_a_message_of_a_signal_is_a_line_of_the_log() -> None:
    script = """
start("step-1")
wait("")
report.say("SIGINT: stopping")
wait("")
end()
"""
    with _terminal(script) as terminal:
        terminal.until(_shows("1 running"))
        terminal.press_enter()
        lines = terminal.until(_shows("SIGINT: stopping"))
        assert _shows("1 running")(terminal.until(_shows("1 running")))
        assert lines.index("SIGINT: stopping") < len(lines)
        terminal.press_enter()
        assert _shows("SIGINT: stopping")(terminal.to_the_end())


@pytest.mark.parametrize(("env", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_off_where_the_user_says_so(env: dict[str, str], has_colours: bool) -> None:
    with _terminal('start("step-1")\nwait("")\nfinish("step-1")\nend()\n', env=env) as terminal:
        terminal.until(_shows("1 running"))
        terminal.press_enter()
        terminal.to_the_end()
    assert bool(re.search(rb"\x1b\[[0-9;]*3[0-7]m", terminal.raw)) is has_colours


def test_the_cursor_is_never_hidden_because_a_killed_process_could_not_show_it_again() -> None:
    with _terminal('start("step-1")\nwait("")\nend()\n') as terminal:
        terminal.until(_shows("1 running"))
        terminal.press_enter()
        terminal.to_the_end()
    assert b"\x1b[?25l" not in terminal.raw


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.9, "59s"), (65, "1m 05s"), (3600, "1h 00m"), (-1, "0s")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text
