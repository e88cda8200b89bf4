"""A spec's steps, one stage after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from imagepipe import render
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref
from imagepipe.provision.files import RenderTemplate, UploadFile
from imagepipe.provision.reboot import RebootMachine
from imagepipe.provision.shell import RunShell
from imagepipe.provision.step import Options
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import FileStep, RebootStep, ShellStep, TemplateStep
from imagepipe.spec.rendering import names_late
from imagepipe.spec.steps import StepAt
from imagepipe.values import Late, Reachable
from imagepipe.wiring.tools import Tools


def add_steps(
    graph: Graph,
    one: LoadedSpec,
    steps: Sequence[StepAt],
    tools: Tools,
    ec2: Ec2,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    prefix: str,
) -> Ref[Reachable]:
    """Each step takes the machine as the step before left it; those whose `when` is false already are left out."""
    width = len(str(len(steps)))
    for number, at in enumerate(steps, start=1):
        late = _conditions(at)
        if late is None:
            continue
        stage = _step(one, at, tools, ec2, machine, source, late)
        machine = graph.add(f"{prefix}{number:0{width}}", stage)
    return machine


def _conditions(at: StepAt) -> tuple[Late, ...] | None:
    """Conditions that only the run can decide; None where one is false already."""
    own = ((at.step.when, at.names),) if at.step.when else ()
    late = []
    for expression, names in (*at.whens, *own):
        used = render.names_in_expression(expression)
        if names_late(used) or any(render.has_late(names.get(name.partition(".")[0])) for name in used):
            late.append(Late(expression, tuple(names.items())))
        elif not render.holds(expression, names):
            return None
    return tuple(late)


def _step(
    one: LoadedSpec,
    at: StepAt,
    tools: Tools,
    ec2: Ec2,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    late: tuple[Late, ...],
) -> RunShell | UploadFile | RenderTemplate | RebootMachine:
    step, ssh = at.step, one.checked().launch.ssh
    options = Options(
        title=step.name or _title(at),
        where=f"{at.file}:{at.line}",
        timeout_seconds=step.timeout,
        retries=step.retries,
        sudo=ssh.user != "root" and (ssh.sudo if step.sudo is None else step.sudo),
        exit_codes=step.exit_codes,
        expect_disconnect=step.expect_disconnect,
        idempotent=step.idempotent,
        env=step.env,
        when=late,
    )
    base = (ec2, tools.connections, machine, source, options)
    match step:
        case ShellStep(shell=shell):
            script = at.folder / shell.script if shell.script is not None else shell.inline or ()
            return RunShell(*base, script=script, args=shell.args, interpreter=shell.interpreter)
        case FileStep(file=file):
            return UploadFile(*base, folder=at.folder, src=file.src, dest=file.dest, mode=file.mode, owner=file.owner)
        case TemplateStep(template=template):
            return RenderTemplate(
                *base,
                src=at.folder / template.src,
                dest=template.dest,
                vars=template.vars,
                known=dict(at.names),
                mode=template.mode,
                owner=template.owner,
            )
        case RebootStep(reboot=reboot):
            return RebootMachine(*base, timeout_seconds=reboot.timeout)
        case _:
            assert_never(step)


def _title(at: StepAt) -> str:
    """What a step without a name is called."""
    match at.step:
        case ShellStep(shell=shell) if shell.script is not None:
            return Path(shell.script).name
        case ShellStep(shell=shell):
            first = next((line for part in shell.inline or () for line in _text(part).splitlines() if line.strip()), "")
            return first.strip()[:60] or "shell"
        case FileStep(file=file):
            return f"{file.src} -> {file.dest}"
        case TemplateStep(template=template):
            return f"{Path(template.src).name} -> {template.dest}"
        case RebootStep():
            return "reboot"
        case _:
            assert_never(at.step)


def _text(part: str | Late) -> str:
    return part.text if isinstance(part, Late) else part
