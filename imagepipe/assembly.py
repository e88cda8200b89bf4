"""Assemble the graph of a run: the recipe for each spec that is baked, bases first, in one graph."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from imagepipe.capture.scan.stages import Offline
from imagepipe.cloud.ec2 import Regions
from imagepipe.communicator.ssh import Connections
from imagepipe.dataclass import dataclass
from imagepipe.engine.fingerprint import UNKNOWN, fingerprints
from imagepipe.engine.graph import Graph
from imagepipe.pipeline import bake
from imagepipe.publish.copy_ebs import CopyLimits
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec
from imagepipe.wiring.build import Baked, ImageBuild, Section
from imagepipe.wiring.existing import Existing, Settled
from imagepipe.wiring.family import bases_first, check_bases
from imagepipe.wiring.names import check_distinct_names, check_key_regions
from imagepipe.wiring.publication import publish_existing
from imagepipe.wiring.tools import Tools

if TYPE_CHECKING:
    from imagepipe.bundle.manifest import Recipients


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
    settled: Settled = Settled(),  # noqa: B008 - frozen
) -> Plan:
    """Build one graph for all specs.

    Raises UsageError and SpecError for specs that cannot be built together.
    """
    check_distinct_names(specs, region)
    check_key_regions(specs, region)
    check_bases(specs, region)
    graph, baked = Graph(), dict[str, Baked]()
    reference, as_reference = Graph(), dict[str, Baked]()
    for loaded in bases_first(specs):
        key = str(loaded.key)
        prefix = f"{key}/" if len(specs) > 1 else ""
        found = settled.existing.get(key)
        versions = ((loaded, graph, baked), (loaded.reference, reference, as_reference))
        for version, into, done in versions:
            base = str(loaded.base_spec.key) if loaded.base_spec else None
            if version is None or (base is not None and base not in done and found is None):
                continue
            section, home = Section(into, prefix), region(version.checked())
            build = ImageBuild.of(version, tools, section, region=home, base=done.get(base) if base else None)
            build = replace(build, expected_source=settled.sources.get(key))
            done[key] = bake(build) if found is None else publish_existing(build, found)
    return Plan(graph, list(baked.values()), dict.fromkeys(graph.stages, UNKNOWN) | fingerprints(reference))


def assemble_unrun(
    specs: Sequence[LoadedSpec],
    regions: Regions,
    region: Callable[[Spec], str],
    existing: Mapping[str, Existing],
    *,
    scans_disks: bool = False,
) -> Plan:
    """Build the graph for a drawing or a plan. None of its stages may be run: they lack their tools.

    `scans_disks` adds the stages that read captured disks, as on the local cloud.
    """

    def no_recipients(*_: object) -> Recipients:
        return cast("Recipients", None)  # only stages that run use it, and making a certificate would write files

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the stages of this graph are not run")

    offline = Offline(refuse, refuse) if scans_disks else None
    folder = Path(tempfile.gettempdir())
    tools = Tools(regions, Connections(), CopyLimits(), folder, "unrun", no_recipients, offline=offline)
    return plan(specs, tools, region=region, settled=Settled(existing))
