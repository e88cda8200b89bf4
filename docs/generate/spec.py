"""docs/reference/spec.md and the JSON Schema, made from the models: `python -m docs.generate.spec FILE`."""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from imagepipe.late import Late
from imagepipe.spec import models, step_models, tests
from imagepipe.spec.base import CommonOptions
from imagepipe.spec.json_schema import MODELS, SchemaOf, json_schema
from imagepipe.spec.scalars import duration_text

PARTS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("A spec", models.Spec, ""),
    ("variables", models.Variable, "By name: `variables: {greeting: {default: hello}}`."),
    ("matrix", models.Matrix, "Every other key is an axis, with its values: `matrix: {release: [bookworm, trixie]}`."),
    ("source", models.Source, ""),
    ("source.ami: a filter", models.AmiByFilter, ""),
    ("source.ami: an SSM parameter", models.AmiBySsm, ""),
    ("launch", models.Launch, ""),
    ("launch.spot", models.Spot, ""),
    ("launch.block_devices", models.BlockDevice, "Also `output.block_devices`."),
    ("launch.ssh", models.Ssh, ""),
    ("launch.ssh.bastion", models.Bastion, ""),
    (
        "Every step",
        step_models.StepOptions,
        "A step also has exactly one of `shell`, `file`, `template`, `reboot`, `ansible`, `use`, or a kind that"
        " [another package adds](../how-to/add-a-step-kind.md).",
    ),
    ("shell", step_models.ShellScript, "A string or a list of lines is the short form of `inline`."),
    ("file", step_models.FileCopy, ""),
    ("template", step_models.TemplateFile, ""),
    ("reboot", step_models.Reboot, ""),
    (
        "ansible",
        step_models.Ansible,
        "A path is the short form of `playbook`. How to: [Ansible](../how-to/ansible.md).",
    ),
    ("use", step_models.UseStep, "Its options apply to each step of the provisioner that does not set them."),
    (
        "test",
        tests.RetriedTest,
        "A test is a step, or has exactly one of `http`, `port`, `package`, `service`, `path`, `command`, and these"
        " options.",
    ),
    ("test: http", tests.Http, "A URL is the short form of `url`."),
    ("test: port", tests.Port, "A number is the short form of `port`."),
    ("test: package", tests.Package, "A name is the short form of `name`."),
    ("test: service", tests.Service, "A name is the short form of `name`."),
    ("test: path", tests.PathFacts, "A path is the short form of `path`."),
    ("test: command", tests.Command, "A script or a list is the short form of `command`. The test may have `env`."),
    ("test: command: output", tests.OutputText, "For `stdout` and `stderr`."),
    ("output: an EBS-backed image", models.EbsOutput, ""),
    ("output.encrypt", models.Encrypt, ""),
    (
        "output.encrypt.per_region",
        models.EncryptRegion,
        "By region: `per_region: {us-west-2: {kms_key: alias/images}}`.",
    ),
    ("output: an instance-store-backed image", models.InstanceStoreOutput, ""),
    ("output.per_region", models.BundleRegion, "By region: `per_region: {us-west-2: {bucket: my-images-west}}`."),
    ("publish", models.Publish, ""),
    ("publish.share", models.Share, ""),
    ("publish.launch_templates", models.LaunchTemplate, ""),
    ("publish.deregistration_protection", models.DeregistrationProtection, "Or `true` or `false`."),
    ("hygiene.allow", models.HygieneException, ""),
    ("reuse", models.Reuse, "`reuse: unchanged` sets no age."),
    ("A provisioner: `provisioners/NAME/provisioner.yaml`", models.Provisioner, ""),
    ("parameters", models.Parameter, ""),
    ("A project: `imagepipe.yaml`", models.Project, ""),
    ("defaults", models.Defaults, ""),
)

