"""The titles of steps and tests, for logs and for lists of inputs."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from imagepipe.late import Late
from imagepipe.spec.step_models import AnsibleStep, CustomStep, FileStep, PlainStep, RebootStep, ShellStep, TemplateStep
from imagepipe.spec.tests import CommandTest, HttpTest, PackageTest, PathTest, PlainTest, PortTest, ServiceTest
from imagepipe.step_kinds import installed_kinds

LONGEST = 60


def step_title(step: PlainStep | PlainTest) -> str:
    """Return the name of a step or a test, or a title made of its content."""
    if step.name:
        return step.name
    match step:
        case ShellStep() | FileStep() | TemplateStep() | RebootStep() | AnsibleStep() | CustomStep():
            return _title_of_step(step)
        case _:
            return _title_of_test(step)


def _title_of_step(step: PlainStep) -> str:
    match step:
        case ShellStep(shell=shell) if shell.script is not None:
            return Path(shell.script).name
        case ShellStep(shell=shell):
            first = next((line for part in shell.inline or () for line in _text(part).splitlines() if line.strip()), "")
            return first.strip()[:LONGEST] or "shell"
        case FileStep(file=file):
            return f"{file.src} -> {file.dest}"
        case TemplateStep(template=template):
            return f"{Path(template.src).name} -> {template.dest}"
        case RebootStep():
            return "reboot"
        case AnsibleStep(ansible=ansible):
            return Path(ansible.playbook).name
        case CustomStep():
            return _title_of_custom(step)
        case _:
            assert_never(step)


def _title_of_custom(step: CustomStep) -> str:
    try:
        kind, options = installed_kinds()[step.kind].read(step.given)
        return kind.title(options)[:LONGEST] or step.kind
    except Exception:  # noqa: BLE001 - the check of the step reports what its package raised
        return step.kind


def _title_of_test(test: PlainTest) -> str:
    match test:
        case HttpTest(http=http):
            return f"{http.method} {http.url}"
        case PortTest(port=port):
            host = "" if port.host == "localhost" else f" of {port.host}"
            return f"port {port.port}/{port.protocol}{host} is {port.state}"
        case PackageTest(package=package):
            version = f" {package.version}" if package.version else ""
            return f"package {package.name}{version} is {package.state}"
        case ServiceTest(service=service):
            boot = {None: None, True: "enabled", False: "disabled"}[service.enabled]
            return f"service {service.name} is {' and '.join(filter(None, (service.expected_state, boot)))}"
        case PathTest(path=path):
            return (
                f"{path.path} {'does not exist' if path.absent else 'is as expected' if _has_facts(test) else 'exists'}"
            )
        case CommandTest(command=command):
            words = command.command if isinstance(command.command, tuple) else (command.command,)
            text = " ".join(word.text if isinstance(word, Late) else word for word in words)
            return next((line.strip() for line in text.splitlines() if line.strip()), "command")[:LONGEST]
        case _:
            assert_never(test)


def _text(part: str | Late) -> str:
    return part.text if isinstance(part, Late) else part


def _has_facts(test: PathTest) -> bool:
    return len(test.path.model_fields_set) > 1
