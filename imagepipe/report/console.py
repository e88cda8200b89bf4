"""Print a run as lines for terminals and logs: one event per line, with time, number and name of the stage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import IO, TYPE_CHECKING, assert_never

from imagepipe.engine import events as ev

if TYPE_CHECKING:
    from rich.console import Console

STAGE_WIDTH = 14
DROPPED = dict.fromkeys((7, 8, 11, 12, 13))
"""Control characters that would ring, or move the cursor, for `str.translate`."""
Write = Callable[[str, str, str], None]
"""Prints a line: its head, its text, and the text's style."""


class ConsoleReport:
    """A sink for events. It never overwrites a line, so a log keeps everything."""

    def __init__(
        self,
        file: IO[str],
        *,
        has_colours: bool | None = None,
        is_verbose: bool = False,
        console: Console | None = None,
    ) -> None:
        """Without `has_colours`, a terminal gets colours, and nothing else does.

        `console` is the one to print with, if there is one already. With `is_verbose`, the log also has created
        resources, and the time that each stage spent on one kind of work.
        """
        is_coloured = file.isatty() if has_colours is None else has_colours
        self._print = _coloured(console or _console(file)) if is_coloured or console else _plain(file)
        self._is_verbose = is_verbose
        self._began: datetime | None = None
        self._progress: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._first: ev.RunStarted | None = None

    def note(self, event: ev.AnyEvent) -> None:
        """Take notice of an event that is perhaps not printed: the first sets the time, and a stage gets its number."""
        if self._began is None:
            self._began = event.time
        if isinstance(event, ev.StageStarted):
            self._numbers.setdefault(event.stage, len(self._numbers) + 1)
        elif isinstance(event, ev.RunStarted) and self._first is None:
            self._first = event

    def __call__(self, event: ev.AnyEvent) -> None:
        self.note(event)
        match event:
            case ev.RunStarted():
                by = f", resumed by {event.process}" if event != self._first and event.process else ""
                self._line(event, "run", f"{event.run}: {', '.join(event.specs)}{by}", "bold")
            case ev.StageStarted():
                self._line(event, event.stage, event.title, "")
            case ev.Line(stream="say"):
                self._line(event, event.stage, event.text, "cyan")
            case ev.Line():
                self._line(
                    event, event.stage, f"| {printable(event.text)}", "dim" if event.stream == "out" else "yellow"
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
            case ev.Held():
                if self._is_verbose:
                    self._line(event, "created", f"{event.kind} {event.id} in {event.region}", "dim")
            case ev.Span():
                if self._is_verbose:
                    self._line(event, event.stage, f"{event.seconds:.1f} s of it: {event.label}", "dim")
            case ev.StagePlanned() | ev.Finding():
                pass
            case _:
                assert_never(event)

    def _line(self, event: ev.AnyEvent, stage: str, text: str, style: str) -> None:
        assert self._began is not None
        seconds = (event.time - self._began).total_seconds()
        number = f"#{self._numbers[stage]}" if stage in self._numbers else ""
        self._print(f"{seconds:7.1f}s  {number:<3} {stage:<{STAGE_WIDTH}}  ", text, style)


def _plain(file: IO[str]) -> Write:
    def write(head: str, text: str, style: str) -> None:
        file.write(f"{head}{text}\n".translate(DROPPED))
        file.flush()

    return write


def _console(file: IO[str]) -> Console:
    from rich.console import Console

    return Console(file=file, highlight=False, soft_wrap=True, emoji=False, markup=False)


def _coloured(console: Console) -> Write:
    from rich.text import Text

    def write(head: str, text: str, style: str) -> None:
        line = Text(head, style="dim")
        line.append(text, style=style or "not dim")
        console.print(line)

    return write


def printable(text: str) -> str:
    """Return a machine's output without control characters."""
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
