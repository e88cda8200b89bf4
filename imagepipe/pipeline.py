"""THE RECIPE: from checked specs to the graph of stages that bakes them. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from imagepipe.capture.stop import TerminateInstance
from imagepipe.cloud.images import SourceImage
from imagepipe.engine.fingerprint import UNKNOWN, fingerprints
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref
from imagepipe.launch.access import Network
from imagepipe.launch.source import CheckNames
from imagepipe.publish.replace import CollectImages, ReplaceImage
from imagepipe.publish.reuse import CollectPublished, ExistingText, UseExisting
from imagepipe.publish.share import ShareImage
from imagepipe.publish.test import PublishGate, UseImage
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec
from imagepipe.values import Image, Instance
from imagepipe.wiring.build import Baked, ImageBuild, Section
from imagepipe.wiring.capture import capture_for
from imagepipe.wiring.existing import Existing
from imagepipe.wiring.family import bases_first, check_bases
from imagepipe.wiring.names import check_distinct_names
from imagepipe.wiring.provision import add_steps
from imagepipe.wiring.scan import check_new_instance
from imagepipe.wiring.tools import Tools


@dataclass(frozen=True, slots=True)
class Plan:
    """The graph of a run."""

    graph: Graph
    baked: list[Baked]
    """The specs, bases first."""
    fingerprints: Mapping[str, str]
    """Fingerprints by stage; the same in every run of the same specs."""


def plan(
    specs: Sequence[LoadedSpec],
    tools: Tools,
    *,
    region: Callable[[Spec], str],
    existing: Mapping[str, Existing] | None = None,
) -> Plan:
    """Build one graph for all specs. `existing` has the images of the specs that need no bake, by key.

    Raises UsageError and SpecError for specs that cannot be built together.
    """
    check_distinct_names(specs, region)
    check_bases(specs, region)
    graph, baked = Graph(), dict[str, Baked]()
    reference, as_reference = Graph(), dict[str, Baked]()
    for loaded in bases_first(specs):
        key = str(loaded.key)
        prefix = f"{key}/" if len(specs) > 1 else ""
        found = (existing or {}).get(key)
        versions = ((loaded, graph, baked), (loaded.reference, reference, as_reference))
        for version, into, done in versions:
            base = str(loaded.base_spec.key) if loaded.base_spec else None
            if version is None or (base is not None and base not in done):
                continue
            section, home = Section(into, prefix), region(version.checked())
            build = ImageBuild.of(version, tools, section, region=home, base=done[base] if base else None)
            done[key] = bake(build) if found is None else publish_existing(build, found)
    return Plan(graph, list(baked.values()), dict.fromkeys(graph.stages, UNKNOWN) | fingerprints(reference))


def bake(build: ImageBuild) -> Baked:
    """Add the stages of one spec."""
    add = build.stages.add

    # The source image, the image's names, and everything that must hold before an instance is launched.
    source = add("source", build.find_source())
    fingerprint = add("inputs", build.record_inputs(source))
    wanted = add("name", build.name_images(source, fingerprint))
    text = add("names", build.check_names(wanted))
    capture = capture_for(build, source, text)
    checks = [text, *capture.checks, *build.check_sharing(source)]

    # A machine: launched, reached and provisioned, step by step.
    key = add("key", build.key(source))
    network = add("network", build.network(source))
    instance = add("launch", build.launch(source, key, network, after=checks))
    machine = add("connect", build.connect(instance, key))
    machine = add_steps(build, "step", build.loaded.steps, machine, source)

    # Its image: captured, scanned and tested, while its instances are terminated.
    image = captured = capture.image(machine)
    terminated = [add("terminate", TerminateInstance(build.ec2, instance, captured))]
    if scan := capture.scan(captured, machine):
        image = add("hygiene", scan)
    tests: tuple[str, ...] = ()
    if build.loaded.tests:
        image, test_instance, tests = test(build, image, source, network)
        terminated.append(add("test-terminate", TerminateInstance(build.ec2, test_instance, image)))

    # Copied to all regions at once, shared when every copy is there, kept, and renamed last of all.
    images = {build.region: image}
    for region in build.copies:
        images[region] = add(f"copy-{region}", capture.copy(image, region))
    shared = share(build, images, images, after=tuple(images.values()))
    final = kept = add("keep", build.keep(shared.values(), terminated))
    if build.replaces:
        renamed = []
        for region, ec2 in build.everywhere.items():
            replacing = ReplaceImage(ec2, build.run_tags, kept, wanted, build.audience)
            renamed.append(add(f"replace-{region}", replacing))
        final = add("replaced", CollectImages(tuple(renamed)))
    return Baked(str(build.loaded.key), final, kept, tests, frozenset(build.stages.names), images, build.base)


def publish_existing(build: ImageBuild, existing: Existing) -> Baked:
    """Add the stages of a spec whose image exists already: copies and permissions that it lacks, and nothing else."""
    add = build.stages.add
    images = {
        region: add(f"image-{region}", UseExisting(build.everywhere[region], id))
        for region, id in existing.images.items()
    }
    at_home = images[build.region]
    missing = [region for region in build.copies if region not in images]
    unshared = [*missing, *existing.unshared]
    checks: tuple[Ref[Any], ...] = ()
    if missing or unshared:
        source = add("source", UseImage(build.ec2, at_home))
        checks = tuple(build.check_sharing(source))
    if missing:
        text = add("name", ExistingText(build.ec2, at_home, tuple(missing)))
        capture = capture_for(build, source, add("names", CheckNames(build.everywhere, text)))
        for region in missing:
            images[region] = add(f"copy-{region}", capture.copy(at_home, region))
    published = share(build, images, unshared, after=checks)
    copies = add("keep", build.keep([published[region] for region in missing], ())) if missing else None
    earlier = tuple(published[region] for region in existing.images)
    final = add("published", CollectPublished(earlier, copies))
    stages = frozenset(build.stages.names)
    return Baked(str(build.loaded.key), final, final, (), stages, images, build.base, is_unchanged=True)


def share(
    build: ImageBuild, images: Mapping[str, Ref[Image]], regions: Iterable[str], *, after: tuple[Ref[Any], ...]
) -> dict[str, Ref[Image]]:
    """Share the images in these regions, if the spec shares any; return the images of all regions."""
    published = dict(images)
    for region in regions if build.audience else ():
        stage = ShareImage(build.everywhere[region], images[region], build.audience, after=after)
        published[region] = build.stages.add(f"share-{region}", stage)
    return published


def test(
    build: ImageBuild, image: Ref[Image], source: Ref[SourceImage], network: Ref[Network]
) -> tuple[Ref[Image], Ref[Instance], tuple[str, ...]]:
    """Boot a second instance from the new image and run the tests on it.

    Returns the image once every test has passed, the test instance, and the stages that are tests.
    """
    add = build.stages.add
    new = add("test-image", UseImage(build.ec2, image))
    key = add("test-key", build.key(source))
    launch = replace(build.launch(new, key, network, after=()), devices=(), user_data=None, encrypt_root=False)
    instance = add("test-launch", launch)
    booted = machine = add("test-boot", replace(build.connect(instance, key), of_new_image=True))
    if scan := check_new_instance(build, machine, source, new):
        machine = add("test-hygiene", scan)
    before = len(build.stages.names)
    machine = add_steps(build, "test", build.loaded.tests, machine, source)
    steps = build.stages.names[before:]
    passed = add("tested", PublishGate(image, machine, len(steps)))
    return passed, instance, (booted.stage, *steps)
