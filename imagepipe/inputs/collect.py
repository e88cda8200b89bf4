"""Collect the inputs of an image from its spec and the files that the spec names.

The spec must be loaded with placeholders for `build.*` and for sensitive variables (`LoadedSpec.reference`). So times,
runs and secrets are not inputs. A changed secret therefore does not make an image stale.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel

from imagepipe import render
from imagepipe.inputs.manifest import Input, InputManifest, digest_of
from imagepipe.late import Late
from imagepipe.regular_files import read_regular, read_text
from imagepipe.spec.find import CHECKOUT, SHIPPED
from imagepipe.spec.keys import axis_text
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.step_models import Ansible, AnsibleStep, CustomStep, FileStep, ShellStep, TemplateStep
from imagepipe.spec.steps import StepAt
from imagepipe.spec.titles import step_title
from imagepipe.step_kinds import installed_kinds

NAMES_AND_TIMES = frozenset({"name", "description", "tags", "on_name_taken", "timeout", "per_region"})
"""Keys of `output` that do not decide the content of an image."""
LAUNCH_KEYS = ("user_data", "block_devices")
"""Keys of `launch` that decide the content of an image."""
BESIDE_A_PLAYBOOK = (
    "ansible.cfg",
    *("roles", "group_vars", "host_vars", "files", "templates", "tasks", "handlers", "vars", "library", "collections"),
    *("module_utils", "action_plugins", "filter_plugins", "lookup_plugins", "test_plugins", "callback_plugins"),
)
"""Files and folders that Ansible looks for beside a playbook (Ansible user guide, "Sample directory layout")."""
SHOWN = 80
"""Longest text of a value in a manifest."""
HIDDEN = "(sensitive)"


def collect_inputs(loaded: LoadedSpec) -> InputManifest | None:
    """Return the inputs of an image except its source image; None if the spec cannot be loaded without its secrets."""
    reference = loaded.reference
    if reference is None:
        return None
    return InputManifest.of([*_steps(reference), *_settings(reference), *_variables(reference)])


def _settings(loaded: LoadedSpec) -> Iterator[Input]:
    spec = loaded.checked()
    for key in LAUNCH_KEYS:
        if value := _plain(getattr(spec.launch, key)):
            yield Input("launch", f"launch.{key}", digest_of(value), value=_short(value))
    for key, value in _plain(spec.output).items():
        if key not in NAMES_AND_TIMES and value not in (None, [], {}, ""):
            yield Input("output", f"output.{key}", digest_of(value), value=_short(value))


def _steps(loaded: LoadedSpec) -> Iterator[Input]:
    sudo = loaded.checked().launch.ssh.sudo
    for at in (*loaded.steps, *loaded.tests):
        conditions = [condition.decide() for condition in at.conditions]
        if False in conditions:
            continue
        late = [condition for condition in conditions if isinstance(condition, Late)]
        options = {key: value for key, value in _plain(at.step).items() if key != "name"}
        options["sudo"] = sudo if options.get("sudo") is None else options["sudo"]
        content = [type(at.step).__name__, options, _plain(late)]
        if isinstance(at.step, TemplateStep):
            content.append(_plain(_names_read(at.folder / at.step.template.src, at.names)))
        if isinstance(at.step, CustomStep):
            content.append(installed_kinds()[at.step.kind].version)
        yield Input("step", at.path, digest_of(content), value=_short(step_title(at.step)))
        for root in files_of_step(at):
            yield from _files(root, loaded.file.resolve().parent)


def files_of_step(at: StepAt) -> tuple[Path, ...]:
    """Return the files and folders that a step reads."""
    return tuple(at.folder / name for name in names_of_step(at))


def names_of_step(at: StepAt) -> tuple[str, ...]:
    """Return the files and folders that a step reads, as it names them."""
    match at.step:
        case ShellStep(shell=shell):
            return (shell.script,) if shell.script is not None else ()
        case FileStep(file=file):
            return (file.src,)
        case TemplateStep(template=template):
            return (template.src,)
        case AnsibleStep(ansible=ansible):
            return ansible_files(ansible, at.folder)
        case CustomStep(kind=name, given=given):
            kind, options = installed_kinds()[name].read(given)
            return tuple(kind.files(options))
        case _:
            return ()


def ansible_files(ansible: Ansible, folder: Path) -> tuple[str, ...]:
    """Return the playbook and the files and folders that it reads, from the folder of the file that names it."""
    parent = PurePosixPath(ansible.playbook).parent
    names = ansible.files or [name for name in BESIDE_A_PLAYBOOK if (folder / parent / name).exists()]
    return (ansible.playbook, *(str(parent / name) for name in names))


def _files(root: Path, folder: Path) -> Iterator[Input]:
    """Yield a file, or a folder and everything in it."""
    paths: Iterable[Path] = (root, *sorted(root.rglob("*"))) if root.is_dir() else (root.resolve(),)
    for path in paths:
        name = _shown_path(root if path == root.resolve() else path, folder)
        try:
            if path.is_symlink() and path != root:
                target = os.readlink(path)  # noqa: PTH115 - as it is written
                yield Input("file", name, digest_of(["link", target]), mode=f"-> {target}")
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            content = b"folder" if path.is_dir() else read_regular(path)
            yield Input("file", name, hashlib.sha256(content).hexdigest(), mode=f"{mode:04o}")
        except OSError as error:
            yield Input("file", name, "unreadable", value=error.strerror or "")  # its stage reports the error


def _shown_path(path: Path, folder: Path) -> str:
    """Return a file's path from the spec's folder; from the package's folder if the file was shipped with it."""
    for shipped in (SHIPPED, CHECKOUT):
        if path.is_relative_to(shipped):
            return f"provisioners/{path.relative_to(shipped)}"
    return os.path.relpath(path, folder)


