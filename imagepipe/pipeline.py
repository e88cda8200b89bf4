"""THE RECIPE: from checked specs to the graph of stages that bakes them. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

from imagepipe.capture.instance_store.preconditions import CheckTypes
from imagepipe.capture.scan.stages import CheckNewInstance
from imagepipe.capture.stop import TerminateInstance
from imagepipe.cloud.images import SourceImage
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref, Stage
from imagepipe.errors import UsageError
from imagepipe.launch.access import Network
from imagepipe.launch.source import CheckNames, FindSource, NameImages
from imagepipe.publish.keep import Keep
from imagepipe.publish.replace import CollectImages, ReplaceImage
from imagepipe.publish.share import CheckPublic, ShareImage
from imagepipe.publish.test import PublishGate, UseImage
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import EbsOutput, InstanceStoreOutput, Spec
from imagepipe.values import Image, Instance
from imagepipe.wiring.images import (
    as_bundle,
    as_ebs,
    audience_of,
    check_bucket,
    check_of,
    copy_of,
    copy_of_bundle,
    known_files,
    live_gate,
)
from imagepipe.wiring.machine import await_ssh, kept_key, key_for, launch_of, network_for, source_wanted
from imagepipe.wiring.provision import add_steps
from imagepipe.wiring.tools import Tools


@dataclass(frozen=True, slots=True)
class Baked:
    """Where a spec's images will be in the outcome."""

    spec: str
    images: Ref[tuple[Image, ...]]
    kept: Ref[tuple[Image, ...]]
    """Where they are already once they are kept, though what comes after should fail; often the same."""
    tests: tuple[str, ...] = ()
    """The stages that test the image, the boot of the test instance first."""
    stages: frozenset[str] = frozenset()
    """All stages of the spec."""


def plan(specs: Sequence[LoadedSpec], tools: Tools, *, region: Callable[[Spec], str]) -> tuple[Graph, list[Baked]]:
    """One graph for all specs. Their stages share nothing but tools, so they run side by side."""
    _check_names(specs, region)
    graph = Graph()
    prefixes = {one.checked().name: f"{one.checked().name}/" if len(specs) > 1 else "" for one in specs}
    baked = []
    for one in specs:
        spec = one.checked()
        before = frozenset(graph.stages)
        made = bake(graph, one, tools, region=region(spec), prefix=prefixes[spec.name])
        baked.append(replace(made, stages=frozenset(graph.stages) - before))
    return graph, baked


def _check_names(specs: Sequence[LoadedSpec], region: Callable[[Spec], str]) -> None:
    """Raise UsageError where two specs of a run want one name in one region: both would find it free.

    Names that are rendered late are known to the run alone; there RegisterImage refuses the second.
    """
    taken: dict[tuple[str, str], str] = {}
    for spec in (one.checked() for one in specs):
        name = spec.output.name
        for where in dict.fromkeys((region(spec), *spec.publish.regions)):
            if isinstance(name, str) and (other := taken.setdefault((where, name), spec.name)) != spec.name:
                raise UsageError(
                    f"specs '{other}' and '{spec.name}' both name their image '{name}' in {where}",
                    hint="put {{ spec.name }} into output.name, or build one after the other",
                )


