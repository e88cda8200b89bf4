"""The base of every check: a script that reports facts from the instance, a judgement of them, and a deadline."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Literal

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.communicator.output_hints import hint_of_output
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import RECONNECT_SECONDS, Connections, Disconnected, Watch
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import After, Context, Ref, Stage
from imagepipe.errors import CheckFailed
from imagepipe.late import Late
from imagepipe.provision.step import SKIPPED, applies, naming
from imagepipe.values import Reachable

PAUSE_SECONDS = 1.0
LAST_ATTEMPT_SECONDS = 10.0
"""Time that the last attempt has at least, even if it begins just before the deadline."""
TAIL_LINES = 20
GIVE_TIME = "give the test more time: within"
ITS_OUTPUT = "its output"
OUTPUT_CHARACTERS = 4 << 20
"""Characters of a script's output that are kept: 1 MiB of content in base64, and room for the rest."""
CONTENT_BYTES = 1 << 20
"""Largest content that is searched."""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options that every check has, and its place in the spec."""

    title: str = field(compare=False)
    where: str = field(compare=False)
    """Place of the test for messages, such as `specs/web.yaml:31`."""
    within_seconds: float
    sudo: bool
    when: tuple[Late, ...] = ()
    """Conditions that only the run can decide."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The reason why a check does not hold."""

    message: str
    hint: str | None = None
    output: tuple[str, ...] = ()
    """Lines for the message: the output, the content, the journal."""
    output_name: str = "found"
    """Name of these lines in the message."""
    is_final: bool = False
    """True if another attempt is useless."""


class Output:
    """The output of one attempt."""

    def __init__(self) -> None:
        self.lines: list[tuple[Literal["out", "err"], str]] = []
        self._left = OUTPUT_CHARACTERS

    def add(self, stream: Literal["out", "err"], text: str) -> None:
        """Keep a line, unless the output is too long already."""
        self._left -= len(text) + 1
        if self._left >= 0:
            self.lines.append((stream, text))

    def of(self, stream: Literal["out", "err"]) -> list[str]:
        """Return the lines of one stream."""
        return [text for each, text in self.lines if each == stream]

    def tail(self) -> tuple[str, ...]:
        """Return the last lines of both streams."""
        return tuple(text for _, text in self.lines[-TAIL_LINES:])


Facts = Mapping[str, str]
"""What a script reported, by name. A line `@name` begins a fact; the lines below it are its value."""


