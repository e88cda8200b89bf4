"""The checks of a step that its model cannot make: files that it names, templates, and kinds of other packages."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

from pydantic import ValidationError

from imagepipe import render
from imagepipe.errors import Problem
from imagepipe.regular_files import broken_link, exists, is_dir, is_file, read_text, special_files
from imagepipe.spec.document import Document, KeyPath, Mark
from imagepipe.spec.explain import LATE_HERE, did_you_mean, explain, nearest
from imagepipe.spec.find import SUFFIXES
from imagepipe.spec.rendering import Scope, find_name
from imagepipe.spec.script_files import script_problem
from imagepipe.spec.step_models import (
    Ansible,
    AnsibleStep,
    CustomStep,
    FileCopy,
    FileStep,
    PlainStep,
    RebootStep,
    ShellScript,
    ShellStep,
    TemplateStep,
)
from imagepipe.step_kinds import StepKindError, installed_kinds

GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
RESERVED_GROUPS = {"all", "ungrouped", "machine"}
"""Names of the inventory that are taken."""
Report = Callable[..., None]
"""Adds a problem: path, message and hint."""


def check_step(
    step: PlainStep, document: Document, at: KeyPath, folder: Path, scope: Scope, unknown: Mapping[KeyPath, str]
) -> list[Problem]:
    """Return the problems of a step that its model does not see: those of its files, or of another package's kind.

    `unknown` has the paths of values that are not known, whose problems are reported elsewhere.
    """
    problems: list[Problem] = []

    def report(path: KeyPath, message: str, hint: str | None = None) -> None:
        if (*at, *path) not in unknown:
            problems.append(document.problem((*at, *path), message, hint=hint))

    match step:
        case ShellStep():
            _check_shell(step.shell, folder, report)
        case FileStep():
            _check_file(step.file, folder, report)
        case TemplateStep():
            if (*at, "template", "src") not in unknown:
                problems += _check_template(step, document, at, folder, scope)
            if step.template.dest.endswith("/"):
                report(("template", "dest"), "must name a file, not a folder")
        case AnsibleStep():
            _check_ansible(step.ansible, folder, report)
        case CustomStep():
            problems += _check_custom(step, document, at, folder, unknown)
        case RebootStep():
            pass
        case _:
            assert_never(step)
    return problems


def _check_file(file: FileCopy, folder: Path, report: Report) -> None:
    source = folder / file.src
    if not exists(source):
        report(("file", "src"), *_missing(file.src, folder))
    elif file.src.endswith("/") and not source.is_dir():
        report(("file", "src"), f"{file.src} is a file, not a folder: remove the slash at its end")
    elif special := _special_file(source, folder):
        report(("file", "src"), special)
    elif source.is_dir() and file.mode:
        report(("file", "mode"), "a folder keeps the modes of its files; mode is for one file")


def _special_file(source: Path, folder: Path) -> str | None:
    """Return a problem if the source contains a special file, such as a socket or a device; otherwise None."""
    try:
        found = next(special_files(source), None)
    except OSError as error:
        return f"{error.filename or source} cannot be read: {error.strerror}"
    if found is None:
        return None
    path, kind = found
    return f"{os.path.relpath(path, folder)} is {kind}: only regular files, folders and links can be uploaded"


def _check_shell(shell: ShellScript, folder: Path, report: Report) -> None:
    if (shell.inline is None) == (shell.script is None):
        report(("shell",), "exactly one of inline and script is needed")
    elif shell.script is not None and not is_file(folder / shell.script):
        report(("shell", "script"), *_missing(shell.script, folder))
    elif shell.script is not None and (problem := script_problem(shell, folder / shell.script)):
        report(("shell", "script"), *problem)
    elif shell.inline is not None and not any(part for part in shell.inline):
        report(("shell",), "the script is empty")


def _check_ansible(ansible: Ansible, folder: Path, report: Report) -> None:
    playbook = folder / ansible.playbook
    if not is_file(playbook):
        report(("ansible", "playbook"), *_missing(ansible.playbook, folder))
        return
    for index, group in enumerate(ansible.groups):
        if group in RESERVED_GROUPS or not GROUP.fullmatch(group):
            taken = group in RESERVED_GROUPS
            why = "Ansible has one of this name" if taken else "write letters, digits, _ and -, and begin with a letter"
            report(("ansible", "groups", index), f"'{group}' cannot be a group of the inventory: {why}")
    for index, name in enumerate(ansible.files):
        path = playbook.parent / name
        at = ("ansible", "files", index)
        if not exists(path):
            report(at, *_missing(name, playbook.parent))
        elif not path.resolve().is_relative_to(playbook.parent.resolve()):
            report(at, f"{name} is not below the playbook's folder, {playbook.parent}")
        elif special := _special_file(path, playbook.parent):
            report(at, special)


def _check_custom(
    step: CustomStep, document: Document, at: KeyPath, folder: Path, unknown: Mapping[KeyPath, str]
) -> list[Problem]:
    """Return the problems of a step whose kind another package adds, those that the package finds included."""
    kind = step.kind
    path = (*at, kind)
    options = sorted(CustomStep.model_fields)
    problems = [
        document.problem((*at, key), f"unknown key '{key}'{did_you_mean(key, options)}", key=True)
        for key in step.model_extra or {}
        if key != kind
    ]
    if render.has_late(step.given):
        return [*problems, document.problem(path, LATE_HERE)]
    if any(each[: len(path)] == path for each in unknown):
        return problems  # the value of one of its templates is not known, which has an error of its own
    installed = installed_kinds()[kind]
    try:
        loaded, given = installed.read(step.given)
        files = loaded.files(given)
        more = [_missing(name, folder) for name in files if not exists(folder / name)]
        more += [(text, None) for text in loaded.check(given, folder)]
        return problems + [document.problem(path, message, hint=hint) for message, hint in more]
    except ValidationError as error:
        return problems + explain(error, document, installed.load().options, prefix=path)
    except StepKindError as error:
        return [*problems, document.problem(path, str(error), key=True, hint=error.hint)]
    except Exception as error:  # noqa: BLE001 - the code of another package may raise anything
        message = f"step kind '{kind}' cannot check its options: {type(error).__name__}: {error}"
        hint = f"this is a fault of the package {installed.package}"
        return [*problems, document.problem(path, message, key=True, hint=hint)]


def _missing(name: str, folder: Path) -> tuple[str, str | None]:
    place = folder / name
    if exists(place):
        return f"{name} is not a regular file", None
    if link := broken_link(place, name):
        return link, None
    if not is_dir(place.parent):
        return f"folder {Path(name).parent} does not exist", "paths are relative to the file that names them"
    return f"file {name} does not exist", _meant(name, folder) or "paths are relative to the file that names them"


def _meant(name: str, folder: Path) -> str | None:
    """Return the hint for a file that is probably meant: one of this name in another folder, or of a similar name."""
    place = folder / name
    for each in (place.parent, *(path for path in _entries(folder) if path.is_dir())):
        if is_file(each / place.name):
            return f"did you mean {os.path.relpath(each / place.name, folder)}?"
    is_spec = Path(name).suffix in SUFFIXES
    beside = [path.name for path in _entries(place.parent) if is_spec or path.suffix not in SUFFIXES]
    meant = nearest(place.name, [each for each in beside if exists(place.parent / each)], cutoff=0.7)
    return f"did you mean {Path(name).parent / meant}?" if meant else None


def _entries(folder: Path) -> list[Path]:
    """Return the paths in a folder, in order; none if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _check_template(step: TemplateStep, document: Document, at: KeyPath, folder: Path, scope: Scope) -> list[Problem]:
    source = folder / step.template.src
    if not is_file(source):
        missing, meant = _missing(step.template.src, folder)
        return [document.problem((*at, "template", "src"), missing, hint=meant)]
    try:
        text = read_text(source)
        names = render.names_used_in_file(text)
    except UnicodeDecodeError:
        return [document.problem((*at, "template", "src"), f"{step.template.src} is not UTF-8; upload it with file:")]
    except OSError as error:
        unreadable = f"{step.template.src} cannot be read: {error.strerror}"
        return [document.problem((*at, "template", "src"), unreadable)]
    except render.RenderError as error:
        lines = Document(str(source), text.split("\n"))
        mark = Mark(error.line, 1, len(lines.lines[error.line - 1])) if error.line else Mark(0, 0, 1)
        return [lines.at(mark, error.message, hint=error.hint)]
    scope.note(names)
    given, optional = [*step.template.vars], render.optional_names_in_file(text)
    return [
        _in_template(source, text, name, message, scope.hint_for(name) or _vars_hint(name, given))
        for name in sorted(names)
        if name not in optional and name.partition(".")[0] not in given and (message := scope.problem_with(name))
    ]


def _vars_hint(name: str, given: list[str]) -> str | None:
    if "." in name:
        return None
    if meant := nearest(name, given):
        return f"did you mean {meant}, which the step sets in vars?"
    return f"the step sets vars {', '.join(given)}" if given else "the step sets no vars"


def _in_template(source: Path, text: str, name: str, message: str, hint: str | None) -> Problem:
    lines = Document(str(source), text.split("\n"))
    for number, line in enumerate(lines.lines, start=1):
        if found := find_name(name, line):
            return lines.at(Mark(number, *found), message, hint=hint)
    return lines.at(Mark(0, 0, 1), message, hint=hint)
