"""Run a script on the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagepipe import render
from imagepipe.clock import Deadline
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Connection, Result
from imagepipe.engine.stage import Context
from imagepipe.errors import ImagepipeError
from imagepipe.provision.step import Step
from imagepipe.values import Text


@dataclass(frozen=True)
class RunShell(Step):
    """A script, given as text or as a file of ours."""

    script: tuple[Text, ...] | Path
    """Lines, or the path of a file."""
    args: tuple[Text, ...] = ()
    interpreter: str | None = None

    def attempt(
        self,
        ctx: Context,
        connection: Connection,
        names: Mapping[str, object],
        *,
        on_line: Callable[[Literal["out", "err"], str], None],
        deadline: Deadline,
    ) -> Result:
        script = Script(
            text=self._text(names),
            args=tuple(render.finish(arg, names) for arg in self.args),
            env=self.env(names),
            sudo=self.options.sudo,
            interpreter=self.interpreter,
        )
        return run_script(connection, script, on_line=on_line, deadline=deadline, cancel=ctx.cancel, clock=ctx.clock)

    def _text(self, names: Mapping[str, object]) -> str:
        if isinstance(self.script, Path):
            try:
                return self.script.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ImagepipeError(f"reading the script {self.script}: {error}") from error
        text = "\n".join(render.finish(line, names) for line in self.script)
        return text if text.endswith("\n") else text + "\n"