def read_facts(lines: Iterable[str]) -> Facts:
    """Return the facts that a script printed."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if line.startswith("@"):
            current = found.setdefault(line[1:], [])
        else:
            current.append(line)
    return {name: "\n".join(values).strip() for name, values in found.items()}


@dataclass(frozen=True)
class Check(Stage[Reachable]):
    """A stage that makes attempts until the check holds. Never changes the instance, except by a command of its own."""

    ec2: Ec2 = field(repr=False, compare=False)
    connections: Connections = field(repr=False, compare=False)
    machine: Ref[Reachable]
    source: Ref[SourceImage]
    options: CheckOptions
    follows: tuple[After, ...] = field(default=(), kw_only=True)
    """The tests before this one."""
    stops_on_failure: bool = field(default=True, kw_only=True, compare=False)
    """False if the other tests still run after a failure of this one."""

    def run(self, ctx: Context) -> Reachable:
        machine = ctx[self.machine]
        names = late_names(ctx[self.source], machine.instance.region)
        with naming(self._place()):
            runs = applies(self.options.when, names)
        if not runs:
            ctx.say(SKIPPED)
            return machine
        deadline, attempts, last = ctx.deadline(self.options.within_seconds), 0, ""
        while True:
            attempts += 1
            output = Output()
            mismatch = self._one_try(ctx, machine, names, max(deadline.remaining(), LAST_ATTEMPT_SECONDS), output)
            is_last = mismatch is None or mismatch.is_final or deadline.is_past()
            if is_last and self.shows_output():
                for stream, text in output.lines:
                    ctx.line(stream, text)
            if mismatch is None:
                return machine
            if is_last:
                raise self._failed(mismatch, attempts)
            if mismatch.message != last:
                last = mismatch.message
                ctx.say(f"not yet, {deadline.remaining():.0f} s left: {last.splitlines()[0]}")
            ctx.cancel.sleep(min(PAUSE_SECONDS, max(deadline.remaining(), 0.0)))

    def _one_try(
        self, ctx: Context, machine: Reachable, names: Mapping[str, object], seconds: float, output: Output
    ) -> Mismatch | None:
        watch = Watch(output.add, ctx.deadline(seconds), ctx.cancel)
        try:
            with naming(self._place()):
                back, check_runs = ctx.deadline(RECONNECT_SECONDS), self.ec2.instances.check_runs
                connection = self.connections.reconnect(machine, back, ctx.cancel.sleep, check_runs)
                with ctx.span("command"):
                    result = run_script(connection, self.script(names), watch)
        except Disconnected as error:
            self.connections.drop(machine.endpoint)
            return Mismatch(str(error))
        if result.timed_out:
            return Mismatch(f"no result within {seconds:.0f} s", GIVE_TIME, output.tail(), ITS_OUTPUT)
        return self.judge(result.code, output)

    def _place(self) -> str:
        return f"test '{self.options.title}' ({self.options.where})"

    def _failed(self, mismatch: Mismatch, attempts: int) -> CheckFailed:
        tried = f" (tried {attempts} times in {self.options.within_seconds:g} s)" if attempts > 1 else ""
        shown = f"; {mismatch.output_name}:" if mismatch.output else ""
        output = "".join(f"\n    {line}" for line in mismatch.output)
        return CheckFailed(f"{self._place()}: {mismatch.message}{tried}{shown}{output}", hint=mismatch.hint)

    @abstractmethod
    def script(self, names: Mapping[str, object]) -> Script:
        """Return the script of one attempt; `names` are the values for late templates."""

    @abstractmethod
    def judge(self, code: int | None, output: Output) -> Mismatch | None:
        """Return the reason why the check does not hold, from the exit code and the output; None if it holds."""

    def shows_output(self) -> bool:
        """Return whether the log shows the output of the last attempt."""
        return False

    def stops_others(self, error: Exception) -> bool:
        return self.stops_on_failure or not isinstance(error, CheckFailed)

    def title(self) -> str:
        return self.options.title


@dataclass(frozen=True)
class FactCheck(Check):
    """A check whose script prints facts and exits with 0; any other end means that it could not check."""

    def fact_script(self, content: str, *args: str, env: Mapping[str, str] | None = None) -> Script:
        """Return a script for the plain shell, which every machine has."""
        return Script(content, args=args, env=env or {}, sudo=self.options.sudo, interpreter="sh")

    def judge(self, code: int | None, output: Output) -> Mismatch | None:
        if code != 0:
            how = "was ended by a signal" if code is None else f"ended with exit code {code}"
            hint = hint_of_output(output.of("err"))
            return Mismatch(f"the script of the test {how}", hint, output.tail(), ITS_OUTPUT)
        facts = read_facts(output.of("out"))
        if problem := facts.get("problem"):
            return Mismatch(problem, is_final=True)
        return self.compare(facts)

    @abstractmethod
    def compare(self, facts: Facts) -> Mismatch | None:
        """Return the reason why the facts are not the expected ones; None if they are."""


def excerpt(text: str, *, lines: int = 10) -> tuple[str, ...]:
    """Return the first lines of a text for a message, without characters that a terminal would act on."""
    shown = ["".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) for line in text.splitlines()]
    more = [f"… and {len(shown) - lines} more lines"] if len(shown) > lines else []
    return tuple(line[:200] for line in [*shown[:lines], *more])


def one_of(values: Sequence[object]) -> str:
    """Return `200`, or `200 or 204`."""
    return " or ".join(map(str, values))
