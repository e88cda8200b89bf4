"""The log of a run on a terminal, and below it what is going on now: the stages that run, their times and progress.

The lower part is drawn at most eight times a second, and never in the first 200 ms, so that a run which does nothing
does not flicker. It is gone when the run ends; the log stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.report.console import ConsoleReport, printable
from imagepipe.report.text import short_duration

FIRST_SECONDS = 0.2
PER_SECOND = 8
ROWS = 12
"""Largest number of stages that are shown at once, on a terminal that is high enough."""
TIMED_SECONDS = 1.0
"""Age from which on a stage has its time beside it."""
KIB = 1024.0


@dataclass(slots=True)
class _Stage:
    """A stage that runs."""

    name: str
    text: str
    began: float
    done: float | None = None
    of_bytes: int | None = None
    first: tuple[float, float] | None = None
    """Time and share of the first progress, from which the rate is measured."""


class _Console(Console):
    """A console that never hides the cursor, which a killed process could not show again."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class LiveReport:
    """A sink for events that draws on a terminal."""

    def __init__(
        self,
        file: IO[str],
        *,
        is_verbose: bool = False,
        first_seconds: float = FIRST_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Draw nothing before `first_seconds` have passed since the first event."""
        self._console = _Console(file=file, highlight=False, soft_wrap=True, emoji=False, markup=False)
        self._log = ConsoleReport(file, is_verbose=is_verbose, console=self._console)
        self._now, self._first_seconds = now, first_seconds
        self._running: dict[str, _Stage] = {}
        self._finished = 0
        self._held = 0
        self._began: float | None = None
        self._is_over = False
        self._lock = threading.Lock()
        self._live = Live(
            console=self._console,
            get_renderable=self._drawn,
            refresh_per_second=PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def __call__(self, event: ev.AnyEvent) -> None:
        with self._lock:
            self._take(event)
        if isinstance(event, ev.RunFinished):
            self.close()
        self._log(event)

    def say(self, text: str) -> None:
        """Print a line above the lower part, which a plain write to the terminal would damage."""
        self._console.print(Text(text, style="bold yellow"))

    def close(self) -> None:
        """Remove the lower part for good; harmless at any time."""
        with self._lock:
            was_over, self._is_over = self._is_over, True
        if not was_over:
            self._live.stop()

    def _take(self, event: ev.AnyEvent) -> None:
        now = self._now()
        if self._began is None:
            self._began = now
            timer = threading.Timer(self._first_seconds, self._start)
            timer.daemon = True
            timer.start()
        match event:
            case ev.StageStarted():
                self._running[event.stage] = _Stage(event.stage, event.title, now)
            case ev.Line(stream="out") | ev.Line(stream="err"):
                if (stage := self._running.get(event.stage)) and event.text.strip():
                    stage.text = printable(event.text)
            case ev.Progress():
                if stage := self._running.get(event.stage):
                    stage.text, stage.done, stage.of_bytes = event.text, event.done, event.of_bytes
                    if event.done is not None and stage.first is None:
                        stage.first = (now, event.done)
            case ev.StageFinished() | ev.StageFailed():
                self._running.pop(event.stage, None)
                self._finished += 1
            case ev.Held():
                self._held += 1
            case ev.Released():
                self._held -= 1
            case _:
                pass

    def _start(self) -> None:
        with self._lock:
            if not self._is_over:
                self._live.start()

    def _drawn(self) -> Group:
        """Return the lower part. rich calls this from its own thread."""
        with self._lock:
            stages = [replace(stage) for stage in self._running.values()]
            finished, held, began = self._finished, self._held, self._began
        now = self._now()
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(12, self._console.width // 3))
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right")
        rows = max(1, min(ROWS, self._console.height // 2 - 2))
        shown = stages if len(stages) <= rows else stages[: rows - 1]
        for stage in shown:
            table.add_row(Text(stage.name, style="bold"), Text(stage.text), Text(_times(stage, now), style="cyan"))
        if len(stages) > len(shown):
            table.add_row(Text(f"and {len(stages) - len(shown)} more", style="dim"))
        words = [f"{len(stages)} running", f"{finished} done"]
        if held > 0:
            words.append(f"{held} {'resource' if held == 1 else 'resources'} held")
        words.append(short_duration(0.0 if began is None else now - began))
        return Group(Text("─" * self._console.width, style="dim"), table, Text(", ".join(words), style="dim"))


def _times(stage: _Stage, now: float) -> str:
    """Return how long a stage has run and, if its progress is known, its rate and the time that remains."""
    words = []
    if stage.done is not None:
        words.append(f"{stage.done:.0%}")
        began, share = stage.first or (stage.began, 0.0)
        seconds, gained = now - began, stage.done - share
        if seconds > TIMED_SECONDS and gained > 0:
            if stage.of_bytes:
                words.append(f"{_size(stage.of_bytes * gained / seconds)}/s")
            words.append(f"{short_duration((1 - stage.done) * seconds / gained)} left")
    if (age := now - stage.began) >= TIMED_SECONDS:
        words.append(short_duration(age))
    return "  ".join(words)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < KIB:
            return f"{count:.0f} {unit}"
        count /= KIB
    return f"{count:.1f} GiB"