HEAD = """# The spec language

Generated from the models by `make docs`; do not edit. Start with the [tutorial](../tutorial.md).

Durations are written `90s`, `5m`, `2h`, `90d`, or together `1h30m`. Fields that take a *text* may use `{{ source.id
}}`, `{{ source.name }}`, `{{ source.owner }}` and `{{ region }}`, besides `{{ var.NAME }}`, `{{ matrix.AXIS }}`, `{{
spec.name }}`, `{{ build.id }}`, `{{ build.timestamp }}` and `{{ build.git_sha }}`; every other scalar may use only
`var`, `matrix`, `spec` and `build`. `{{ x | quote }}` quotes for a shell. A `when` is an expression without braces.
Outside a git repository with a commit, a build refuses `build.git_sha`, unless it is `build.git_sha |
default('none')`.

Paths are relative to the file that names them, not to the working directory.

A variable takes its value from the first of these that is set: `--var NAME=VALUE`; the last `--var-file` with it (a
YAML mapping `NAME: VALUE`, or the same in JSON; keep it out of `specs/`); `IMAGEPIPE_VAR_NAME` in the environment; the
environment variable named by its `env`; its `default`. A variable without `default` is required: a build needs a value
for it. A `sensitive` variable reaches a step through the step's `env` only, and is masked in all output; do not write
it into a file that stays in the image.
"""


def reference() -> str:
    """Return the page."""
    return HEAD + "".join(_part(*part) for part in PARTS)


def schema_text(of: SchemaOf) -> str:
    """Return the JSON Schema of a kind of file."""
    return json.dumps(json_schema(of), indent=2, ensure_ascii=False) + "\n"


def _part(title: str, model: type[BaseModel], note: str) -> str:
    lines = [f"\n## {title}\n", f"\n{(model.__doc__ or '').strip()} {note}".rstrip() + "\n"]
    lines.append("\n| key | value | default | |\n|---|---|---|---|\n")
    skip = set(step_models.StepOptions.model_fields) if model is step_models.UseStep else set()
    for name, field in model.model_fields.items():
        if name not in skip:
            lines.append(_row(field.alias or name, field))
    return "".join(lines)


def _row(name: str, field: FieldInfo) -> str:
    description = (field.description or "").replace("|", "\\|")
    limits = _limits(field)
    text = f"{description}{f' ({limits})' if limits else ''}"
    return (
        f"| `{name}` | {_kind(field.annotation, field.metadata).replace('|', ' or ')} | {_default(field)} | {text} |\n"
    )


def _limits(field: FieldInfo) -> str:
    found = {key: getattr(item, key) for item in field.metadata for key in ("ge", "le") if hasattr(item, key)}
    if "ge" in found and "le" in found:
        return f"{found['ge']} to {found['le']}"
    if "ge" in found:
        return f"{found['ge']} or more"
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory is not None or field.default in (None, (), ""):
        return ""
    value = field.default
    if isinstance(value, float) and _is_duration(field.metadata):
        return f"`{duration_text(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _is_duration(metadata: list[Any]) -> bool:
    return any(
        (getattr(item, "json_schema_extra", None) or {}).get("format") == "duration" for item in metadata
    ) or any(getattr(getattr(item, "func", None), "__name__", "") == "_duration" for item in metadata)


def _kind(annotation: Any, metadata: list[Any] | None = None) -> str:
    """Return the name of a type, in YAML's terms."""
    if metadata and _is_duration(metadata):
        return "duration"
    return "|".join(dict.fromkeys(_kinds(annotation)))


def _kinds(annotation: Any) -> Iterator[str]:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        yield _kind(args[0], list(args[1:]))
    elif origin in (Union, types.UnionType):
        if set(args) == {str, Late}:
            yield "text"
            return
        for member in args:
            if member is not type(None):
                yield from _kinds(member)
    elif origin is Literal:
        yield from (f"`{arg}`" for arg in args)
    elif origin in (tuple, list):
        yield f"list of {_kind(args[0])}".replace("|", " or ")
    elif origin is dict:
        yield f"mapping to {_kind(args[1])}".replace("|", " or ")
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        section = _SECTIONS.get(annotation)
        if issubclass(annotation, CommonOptions):
            yield "[test](#test)" if issubclass(annotation, tests.RetriedTest) else "[step](#every-step)"
        elif annotation in _WORDS:
            yield _WORDS[annotation]
        else:
            yield f"[mapping](#{_anchor(section)})" if section else "mapping"
    else:
        names = {str: "string", int: "integer", float: "number", bool: "boolean", Late: "text", Any: "anything"}
        yield names.get(annotation, "anything")


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


_WORDS: dict[type[BaseModel], str] = {models.AmiById: "id", models.SubnetsByTags: "`{tags: {…}}`"}
_SECTIONS: dict[type[BaseModel], str] = {model: title for title, model, _ in PARTS}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(reference(), encoding="utf-8")
    for of in MODELS:
        target.with_name(f"{of}.schema.json").write_text(schema_text(of), encoding="utf-8")
