"""Print a run as lines for terminals and CI logs: one event per line, with time and stage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import IO, assert_never

from imagepipe.engine import events as ev

STAGE_WIDTH = 14
DROPPED = dict.fromkeys((7, 8, 11, 12, 13))
"""Control characters that would ring, or move the cursor, for `str.translate`."""


class ConsoleReport:
    """A sink for events. It never overwrites a line, so a log keeps everything."""

    def __init__(self, file: IO[str], *, has_colours: bool | None = None) -> None:
        """Without `has_colours`, a terminal gets colours, and nothing else does."""
        is_coloured = file.isatty() if has_colours is None else has_colours
        self._print = _coloured(file) if is_coloured else _plain(file)
        self._began: datetime | None = None
        self._progress: dict[str, str] = {}

    def begin(self, event: ev.AnyEvent) -> None:
        """Count seconds from this event on, unless there was an earlier one."""
        if self._began is None:
            self._began = event.time

    def __call__(self, event: ev.AnyEvent) -> None:
        self.begin(event)
        match event:
            case ev.RunStarted():
                self._line(event, "run", f"{event.run}: {', '.join(event.specs)}", "bold")
            case ev.StageStarted():
                self._line(event, event.stage, event.title, "")
            case ev.Line(stream="say"):
                self._line(event, event.stage, event.text, "cyan")
            case ev.Line():
                self._line(
                    event, event.stage, f"| {_printable(event.text)}", "dim" if event.stream == "out" else "yellow"
                )
            case ev.Progress():
                # Do not repeat the same text.
                if self._progress.get(event.stage) != event.text:
                    self._progress[event.stage] = event.text
                    self._line(event, event.stage, event.text, "dim")
            case ev.Released():
                self._line(event, "deleted", f"{event.kind} {event.id} in {event.region}", "dim")
            case ev.StageFinished():
                summary = f": {event.summary}" if event.summary else ""
                self._line(event, event.stage, f"done in {event.seconds:.1f} s{summary}", "green")
            case ev.StageFailed():
                self._line(event, event.stage, f"failed: {ev.first_line(event.error)}", "bold red")
            case ev.RunFinished():
                self._line(event, "run", f"{event.outcome} in {event.seconds:.1f} s", "bold")
            case ev.Held() | ev.Span():
                pass
            case _:
                assert_never(event)

    def _line(self, event: ev.AnyEvent, stage: str, text: str, style: str) -> None:
        assert self._began is not None
        seconds = (event.time - self._began).total_seconds()
        self._print(f"{seconds:7.1f}s  {stage:<{STAGE_WIDTH}}  ", text, style)


def _plain(file: IO[str]) -> Callable[[str, str, str], None]:
    """Return a function that prints a line: its head, its text, and the text's style."""

    def write(head: str, text: str, style: str) -> None:
        file.write(f"{head}{text}\n".translate(DROPPED))
        file.flush()

    return write


def _coloured(file: IO[str]) -> Callable[[str, str, str], None]:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, highlight=False, soft_wrap=True, emoji=False, markup=False)

    def write(head: str, text: str, style: str) -> None:
        line = Text(head, style="dim")
        line.append(text, style=style or "not dim")
        console.print(line)

    return write


def _printable(text: str) -> str:
    """Return a machine's output without control characters."""
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
