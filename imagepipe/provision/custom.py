"""Run a step whose kind another package adds, and give it the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Result, Watch
from imagepipe.communicator.streams import OnLine
from imagepipe.communicator.upload import Placement, upload_bytes, upload_path
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context
from imagepipe.errors import CommandFailed, ImagepipeError
from imagepipe.provision.step import TAIL_LINES, Attempt, Step
from imagepipe.step_kinds import installed_kinds


@dataclass(frozen=True)
class RunCustom(Step):
    """Let a step kind work on the machine; it is done when its `run` returns."""

    folder: Path
    """Folder of the file that has the step."""
    kind: str
    version: str
    """Version of the package that adds the kind; another one may do something else."""
    given: Any = field(repr=False)
    """The value of the step in the spec."""
    names: tuple[str, ...] = ()
    """Files and folders that it reads, relative to `folder`."""

    def files(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self.names)

    def attempt(self, ctx: Context, at: Attempt) -> Result:
        installed = installed_kinds()[self.kind]
        try:
            kind, options = installed.read(self.given)
            kind.run(options, StepMachine(self, ctx, at), self.folder)
        except ImagepipeError:
            raise
        except Exception as error:
            raise CommandFailed(
                f"step kind '{self.kind}' of the package {installed.package} {installed.version} failed: "
                f"{type(error).__name__}: {error}",
                code=None,
                tail="",
                hint="IMAGEPIPE_DEBUG=1 prints where",
            ) from error
        return Result(self.options.exit_codes[0])


class StepMachine:
    """The machine of one attempt, as `imagepipe.step_kinds.Machine` describes it."""

    def __init__(self, step: Step, ctx: Context, at: Attempt) -> None:
        self._step = step
        self._ctx = ctx
        self._at = at
        self._env = step.env(at.names)
        machine = ctx[step.machine]
        self.instance_id = machine.instance.id
        self.region = machine.instance.region
        self.user = machine.endpoint.user
        self.sudo = step.options.sudo or self.user == "root"

    def run(
        self,
        script: str | bytes,
        *args: str,
        env: Mapping[str, str] | None = None,
        sudo: bool | None = None,
        interpreter: str | None = None,
    ) -> int:
        tail: list[str] = []

        def on_line(stream: Literal["out", "err"], text: str) -> None:
            tail.append(text)
            del tail[:-TAIL_LINES]
            self._at.watch.on_line(stream, text)

        made = self._script(script, args, {**self._env, **(env or {})}, sudo, interpreter)
        result = run_script(self._at.connection, made, self._watch(on_line))
        self._step.check(result, tail)
        assert result.code is not None, "check has refused a result without a code"
        return result.code

    def read(self, script: str | bytes, *args: str, sudo: bool | None = None) -> str:
        lines: list[str] = []
        errors: list[str] = []

        def on_line(stream: Literal["out", "err"], text: str) -> None:
            (lines if stream == "out" else errors).append(text)

        result = run_script(
            self._at.connection, self._script(script, args, self._env, sudo, None), self._watch(on_line)
        )
        self._step.check(result, errors[-TAIL_LINES:], exit_codes=(0,))
        return "".join(f"{line}\n" for line in lines)

    def upload(self, source: Path, dest: str, *, mode: str | None = None, owner: str | None = None) -> None:
        errors: list[str] = []
        placement = Placement(dest, sudo=self._step.options.sudo, mode=mode, owner=owner)
        watch = self._watch(lambda _, text: errors.append(text))
        try:
            result = upload_path(self._at.connection, str(source), Path.cwd(), placement, watch)
        except OSError as error:
            raise ImagepipeError(f"reading {error.filename or source}: {error.strerror or error}") from error
        self._step.check(result, errors, exit_codes=(0,))

    def write(self, content: str | bytes, dest: str, *, mode: str | None = None, owner: str | None = None) -> None:
        errors: list[str] = []
        placement = Placement(dest, sudo=self._step.options.sudo, mode=mode, owner=owner)
        blob = content.encode() if isinstance(content, str) else content
        watch = self._watch(lambda _, text: errors.append(text))
        result = upload_bytes(self._at.connection, blob, placement, watch)
        self._step.check(result, errors, exit_codes=(0,))

    def say(self, text: str) -> None:
        self._ctx.say(text)

    def _script(
        self, script: str | bytes, args: tuple[str, ...], env: Mapping[str, str], sudo: bool | None, runs: str | None
    ) -> Script:
        content = script if isinstance(script, bytes) or script.endswith("\n") else f"{script}\n"
        wants_root = self._step.options.sudo if sudo is None else sudo
        return Script(content, args=args, env=env, sudo=wants_root, interpreter=runs)

    def _watch(self, on_line: OnLine) -> Watch:
        return Watch(on_line, self._at.watch.deadline, self._at.watch.cancel)