def bake(graph: Graph, one: LoadedSpec, tools: Tools, *, region: str, prefix: str) -> Baked:
    """The stages of one spec."""
    spec = one.checked()
    ec2 = tools.regions[region]
    copies = [other for other in spec.publish.regions if other != region]
    everywhere = {name: tools.regions[name] for name in (region, *copies)}
    labels = RunTags(tools.run_id, spec.name, str(one.names["build"]["timestamp"]))

    # What does not need one another begins together.
    source = graph.add(f"{prefix}source", FindSource(ec2, source_wanted(spec), isinstance(spec.output, EbsOutput)))
    wanted = graph.add(f"{prefix}name", NameImages(tuple(everywhere), source, spec.output.name))
    replaces = spec.output.on_name_taken == "replace"
    names = graph.add(f"{prefix}names", CheckNames(everywhere, wanted, replaces))
    before: tuple[Ref[Any], ...] = (names,)
    if isinstance(spec.output, InstanceStoreOutput):
        types = graph.add(f"{prefix}types", CheckTypes(ec2, spec.launch.instance_types))
        place = graph.add(f"{prefix}bucket", check_bucket(spec.output, tools, everywhere, region, source))
        before += (types, place)
    if spec.publish.share.public:
        before += (graph.add(f"{prefix}public", CheckPublic(everywhere)),)
    key = key_for(graph, one, tools, region, labels, source, prefix, "")
    network = network_for(graph, spec, tools, region, labels, source, prefix)

    # A machine, reached; then the steps in their order; then nobody may log in again.
    host_key = kept_key(tools, "host_ed25519", prefix, "")
    launch = launch_of(spec, tools, region, labels, source, key, network, before, host_key)
    instance = graph.add(f"{prefix}launch", launch)
    machine = graph.add(f"{prefix}connect", await_ssh(one, tools, ec2, instance, key))
    machine = add_steps(graph, one, one.steps, tools, ec2, machine, source, f"{prefix}step-")

    # The image, while the instance is terminated.
    match spec.output:
        case EbsOutput():
            captured = as_ebs(graph, one, tools, ec2, labels, machine, source, names, prefix)
        case InstanceStoreOutput():
            captured = as_bundle(graph, one, spec.output, tools, ec2, labels, machine, source, place, names, prefix)
        case _:
            assert_never(spec.output)
    terminated = [graph.add(f"{prefix}terminate", TerminateInstance(ec2, instance, captured))]

    # Looked through, booted and tested before anything is published.
    image: Ref[Image] = captured
    if check := check_of(one, tools, ec2, captured, machine, source):
        image = graph.add(f"{prefix}hygiene", check)
    cases: tuple[str, ...] = ()
    if one.tests:
        tests = _test(graph, one, tools, region, labels, network, image, source, prefix)
        image, cases = tests.passed, tests.cases
        terminated.append(graph.add(f"{prefix}test-terminate", TerminateInstance(ec2, tests.instance, image)))

    # Copies side by side; others may launch none before all are there.
    images = [image]
    for other in copies:
        match spec.output:
            case EbsOutput() as output:
                copy: Stage[Image] = copy_of(spec.publish, output, tools, other, labels, image, source, names)
            case InstanceStoreOutput() as output:
                copy = copy_of_bundle(one, output, tools, other, region, labels, image, source, names)
            case _:
                assert_never(spec.output)
        images.append(graph.add(f"{prefix}copy-{other}", copy))
    audience = audience_of(spec)
    published = images
    if audience:
        published = [
            graph.add(f"{prefix}share-{where}", ShareImage(tools.regions[where], ref, audience, tuple(images)))
            for where, ref in zip(everywhere, images, strict=True)
        ]
    kept = graph.add(f"{prefix}keep", Keep(everywhere, tuple(published), tuple(terminated)))
    final = kept
    if replaces:
        taken = [
            graph.add(f"{prefix}replace-{where}", ReplaceImage(tools.regions[where], labels, kept, wanted, audience))
            for where in everywhere
        ]
        final = graph.add(f"{prefix}replaced", CollectImages(tuple(taken)))
    return Baked(spec.name, final, kept, cases)


@dataclass(frozen=True, slots=True)
class _Tests:
    """The part of the graph that tests an image."""

    passed: Ref[Image]
    instance: Ref[Instance]
    cases: tuple[str, ...]


def _test(
    graph: Graph,
    one: LoadedSpec,
    tools: Tools,
    region: str,
    labels: RunTags,
    network: Ref[Network],
    captured: Ref[Image],
    source: Ref[SourceImage],
    prefix: str,
) -> _Tests:
    """A second instance, of the new image, with a key of its own; the image is what it was only if all steps pass."""
    spec, ec2 = one.checked(), tools.regions[region]
    new = graph.add(f"{prefix}test-image", UseImage(ec2, captured))
    key = key_for(graph, one, tools, region, labels, source, prefix, "test")
    host_key = kept_key(tools, "host_ed25519", prefix, "test")
    launch = replace(
        launch_of(spec, tools, region, labels, new, key, network, (), host_key),
        devices=(),
        user_data=None,
        encrypt_root=False,
    )
    instance = graph.add(f"{prefix}test-launch", launch)
    booted = f"{prefix}test-boot"
    machine = graph.add(booted, replace(await_ssh(one, tools, ec2, instance, key), of_new_image=True))
    if gate := live_gate(one, tools):
        machine = graph.add(
            f"{prefix}test-hygiene",
            CheckNewInstance(tools.connections, machine, source, new, gate, known_files(one, tools)),
        )
    before = set(graph.stages)
    machine = add_steps(graph, one, one.tests, tools, ec2, machine, source, f"{prefix}test-")
    steps = tuple(name for name in graph.stages if name not in before)
    passed = graph.add(f"{prefix}tested", PublishGate(captured, machine, len(steps)))
    return _Tests(passed, instance, (booted, *steps))
