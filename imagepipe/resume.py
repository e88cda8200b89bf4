"""Find where a dead run can resume: compare its journal with the cloud."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from imagepipe.cloud.ec2 import Regions
from imagepipe.dataclass import dataclass
from imagepipe.engine.encoding import decode, output_type
from imagepipe.engine.graph import Graph
from imagepipe.engine.journal import JournalState
from imagepipe.errors import ImagepipeError, UsageError
from imagepipe.launch.access import Key
from imagepipe.launch.record_inputs import RecordInputs
from imagepipe.launch.source import CheckNames, NameImages
from imagepipe.values import Endpoint, Image, Instance, Reachable, Sealed, Stopped

RESUMABLE_STATES = {
    Instance: ("pending", "running"),
    Reachable: ("running",),
    Sealed: ("running", "stopping", "stopped"),
}


@dataclass(frozen=True, slots=True)
class Recovered:
    """The completed stages of a run whose outputs are still valid."""

    finished: Mapping[str, Any]
    """Outputs of the completed stages by stage."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Stages to run again, each with the reason; their resources are deleted first."""

    def describe(self, graph: Graph) -> list[str]:
        """Return lines for the log that describe the plan."""
        waiting = [name for name in graph.order() if name not in self.finished]
        first = [name for name in waiting if graph.needs(name) <= self.finished.keys()]
        lines = [f"{len(self.finished)} of {len(graph.stages)} stages are done"]
        lines += [
            f"{stage} runs again, because {why}" for stage, why in self.dropped.items() if not why.startswith("after ")
        ]
        lines.append(f"continues with {', '.join(first)}" if first else "only temporary resources are left to delete")
        return lines


def recover(graph: Graph, marks: Mapping[str, str], past: JournalState, regions: Regions) -> Recovered:
    """Compare a run's journal with the cloud. `marks` are the fingerprints of the graph's stages.

    Raises UsageError if the spec, or a file that it names, has changed since.
    """
    known = {name: done for name, done in past.outputs.items() if name in graph.stages}
    changed = sorted(name for name, done in known.items() if done.fingerprint != marks[name])
    strange = sorted(past.outputs.keys() - graph.stages.keys())
    if changed or strange:
        raise UsageError(
            f"run {past.run.id} cannot be resumed: the spec or a file that it names has changed since:"
            f" {', '.join(_first_of(graph, changed) or strange)}",
            hint=f"restore it, or build again; `imagepipe clean {past.run.id}` deletes the resources of the run",
        )
    outputs = {name: _decode(graph, name, done.value, past.run.id) for name, done in known.items()}
    dropped: dict[str, str] = {}
    for name in past.begun - outputs.keys():
        if name in graph.stages:
            machine = _machine_of(graph, name)
            how = "failed" if name in past.failed else "was interrupted"
            _drop(graph, machine, f"{name} {how}, and cannot be repeated on the same machine", outputs, dropped)
    standing: dict[str, str | None] = {}
    while True:
        needed = {
            ref.stage
            for name, stage in graph.stages.items()
            if name not in outputs
            for ref in stage.must_exist()
            if ref.stage in outputs
        }
        for name in sorted(needed - standing.keys()):
            standing[name] = _what_is_wrong(outputs[name], regions)
        fallen = [name for name in graph.order() if name in needed and standing.get(name)]
        if not fallen:
            _list_inputs_again(graph, outputs, dropped)
            return Recovered(outputs, dropped)
        for name in fallen:
            _drop(graph, _origin(graph, name, outputs), str(standing[name]), outputs, dropped)


def _decode(graph: Graph, name: str, value: Any, run: str) -> Any:
    """Return the output of a stage. Raises UsageError if it is not of the stage's type."""
    try:
        return decode(output_type(graph.stages[name]), value)
    except ImagepipeError as error:
        raise UsageError(
            f"run {run} cannot be resumed: the output of {name} was written by another version of imagepipe: {error}",
            hint=f"resume it with that version, or `imagepipe clean {run}` and build again",
        ) from error


