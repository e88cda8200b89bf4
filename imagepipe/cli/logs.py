"""`imagepipe logs`: print the log of a run or of some stages, also while it is running."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from threading import Event

import click

from imagepipe.cli import streams
from imagepipe.cli.options import CloudOptions
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run_store import run_of
from imagepipe.cli.show import next_command
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, check_state_access, state_access_options
from imagepipe.clock import Clock, SystemClock
from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.engine.journal import read
from imagepipe.engine.journal_store import EventReader, JournalStore
from imagepipe.errors import UsageError
from imagepipe.report.console import ConsoleReport
from imagepipe.spec.explain import did_you_mean

POLL_SECONDS = {True: 0.3, False: 2.0}
"""Interval of looking for new events: of runs on this computer, and of those in a bucket."""
SILENT = (ev.StagePlanned, ev.Finding, ev.Held, ev.Span)
"""Events that the log has no line for."""


@dataclass(frozen=True, slots=True)
class LogsOptions:
    """Arguments and options of `imagepipe logs`."""

    run: str
    stages: tuple[str, ...]
    is_followed: bool
    count: int | None
    is_raw: bool
    state: StateOptions
    cloud: CloudOptions


@click.command(
    epilog="""\b
Examples:
  imagepipe logs latest -f
  imagepipe logs 7f3a91c2 launch -n 20
  imagepipe logs latest 'web-server/*' --raw
"""
)
@click.argument("run", metavar="RUN")
@click.argument("stages", nargs=-1, metavar="[STAGE]...")
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Print new lines until the run has ended.")
@click.option("-n", "count", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines.")
@click.option("--raw", "is_raw", is_flag=True, help="Print only the output of steps and tests, without time and stage.")
@state_access_options
@pass_options(LogsOptions)
def logs(options: LogsOptions) -> int:
    """Print the log of a run, or only of some STAGEs, also from another terminal while it is running.

    RUN is the id of a run, the start of one, or `latest`. STAGE is the name of a stage as the log has it, or its last
    part, as `launch` of `web-server/launch`; * and ? match.
    """
    check_state_access(options.state, options.cloud)
    clock = SystemClock()
    with open_state(options.state, options.cloud, clock) as store:
        run = run_of(store, options.run)
        _print(_Log(store, run, options), clock)
        if options.is_followed and (hint := next_command(read(store, run))):
            click.echo(hint, err=True)
    return 0


class _Log:
    """The events of a run that a command prints."""

    def __init__(self, store: JournalStore, run: str, options: LogsOptions) -> None:
        self._store, self._run, self._options = store, run, options
        self._reader: EventReader = store.event_reader(run)
        self._known: set[str] = set()
        self._report = ConsoleReport(sys.stdout, has_colours=streams.has_colours(sys.stdout))

    @property
    def is_followed(self) -> bool:
        return self._options.is_followed

    def is_running(self) -> bool:
        return self._store.is_held(self._run)

    @property
    def poll_seconds(self) -> float:
        return POLL_SECONDS[self._store.is_local]

    def new(self) -> Iterator[ev.AnyEvent]:
        """Yield new events of the stages that were asked for."""
        for event in self._reader.new():
            self._report.note(event)
            stage = getattr(event, "stage", None)
            if stage is not None and not isinstance(event, ev.StagePlanned):
                self._known.add(stage)
            is_wanted = not self._options.stages or (stage is not None and _matches(stage, self._options.stages))
            if is_wanted and not isinstance(event, SILENT) and (isinstance(event, ev.Line) or not self._options.is_raw):
                yield event

    def check_stages(self) -> None:
        """Raise UsageError for a stage that is not in the log."""
        for word in self._options.stages:
            if not any(_matches(stage, [word]) for stage in self._known):
                near = did_you_mean(word, [stage.rpartition("/")[2] for stage in self._known])
                raise UsageError(
                    f"run {self._run} has not begun a stage '{word}'{near}",
                    hint=f"its stages: {', '.join(sorted(self._known)) or 'none yet'}",
                )

    def print(self, events: Iterable[ev.AnyEvent]) -> None:
        for event in events:
            if not self._options.is_raw:
                self._report(event)
            elif isinstance(event, ev.Line) and event.stream != "say":
                click.echo(event.text)
        sys.stdout.flush()

    def first(self) -> Iterable[ev.AnyEvent]:
        """Return the events so far; with `-n`, the last of them."""
        events = self.new()
        return events if self._options.count is None else deque(events, self._options.count)


def _print(log: _Log, clock: Clock) -> None:
    is_running = log.is_running()  # first: a run that ends meanwhile is read to its end nevertheless
    log.print(log.first())
    if not log.is_followed:
        log.check_stages()
        return
    while is_running:
        clock.wait(Event(), log.poll_seconds)
        is_running = log.is_running()
        log.print(log.new())
    log.check_stages()


def _matches(stage: str, words: Sequence[str]) -> bool:
    return any(fnmatchcase(stage, word) or fnmatchcase(stage.rpartition("/")[2], word) for word in words)