def _names_read(file: Path, names: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return render.used_by_file(read_text(file), names)
    except (OSError, UnicodeDecodeError):
        return names


def _variables(loaded: LoadedSpec) -> Iterator[Input]:
    """Yield the variables and the axes that are used where they can change the image."""
    spec = loaded.checked()
    used = set(_names_in(loaded.document.value)) | set(_names_in_files(loaded))
    for name in sorted(used):
        root, _, field = name.partition(".")
        if root == "var" and field in spec.variables:
            value = loaded.names["var"].get(field)
            shown = HIDDEN if spec.variables[field].sensitive else _short(value)
            yield Input("variable", name, digest_of(shown if shown == HIDDEN else value), value=shown)
        elif root == "matrix" and field in loaded.axes:
            yield Input("variable", name, digest_of(loaded.axes[field]), value=axis_text(loaded.axes[field]))


def _names_in(document: Any) -> Iterator[str]:
    """Yield the names that a spec uses outside of its names, tags and publication."""
    launch, output = document.get("launch") or {}, document.get("output") or {}
    parts = [
        document.get("provision"),
        document.get("test"),
        *(launch.get(key) for key in LAUNCH_KEYS),
        *(value for key, value in output.items() if key not in NAMES_AND_TIMES),
    ]
    for part in parts:
        yield from _names_in_value(part, "")


def _names_in_value(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _names_in_value(item, str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _names_in_value(item, key)
    elif isinstance(value, str) and (key == "when" or render.is_template(value)):
        yield from render.names_in_expression(value) if key == "when" else render.names_used(value)


def _names_in_files(loaded: LoadedSpec) -> Iterator[str]:
    for at in (*loaded.steps, *loaded.tests):
        if isinstance(at.step, TemplateStep):
            for root, fields in _names_read(at.folder / at.step.template.src, at.names).items():
                yield from (f"{root}.{name}" for name in fields) if root in ("var", "matrix") else ()


def _plain(value: Any) -> Any:
    """Return a value in a form that JSON can hold."""
    if isinstance(value, BaseModel):
        more = value.model_extra or {}
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields} | _plain(more)
    if isinstance(value, Late):
        return {"late": value.text, "known": _plain(dict(value.known))}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _short(value: Any) -> str:
    text = axis_text(value) if isinstance(value, str | int | float | bool) else str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