def _first_of(graph: Graph, names: list[str]) -> list[str]:
    """Return the stages that changed themselves, not only because of an input."""
    return [name for name in names if not graph.before(name) & set(names)]


def _list_inputs_again(graph: Graph, outputs: dict[str, Any], dropped: dict[str, str]) -> None:
    """Drop the lists of inputs that have changed, and the texts of images that are made of them.

    Only a step or a test that has not succeeded yet can have changed; nothing else needs to run again. An image that is
    made already keeps the fingerprint that is among its tags, and is baked anew when it is wanted next.
    """
    made = [each for each, output in outputs.items() if isinstance(output, Image)]
    for name, stage in graph.stages.items():
        if not isinstance(stage, RecordInputs) or stage.manifest is None or name not in outputs:
            continue
        if any(name in graph.before(each) for each in made):
            continue
        source = outputs.get(stage.source.stage)
        if source is None or stage.manifest.with_source(source.id).fingerprint() == outputs[name]:
            continue
        texts = [each for each in graph.order() if isinstance(graph.stages[each], NameImages | CheckNames)]
        for each in (name, *(each for each in texts if name in graph.before(each))):
            if outputs.pop(each, None) is not None:
                dropped[each] = "the spec has changed" if each == name else f"after {name}"


def _drop(graph: Graph, name: str, why: str, outputs: dict[str, Any], dropped: dict[str, str]) -> None:
    """Drop a stage and all stages that depend on it."""
    outputs.pop(name, None)
    dropped.setdefault(name, why)
    for other in graph.order():
        if name in graph.before(other):
            outputs.pop(other, None)
            dropped.setdefault(other, f"after {name}")


def _origin(graph: Graph, name: str, outputs: Mapping[str, Any]) -> str:
    """Return the stage to start again from: for a machine its launch, otherwise the stage itself."""
    return _machine_of(graph, name) if isinstance(outputs.get(name), Instance | Reachable | Sealed | Stopped) else name


def _machine_of(graph: Graph, name: str) -> str:
    """Return the launch of a stage's machine: the nearest stage before it whose output is an instance."""
    before = [each for each in graph.order() if each in graph.before(name) or each == name]
    return [each for each in before if output_type(graph.stages[each]) is Instance][-1]


def _what_is_wrong(value: Any, regions: Regions) -> str | None:
    """Return the reason why an output is no longer usable; None if it is."""
    match value:
        case Key(private_key=path):
            return _what_is_wrong_with_key(path)
        case Image(id=id, region=region):
            seen = regions[region].images.describe_many([id]).get(id)
            state = str(seen["State"]) if seen else "gone"
            return None if state == "available" else f"{id} in {region} is {state}"
        case Reachable(endpoint=endpoint) if wrong := _what_is_wrong_with_login(endpoint):
            return wrong
        case Instance() | Reachable() | Sealed() | Stopped():
            instance = value if isinstance(value, Instance) else value.instance
            state = _state(instance, regions)
            wanted = RESUMABLE_STATES.get(type(value), ("stopped",))
            if isinstance(value, Stopped) and instance.spot:
                wanted = ("running",)
            return None if state in wanted else f"{instance.id} in {instance.region} is {state}"
        case _:
            return None


def _what_is_wrong_with_login(endpoint: Endpoint) -> str | None:
    """Return the reason why a machine, or the bastion before it, cannot be logged in to from here."""
    own = _what_is_wrong_with_key(endpoint.private_key)
    return own or (_what_is_wrong_with_login(endpoint.via) if endpoint.via else None)


def _what_is_wrong_with_key(path: str) -> str | None:
    """Return the reason why a private key cannot be used: it is gone, or on another machine or of another user."""
    return None if os.access(path, os.R_OK) else f"the private key {path} is not here"


def _state(instance: Instance, regions: Regions) -> str:
    seen = regions[instance.region].instances.describe_many([instance.id]).get(instance.id)
    return str(seen["State"]["Name"]) if seen else "gone"
