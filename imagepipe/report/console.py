"""Print a run as lines for terminals and CI logs: one event per line, with time and stage."""

from __future__ import annotations

from datetime import datetime
from typing import IO, assert_never

from rich.console import Console
from rich.text import Text

from imagepipe.engine import events as ev

STAGE_WIDTH = 14


class ConsoleReport:
    """A sink for events. It uses colours only on a terminal and never overwrites a line, so a log keeps everything."""

    def __init__(self, file: IO[str]) -> None:
        self._console = Console(file=file, highlight=False, soft_wrap=True, emoji=False, markup=False)
        self._began: datetime | None = None
        self._progress: dict[str, str] = {}

    def __call__(self, event: ev.AnyEvent) -> None:
        if self._began is None:
            self._began = event.time
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
        line = Text(f"{seconds:7.1f}s  {stage:<{STAGE_WIDTH}}  ", style="dim")
        line.append(text, style=style or "not dim")
        self._console.print(line)


def _printable(text: str) -> str:
    """Return a machine's output without control characters."""
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
