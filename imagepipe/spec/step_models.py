"""The steps and tests of a spec, as frozen models; those that only a test can be are in `tests`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic.json_schema import SkipJsonSchema

from imagepipe.late import Late
from imagepipe.spec.base import CommonOptions, Model, only_key
from imagepipe.spec.scalars import (
    AbsolutePath,
    Duration,
    FileMode,
    Owner,
    ProvisionerName,
)
from imagepipe.spec.script_texts import ScriptText, StepEnvName
from imagepipe.spec.tests import (
    TEST_KINDS,
    CommandTest,
    HttpTest,
    PackageTest,
    PathTest,
    PortTest,
    ServiceTest,
)
from imagepipe.step_kinds import installed_kinds


def _shell(value: Any) -> Any:
    return {"inline": value} if isinstance(value, str | list | Late) else value


def _inline(value: Any) -> Any:
    return [value] if not isinstance(value, list | tuple | dict) else value


class ShellScript(Model):
    """A script to run; exactly one of `inline` and `script`."""

    inline: Annotated[
        tuple[ScriptText, ...] | None, BeforeValidator(_inline, json_schema_input_type=str | tuple[str, ...])
    ] = Field(None, description="The text of the script, or its lines.")
    script: str | None = Field(None, description="Path of the script.")
    args: tuple[ScriptText, ...] = Field((), description="Arguments of the script.")
    interpreter: str | None = Field(
        None,
        description="Interpreter: `/usr/bin/python3`; if absent, bash (or else sh) with `-euo pipefail`.",
        min_length=1,
    )


class FileCopy(Model):
    """A file or a folder to upload."""

    src: str = Field(
        description="Path of the file or folder; with a slash at its end, the contents of the folder.",
        min_length=1,
    )
    dest: AbsolutePath = Field(
        description="Target path; with a slash at its end, the folder to upload into. Existing folders keep their mode "
        "and owner."
    )
    mode: FileMode | None = Field(
        None, description='Mode of the file, in quotes: `"0644"`; the mode of `src` if absent.'
    )
    owner: Owner | None = Field(None, description="`user:group` of new files; root:root with `sudo` if absent.")


class TemplateFile(Model):
    """A Jinja template to render and upload."""

    src: str = Field(description="Path of the template; `{# … #}` is a comment only in such a file.", min_length=1)
    dest: AbsolutePath = Field(description="Target path.")
    mode: FileMode | None = Field(None, description="Mode of the file, in quotes.")
    owner: Owner | None = Field(None, description="`user:group`; root:root with `sudo` if absent.")
    vars: dict[str, Any] = Field(default_factory=dict, description="Further names for the template, besides `var`.")


class Reboot(Model):
    """A reboot, and the wait until SSH answers again."""

    timeout: Duration = Field(300.0, description="Time limit until SSH answers again.")


def _reboot(value: Any) -> Any:
    return {} if value is None else value


class StepOptions(CommonOptions):
    """Options of every step."""

    timeout: Duration = Field(1800.0, description="Time limit of one attempt.")
    retries: int = Field(0, description="Further attempts after a failure, 5 s apart.", ge=0, le=100)
    env: dict[StepEnvName, ScriptText] = Field(
        default_factory=dict, description="Environment of the script; any name except those that shells set themselves."
    )
    exit_codes: tuple[Annotated[int, Field(ge=0, le=255)], ...] = Field(
        (0,), description="Exit codes that count as success; replaces `[0]`.", min_length=1
    )
    expect_disconnect: bool = Field(
        False,
        description="`true`: the step ends the connection, and is over when SSH is back; after a reboot, on the new "
        "boot. If the script ends first, the step waits for the connection to end, until its timeout.",
    )
    idempotent: bool = Field(
        False, description="`true`: the step may run again, in `resume` and after a broken connection."
    )


class ShellStep(StepOptions):
    """Run a script."""

    shell: Annotated[
        ShellScript, BeforeValidator(_shell, json_schema_input_type=str | tuple[str, ...] | ShellScript)
    ] = Field(description="A string, a list of lines, or `{inline | script, args, interpreter}`.")


class FileStep(StepOptions):
    """Upload a file or a folder."""

    file: FileCopy = Field(description="Source and target of the upload.")


class TemplateStep(StepOptions):
    """Render a template and upload it."""

    template: TemplateFile = Field(description="Source and target of the template.")


class RebootStep(StepOptions):
    """Reboot and wait for SSH."""

    reboot: Annotated[Reboot, BeforeValidator(_reboot, json_schema_input_type=Reboot | None)] = Field(
        description="`{}` or `{timeout: 5m}`."
    )


def _ansible(value: Any) -> Any:
    return {"playbook": value} if isinstance(value, str) else value


class Ansible(Model):
    """A playbook of Ansible."""

    playbook: str = Field(description="Path of the playbook.", min_length=1)
    run: Literal["here", "machine"] = Field(
        "here",
        description="`here`: ansible-playbook of this computer works on the machine over SSH. `machine`: that of the "
        "machine works on itself; playbook and files are uploaded, and deleted afterwards.",
    )
    files: tuple[str, ...] = Field(
        (),
        description="Files and folders below the playbook's folder that it reads, relative to that folder. If absent, "
        "those that Ansible looks for: `roles`, `group_vars`, `host_vars`, `files`, `templates`, `tasks`, `handlers`, "
        "`vars`, `library`, `collections`, the folders of plugins, and `ansible.cfg`.",
    )
    extra_vars: dict[str, Any] = Field(default_factory=dict, description="Variables of the playbook.")
    groups: tuple[str, ...] = Field((), description="Groups of the inventory that the machine is in, besides `all`.")
    args: tuple[ScriptText, ...] = Field((), description="More arguments of ansible-playbook: `[--tags, web]`.")


class AnsibleStep(StepOptions):
    """Run a playbook of Ansible."""

    ansible: Annotated[Ansible, BeforeValidator(_ansible, json_schema_input_type=str | Ansible)] = Field(
        description="Path of the playbook, or its options."
    )


class CustomStep(StepOptions):
    """A step of a kind that another package adds; its value is checked by that package's model."""

    model_config = ConfigDict(extra="allow")

    @property
    def kind(self) -> str:
        """The name of the kind: the one key that is not an option."""
        return next(key for key in self.model_extra or {} if key in installed_kinds())

    @property
    def given(self) -> Any:
        """The value of the step, as in the spec; an empty mapping if it has none."""
        value = (self.model_extra or {})[self.kind]
        return {} if value is None else value


