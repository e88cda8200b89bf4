"""The base of every step: options, attempts, a deadline, and a connection that is reopened if it breaks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import field
from typing import Literal

from imagepipe import render
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.communicator.output_hints import hint_of_output
from imagepipe.communicator.ssh import RECONNECT_SECONDS, Connection, Connections, Disconnected, Result, Watch
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import After, Context, Ref, Stage
from imagepipe.errors import Cancelled, CommandFailed, ConnectError, ImagepipeError
from imagepipe.late import Late, Text
from imagepipe.provision.disconnect import Boot, boot_of, is_going_down, wait_for_end, wait_for_return
from imagepipe.values import Reachable

RETRY_SECONDS = 5.0
DROPS = 2
"""Broken connections that an idempotent step survives, in addition to its retries."""
ENDING_SECONDS = 5.0
TAIL_LINES = 20
SKIPPED = "skipped: its `when` is false"


@dataclass(frozen=True, slots=True)
class Options:
    """The options that every kind of step has, and its place in the spec."""

    title: str = field(compare=False)
    where: str = field(compare=False)
    """Place of the step for messages, such as `specs/web.yaml:31`; with the `use` steps around it."""
    timeout_seconds: float
    retries: int
    sudo: bool
    exit_codes: tuple[int, ...]
    expect_disconnect: bool
    idempotent: bool
    env: Mapping[str, Text] = field(default_factory=dict, repr=False)
    when: tuple[Late, ...] = ()
    """Conditions that only the run can decide; the others were decided when the graph was built."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The inputs of one attempt at a step."""

    connection: Connection
    names: Mapping[str, object]
    """Values of `source` and `region`, for late templates."""
    watch: Watch


class _Dropped(CommandFailed):
    """The connection broke in the middle of a step, and the machine is still running."""

    def __init__(self, failed: CommandFailed) -> None:
        super().__init__(failed.message, code=failed.code, tail=failed.tail, hint=failed.hint)


