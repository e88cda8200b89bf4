"""The actions of a plan: each stage that finds, creates, copies, shares or replaces something, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from imagepipe.dataclass import dataclass
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Stage

Verb = Literal["find", "launch", "create", "upload", "copy", "share", "write", "change", "replace", "retire"]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a build would do."""

    spec: str
    verb: Verb
    what: str
    region: str = ""
    is_temporary: bool = False
    """True if the resource is deleted at the end of the build."""

    def describe(self) -> str:
        """Return the action as text."""
        place = f" {'to' if self.verb == 'copy' else 'in'} {self.region}" if self.region else ""
        return f"{self.verb} {self.what}{place}{' (temporary)' if self.is_temporary else ''}"

    def to_json(self) -> dict[str, Any]:
        """Return the value for `--format json`."""
        return {
            "spec": self.spec,
            "verb": self.verb,
            "what": self.what,
            "region": self.region or None,
            "temporary": self.is_temporary,
        }


_Describe = Callable[[Any, str], tuple[Verb, str]]
"""Returns verb and object of a stage, given the stage and its name without the spec's prefix."""


def _launched(stage: Any, name: str) -> tuple[Verb, str]:
    types = ", else ".join(stage.instance_types)
    return "launch", f"{'a test instance' if name.startswith('test-') else 'an instance'} ({types})"


def _days(stage: Any) -> str:
    days = stage.after_seconds / 86400
    return f"{days:g} day{'' if days == 1 else 's'}"


DESCRIBED: Mapping[str, _Describe] = {
    "FindSource": lambda stage, name: ("find", "the source image"),
    "FindBase": lambda stage, name: ("find", f"the image of {stage.base}"),
    "UseExisting": lambda stage, name: ("find", f"{stage.image}, which is used again"),
    "MakeKey": lambda stage, name: ("create", "a key pair"),
    "MakeGroup": lambda stage, name: ("create", "a security group"),
    "Launch": _launched,
    "CaptureEbs": lambda stage, name: ("create", "the image and its snapshots"),
    "BundleRoot": lambda stage, name: ("upload", "the bundle"),
    "RegisterBundle": lambda stage, name: ("create", "the image of the bundle"),
    "CopyToRegion": lambda stage, name: ("copy", "the image"),
    "CopyBundleToRegion": lambda stage, name: ("copy", "the bundle and its image"),
    "ShareImage": lambda stage, name: ("share", f"the image with {stage.audience.describe()}"),
    "TagImage": lambda stage, name: ("change", f"the image's tags {', '.join(stage.tags)}"),
    "RevokeGrants": lambda stage, name: ("change", "the image's permissions (all others are removed)"),
    "DeprecateImage": lambda stage, name: ("change", f"the image's deprecation ({_days(stage)} after its creation)"),
    "RemoveDeprecation": lambda stage, name: ("change", "the image's deprecation (removed)"),
    "ProtectImage": lambda stage, name: ("change", "the image's deregistration protection"),
    "RemoveProtection": lambda stage, name: ("change", "the image's deregistration protection (removed)"),
    "UpdateTemplate": lambda stage, name: ("create", f"a version of launch template {stage.target} with the image"),
    "WriteParameter": lambda stage, name: ("write", f"SSM parameter {stage.parameter.name_in(stage.ec2.region)}"),
    "ReplaceImage": lambda stage, name: ("replace", "the image that has the name now, with its data"),
}
"""Verb and object by class of stage. A test compares the classes with those of the recipe."""
SILENT = frozenset(
    {
        *("RecordInputs", "NameImages", "CheckNames", "CheckTypes", "CheckBucket", "CheckPublic", "CheckKeys"),
        *("CheckParameter", "CheckTemplates"),
        *("UseKey", "UseGroups", "AwaitSsh", "AwaitAddress", "Scrub", "Stop", "TerminateInstance", "UseImage"),
        *("CheckNewInstance", "PublishGate", "Keep", "RetireImages", "CollectImages", "ExistingText"),
        *("CheckHygiene", "CheckBundle"),
        *("RunShell", "UploadFile", "RenderTemplate", "RebootMachine", "RunPlaybook", "RunCustom"),
        *("CheckCommand", "CheckHttp", "CheckPackage", "CheckPath", "CheckPort", "CheckService"),
    }
)
"""Stages that check, wait, or work on the machine; they are no actions of their own in a plan."""
TEMPORARY = frozenset({"MakeKey", "MakeGroup", "Launch"})


def actions_of(graph: Graph, spec_of: Callable[[str], str]) -> list[Action]:
    """Return the actions of a graph in its order. `spec_of` returns the key of the spec that a stage belongs to."""
    return [action for name in graph.order() if (action := _action(graph.stages[name], name, spec_of(name)))]


def _action(stage: Stage[Any], name: str, spec: str) -> Action | None:
    kind = type(stage).__name__
    if kind in SILENT:
        return None
    verb, what = DESCRIBED[kind](stage, name.rpartition("/")[2])
    return Action(spec, verb, what, stage.ec2.region, kind in TEMPORARY)  # type: ignore[attr-defined]  # all have one