class UseStep(StepOptions):
    """Run the steps of a provisioner."""

    use: ProvisionerName = Field(description="Name of a folder under `provisioners/`.")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="Values of the provisioner's parameters."
    )


PlainStep = ShellStep | FileStep | TemplateStep | RebootStep | AnsibleStep | CustomStep
"""A step that is one piece of work; a `use` step stands for several."""

STEP_KINDS = {
    "shell": "shell step",
    "file": "file step",
    "template": "template step",
    "reboot": "reboot step",
    "ansible": "ansible step",
    "use": "use step",
}


def _step_kind(value: Any) -> str | None:
    return only_key(value, STEP_KINDS) or _custom_kind(value, STEP_KINDS)


def _custom_kind(value: Any, known: Mapping[str, str]) -> str | None:
    """Return the tag of a step whose only unknown key is a step kind of another package."""
    if not isinstance(value, dict) or not known.keys().isdisjoint(value):
        return None
    if value.keys() <= StepOptions.model_fields.keys():
        return None
    return "custom step" if sum(key in installed_kinds() for key in value) == 1 else None


_AnyStep = (
    Annotated[ShellStep, Tag("shell step")]
    | Annotated[FileStep, Tag("file step")]
    | Annotated[TemplateStep, Tag("template step")]
    | Annotated[RebootStep, Tag("reboot step")]
    | Annotated[AnsibleStep, Tag("ansible step")]
    | Annotated[UseStep, Tag("use step")]
    | Annotated[SkipJsonSchema[CustomStep], Tag("custom step")]
)
Step = Annotated[_AnyStep, Discriminator(_step_kind)]


def _test_kind(value: Any) -> str | None:
    return only_key(value, STEP_KINDS | TEST_KINDS) or _custom_kind(value, STEP_KINDS | TEST_KINDS)


Test = Annotated[
    _AnyStep
    | Annotated[HttpTest, Tag("http test")]
    | Annotated[PortTest, Tag("port test")]
    | Annotated[PackageTest, Tag("package test")]
    | Annotated[ServiceTest, Tag("service test")]
    | Annotated[PathTest, Tag("path test")]
    | Annotated[CommandTest, Tag("command test")],
    Discriminator(_test_kind),
]