@dataclass(frozen=True)
class Step(Stage[Reachable]):
    """A stage that makes attempts until one succeeds. A subclass implements one attempt."""

    ec2: Ec2 = field(repr=False, compare=False)
    connections: Connections = field(repr=False, compare=False)
    machine: Ref[Reachable]
    source: Ref[SourceImage]
    options: Options
    follows: tuple[After, ...] = field(default=(), kw_only=True)
    """The tests before this one, if it is a test."""
    stops_on_failure: bool = field(default=True, kw_only=True, compare=False)
    """False for a test after whose failure the other tests still run."""

    def run(self, ctx: Context) -> Reachable:
        machine = ctx[self.machine]
        names = late_names(ctx[self.source], machine.instance.region)
        with self._named():
            runs = applies(self.options.when, names)
        if not runs:
            ctx.say(SKIPPED)
            return machine
        left, drops = self.options.retries, DROPS if self.options.idempotent else 0
        while True:
            try:
                self._one_try(ctx, machine, names)
                return machine
            except _Dropped as error:
                if drops == 0:
                    raise
                drops -= 1
                ctx.say(f"running it again, because the step is idempotent: {error}")
            except (CommandFailed, ConnectError) as error:
                if left == 0:
                    raise
                ctx.say(f"failed, {left} more {'attempt' if left == 1 else 'attempts'}: {error}")
                left -= 1
                ctx.cancel.sleep(RETRY_SECONDS)

    def _one_try(self, ctx: Context, machine: Reachable, names: Mapping[str, object]) -> None:
        tail: list[str] = []

        def on_line(stream: Literal["out", "err"], text: str) -> None:
            tail.append(text)
            del tail[:-TAIL_LINES]
            ctx.line(stream, text)

        watch = Watch(on_line, ctx.deadline(self.options.timeout_seconds), ctx.cancel)
        before: Boot | None = None
        try:
            deadline = ctx.deadline(RECONNECT_SECONDS)
            with self._named():
                check = self.ec2.instances.check_runs
                connection = self.connections.reconnect(machine, deadline, ctx.cancel.sleep, check)
            with ctx.span("command"), self._named():
                if self.awaits_disconnect():
                    before = boot_of(connection, watch)
                result = self.attempt(ctx, Attempt(connection, names, watch))
            _say_holders(ctx, result)
        except Disconnected as error:
            self.connections.drop(machine.endpoint)
            if before is not None:  # the step had begun, so a disconnect was expected
                self._come_back(ctx, machine, before, watch)
                return
            if state := self._ended(ctx, machine):
                hint = "did the step or somebody else power it off? imagepipe stops it only after the last step"
                raise self._failed(f"{machine.instance.id} is {state}: {error}", None, tail, hint) from error
            hint = "set expect_disconnect: true if the step ends the connection, idempotent: true if it may run again"
            raise _Dropped(self._failed(f"{error}", None, tail, hint)) from error
        if before is not None and (
            result.code in self.options.exit_codes or (not result.timed_out and is_going_down(connection, watch))
        ):
            ctx.say("waiting for the connection to end (expect_disconnect: true)")
            if not wait_for_end(connection, watch, ctx.cancel.sleep):
                why = f"the connection did not end within {self.options.timeout_seconds:g} s"
                hint = "set expect_disconnect: true only on a step that reboots the machine or cuts its network"
                raise self._failed(why, result.code, tail, hint)
            self._come_back(ctx, machine, before, watch)
            return
        self.check(result, tail)

    def check(self, result: Result, tail: list[str], *, exit_codes: tuple[int, ...] | None = None) -> None:
        """Raise CommandFailed unless the result is a success, by the step's exit codes or by these."""
        if result.timed_out:
            limit = f"not done within {self.options.timeout_seconds:g} s"
            raise self._failed(limit, None, tail, "give the step a longer timeout")
        if result.code is None:
            raise self._failed("ended by a signal", None, tail, None)
        if result.code not in (self.options.exit_codes if exit_codes is None else exit_codes):
            hint = hint_of_output(tail) or _hint(result.code, tail, sudo=self.options.sudo)
            raise self._failed(f"exit code {result.code}", result.code, tail, hint)

    def _named(self) -> AbstractContextManager[None]:
        """Put the step's title and place before the message of an error."""
        return naming(f"step '{self.options.title}' ({self.options.where})")

    def _come_back(self, ctx: Context, machine: Reachable, before: Boot, watch: Watch) -> None:
        """Handle an expected disconnect: wait for the machine."""
        ctx.say("the connection ended, as expected: waiting for the machine")
        check = self.ec2.instances.check_runs
        has_rebooted = wait_for_return(self.connections, machine, before, watch, ctx.cancel.sleep, check)
        ctx.say("the machine is back, in a new boot" if has_rebooted else "SSH is back, in the same boot")

    def awaits_disconnect(self) -> bool:
        """Return whether the step is complete only when the connection has ended."""
        return False

    def _ended(self, ctx: Context, machine: Reachable) -> str | None:
        """Return the instance's state if it no longer runs. Polls briefly, because EC2 learns of a shutdown late."""
        until = ctx.deadline(ENDING_SECONDS)
        while (state := self.ec2.instances.ended(machine.instance.id)) is None and not until.is_past():
            ctx.cancel.sleep(0.5)
        return state

    def _failed(self, why: str, code: int | None, tail: list[str], hint: str | None) -> CommandFailed:
        output = "".join(f"\n    {line}" for line in tail) or " nothing"
        return CommandFailed(
            f"step '{self.options.title}' ({self.options.where}): {why}\n  its last output:{output}",
            code=code,
            tail="\n".join(tail),
            hint=hint,
        )

    @abstractmethod
    def attempt(self, ctx: Context, at: Attempt) -> Result:
        """Make one attempt. Raises Disconnected if the connection breaks."""

    def is_repeatable(self) -> bool:
        return self.options.idempotent

    def stops_others(self, error: Exception) -> bool:
        return self.stops_on_failure or not isinstance(error, CommandFailed)

    def title(self) -> str:
        return self.options.title

    def env(self, names: Mapping[str, object]) -> dict[str, str]:
        """Return the step's environment, rendered."""
        return render.render_late_values(self.options.env, names)


def applies(when: Sequence[Late], names: Mapping[str, object]) -> bool:
    """Return whether all of these conditions are true."""
    return all(render.is_true(late.text, render.names_of(late, names)) for late in when)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Put a step's or test's title and place before the message of an error."""
    try:
        yield
    except (Disconnected, Cancelled):
        raise  # the step may go on
    except ImagepipeError as error:
        if not error.message.startswith(place):  # the check of a result has put it there
            error.message = f"{place}: {error.message}"
        raise


def _say_holders(ctx: Context, result: Result) -> None:
    if result.holders:
        ctx.say(
            f"the script has ended, but its output is still open in {', '.join(result.holders)} and is no longer read: "
            "redirect that output to a file, or start a service"
        )


def _hint(code: int, tail: list[str], *, sudo: bool) -> str | None:
    text = "\n".join(tail)
    if code == 127:
        return "a command was not found on the instance"
    if code == 126:
        return "a command was found, but cannot be executed"
    if "Could not get lock" in text:
        return "another package manager is running on the instance; give the step retries"
    if "Permission denied" in text and not sudo:
        return "does the step need sudo: true?"
    return None
