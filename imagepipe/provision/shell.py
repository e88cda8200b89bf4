"""Run a script on the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from imagepipe import render
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Result
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context
from imagepipe.errors import ImagepipeError
from imagepipe.late import Text
from imagepipe.provision.step import Attempt, Step
from imagepipe.regular_files import read_script


@dataclass(frozen=True)
class RunShell(Step):
    """Run a script, given as text or as a local file."""

    script: tuple[Text, ...] | Path
    """Lines of the script, or the path of a file."""
    args: tuple[Text, ...] = ()
    interpreter: str | None = None

    def files(self) -> tuple[Path, ...]:
        return (self.script,) if isinstance(self.script, Path) else ()

    def awaits_disconnect(self) -> bool:
        return self.options.expect_disconnect

    def attempt(self, ctx: Context, at: Attempt) -> Result:
        script = Script(
            self._content(at.names),
            args=tuple(render.render_late(arg, at.names) for arg in self.args),
            env=self.env(at.names),
            sudo=self.options.sudo,
            interpreter=self.interpreter,
        )
        return run_script(at.connection, script, at.watch)

    def _content(self, names: Mapping[str, object]) -> str | bytes:
        if isinstance(self.script, Path):
            try:
                return read_script(self.script)
            except OSError as error:
                raise ImagepipeError(f"reading the script {self.script}: {error}") from error
        text = "\n".join(render.render_late(line, names) for line in self.script)
        return text if text.endswith("\n") else text + "\n"
