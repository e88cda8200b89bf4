"""Run a command and check its exit code and its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from imagepipe import render
from imagepipe.communicator.output_hints import hint_of_output
from imagepipe.communicator.shell import Script
from imagepipe.dataclass import dataclass
from imagepipe.late import Text
from imagepipe.provision.checks.check import ITS_OUTPUT, Check, Mismatch, Output, one_of
from imagepipe.provision.checks.content import ExpectedText

_EXEC = 'exec "$@"\n'


@dataclass(frozen=True)
class CheckCommand(Check):
    """Check the exit code and the output of a command, which may run several times."""

    command: Text | tuple[Text, ...]
    """A script, or a program and its arguments."""
    exit_codes: tuple[int, ...]
    stdout: ExpectedText
    stderr: ExpectedText
    env: Mapping[str, Text] = field(default_factory=dict, repr=False)

    def script(self, names: Mapping[str, object]) -> Script:
        env, sudo = render.render_late_values(self.env, names), self.options.sudo
        if isinstance(self.command, tuple):
            words = tuple(render.render_late(word, names) for word in self.command)
            return Script(_EXEC, args=words, env=env, sudo=sudo, interpreter="sh")
        text = render.render_late(self.command, names)
        return Script(text if text.endswith("\n") else text + "\n", env=env, sudo=sudo)

    def judge(self, code: int | None, output: Output) -> Mismatch | None:
        if code not in self.exit_codes:
            how = "was ended by a signal" if code is None else f"ended with {code}"
            hint = hint_of_output(output.of("err")) or (
                "the program was not found on the instance" if code == 127 else None
            )
            return Mismatch(
                f"expected exit code {one_of(self.exit_codes)}, and it {how}", hint, output.tail(), ITS_OUTPUT
            )
        for name, stream, expected in (
            ("standard output", output.of("out"), self.stdout),
            ("standard error", output.of("err"), self.stderr),
        ):
            if mismatch := expected.compare(name, "\n".join(stream).encode()):
                return mismatch
        return None

    def shows_output(self) -> bool:
        return True
