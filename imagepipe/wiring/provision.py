"""Translate a spec's steps and tests into stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from imagepipe import render
from imagepipe.cloud.images import SourceImage
from imagepipe.engine.stage import After, Ref
from imagepipe.inputs.collect import ansible_files, names_of_step
from imagepipe.late import Late
from imagepipe.provision.files import RenderTemplate, UploadFile
from imagepipe.provision.reboot import RebootMachine
from imagepipe.provision.shell import RunShell
from imagepipe.provision.step import Options, Step
from imagepipe.regular_files import read_text
from imagepipe.spec.step_models import AnsibleStep, CustomStep, FileStep, PlainStep, RebootStep, ShellStep, TemplateStep
from imagepipe.spec.steps import StepAt
from imagepipe.spec.tests import RetriedTest
from imagepipe.spec.titles import step_title
from imagepipe.step_kinds import installed_kinds
from imagepipe.values import Reachable
from imagepipe.wiring.build import ImageBuild

if TYPE_CHECKING:
    from imagepipe.provision.checks.check import Check


def add_steps(
    build: ImageBuild, name: str, steps: Sequence[StepAt], machine: Ref[Reachable], source: Ref[SourceImage]
) -> Ref[Reachable]:
    """Add the stages NAME-1, NAME-2, …: each takes the machine from the step before it.

    A step whose `when` is already known to be false is left out.
    """
    width = len(str(len(steps)))
    for number, at in enumerate(steps, start=1):
        late = _conditions(at)
        if late is None:
            continue
        assert not isinstance(at.step, RetriedTest), "a test is not among the steps of provision"
        stage = _step(build, at, at.step, machine, source, late)
        machine = build.stages.add(f"{name}-{number:0{width}}", stage)
    return machine


def add_tests(build: ImageBuild, machine: Ref[Reachable], source: Ref[SourceImage]) -> tuple[Ref[Reachable], ...]:
    """Add the stages test-1, test-2, … in this order, and return them.

    All tests run, even if some fail; with `fail_fast`, the first failure stops the rest.
    """
    tests, fail_fast = build.loaded.tests, build.spec.fail_fast
    width = len(str(len(tests)))
    found: list[Ref[Reachable]] = []
    for number, at in enumerate(tests, start=1):
        late = _conditions(at)
        if late is None:
            continue
        follows = tuple(After(ref.stage) for ref in found[-1:])
        stage: Step | Check
        if isinstance(at.step, RetriedTest):
            from imagepipe.wiring.tests import check_stage  # loads all kinds of tests

            stage = check_stage(build, at.step, at.where(), machine, source, late)
        else:
            stage = _step(build, at, at.step, machine, source, late)
        stage = replace(stage, follows=follows, stops_on_failure=fail_fast)
        found.append(build.stages.add(f"test-{number:0{width}}", stage))
    return tuple(found)


def _conditions(at: StepAt) -> tuple[Late, ...] | None:
    """Return the conditions that are decided during the run; None if one is already false."""
    late = []
    for condition in at.conditions:
        match condition.decide():
            case False:
                return None
            case Late() as undecided:
                late.append(undecided)
    return tuple(late)


def _step(
    build: ImageBuild,
    at: StepAt,
    step: PlainStep,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    late: tuple[Late, ...],
) -> Step:
    ssh = build.spec.launch.ssh
    options = Options(
        title=step_title(step),
        where=at.where(),
        timeout_seconds=step.timeout,
        retries=step.retries,
        sudo=ssh.user != "root" and (ssh.sudo if step.sudo is None else step.sudo),
        exit_codes=step.exit_codes,
        expect_disconnect=step.expect_disconnect,
        idempotent=step.idempotent,
        env=step.env,
        when=late,
    )
    base = (build.ec2, build.tools.connections, machine, source, options)
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
                known=_names_read(at.folder / template.src, at.names),
                mode=template.mode,
                owner=template.owner,
            )
        case RebootStep(reboot=reboot):
            return RebootMachine(*base, timeout_seconds=reboot.timeout)
        case AnsibleStep(ansible=ansible):
            from imagepipe.provision.ansible import RunPlaybook

            return RunPlaybook(
                *base,
                folder=at.folder,
                playbook=ansible.playbook,
                names=ansible_files(ansible, at.folder),
                is_here=ansible.run == "here",
                extra_vars=ansible.extra_vars,
                groups=ansible.groups,
                args=ansible.args,
            )
        case CustomStep(kind=kind, given=given):
            from imagepipe.provision.custom import RunCustom

            return RunCustom(
                *base,
                folder=at.folder,
                kind=kind,
                version=installed_kinds()[kind].version,
                given=given,
                names=names_of_step(at),
            )
        case _:
            assert_never(step)


def _names_read(file: Path, names: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the names that a template file reads; all of them if it cannot be read, which its step reports."""
    try:
        return render.used_by_file(read_text(file), names)
    except (OSError, UnicodeDecodeError):
        return names
