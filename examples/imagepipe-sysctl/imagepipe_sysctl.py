"""The step kind `sysctl`: kernel parameters that the image sets whenever it boots."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from imagepipe import Machine, StepKind


class Options(BaseModel):
    """The value of the step: `sysctl: {set: {vm.swappiness: 10}}`."""

    model_config = ConfigDict(extra="forbid")

    set: dict[str, int | str] = Field(description="Kernel parameters by name.", min_length=1)
    file: str | None = Field(None, description="A file with more parameters, in the format of sysctl.d.")


class Sysctl(StepKind):
    """Writes /etc/sysctl.d/60-imagepipe.conf, and checks that the kernel knows each parameter."""

    options = Options

    def title(self, options: Options) -> str:
        return f"sysctl {', '.join(options.set)}"

    def files(self, options: Options) -> tuple[str, ...]:
        return (options.file,) if options.file else ()

    def check(self, options: Options, folder: Path) -> list[str]:
        return [f"'{name}' is not the name of a kernel parameter" for name in options.set if "." not in name]

    def run(self, options: Options, machine: Machine, folder: Path) -> None:
        machine.run('for name; do test -e "/proc/sys/$(echo "$name" | tr . /)"; done', *options.set)
        lines = [f"{name} = {value}" for name, value in options.set.items()]
        if options.file:
            lines.append((folder / options.file).read_text(encoding="utf-8").rstrip())
        machine.write("\n".join(lines) + "\n", "/etc/sysctl.d/60-imagepipe.conf", mode="0644")
        machine.say(f"{len(lines)} lines written to /etc/sysctl.d/60-imagepipe.conf")
