"""THE RECIPE: from checked specs to the graph of stages that bakes them. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from imagepipe import render
from imagepipe.capture.ebs import CaptureEbs
from imagepipe.capture.scrub import Scrub
from imagepipe.capture.stop import GiveBack, Stop
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.cloud.images import ImageFilter, SourceImage
from imagepipe.cloud.tags import Labels
from imagepipe.communicator.ssh import Connections
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref
from imagepipe.errors import UsageError
from imagepipe.launch.access import Key, MakeGroup, MakeKey, Network, UseGroups, UseKey
from imagepipe.launch.connect import AwaitSsh
from imagepipe.launch.machine import DeviceWanted, Launch
from imagepipe.launch.source import CheckNames, FindSource, Newest
from imagepipe.provision.files import RenderTemplate, UploadFile
from imagepipe.provision.reboot import RebootMachine
from imagepipe.provision.shell import RunShell
from imagepipe.provision.step import Options
from imagepipe.publish.copy import CopyLimits, CopyToRegion
from imagepipe.publish.keep import Keep
from imagepipe.spec.load import LoadedSpec
from imagepipe.spec.models import (
    AmiByFilter,
    AmiById,
    AmiBySsm,
    EbsOutput,
    FileStep,
    RebootStep,
    ShellStep,
    Spec,
    TemplateStep,
    Volume,
)
from imagepipe.spec.rendering import names_late
from imagepipe.spec.steps import StepAt
from imagepipe.values import Image, Late, Reachable


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages work with; one set serves all specs of a run."""

    regions: Regions
    connections: Connections
    limits: CopyLimits
    run_folder: Path
    run_id: str


@dataclass(frozen=True, slots=True)
class Baked:
    """Where a spec's images will be in the outcome."""

    spec: str
    images: Ref[tuple[Image, ...]]


def plan(specs: Sequence[LoadedSpec], tools: Tools, *, region: Callable[[Spec], str]) -> tuple[Graph, list[Baked]]:
    """One graph for all specs. Their stages share nothing but tools, so they run side by side."""
    _check_names(specs, region)
    graph = Graph()
    prefixes = {one.checked().name: f"{one.checked().name}/" if len(specs) > 1 else "" for one in specs}
    baked = []
    for one in specs:
        spec = one.checked()
        baked.append(Baked(spec.name, bake(graph, one, tools, region=region(spec), prefix=prefixes[spec.name])))
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


def bake(graph: Graph, one: LoadedSpec, tools: Tools, *, region: str, prefix: str) -> Ref[tuple[Image, ...]]:
    """The stages of one spec."""
    spec = one.checked()
    ec2 = tools.regions[region]
    copies = [other for other in spec.publish.regions if other != region]
    everywhere = {name: tools.regions[name] for name in (region, *copies)}
    labels = Labels(tools.run_id, spec.name)

    # What does not need one another begins together.
    source = graph.add(f"{prefix}source", FindSource(ec2, _wanted(spec)))
    names = graph.add(f"{prefix}names", CheckNames(everywhere, source, spec.output.name))
    key = _key(graph, one, tools, region, labels, prefix)
    network = _network(graph, spec, tools, region, labels, prefix)

    # A machine, reached; then the steps in their order; then nobody may log in again.
    instance = graph.add(f"{prefix}launch", _launch(spec, tools, region, labels, source, key, network, names))
    ssh = spec.launch.ssh
    machine = graph.add(
        f"{prefix}connect",
        AwaitSsh(ec2, tools.connections, instance, key, ssh.user, ssh.port, ssh.address, ssh.timeout),
    )
    machine = _steps(graph, one, tools, ec2, machine, source, prefix)
    sealed = graph.add(f"{prefix}scrub", Scrub(ec2, tools.connections, machine))

    # The image, and its copies side by side while the instance is given back.
    stopped = graph.add(f"{prefix}stop", Stop(ec2, sealed))
    output = spec.output
    image = graph.add(
        f"{prefix}capture",
        CaptureEbs(
            ec2=ec2,
            labels=labels,
            machine=stopped,
            source=source,
            names=names,
            description=output.description,
            tags=output.tags,
            boot_mode=output.boot_mode,
            imds_v2=output.imds == "v2",
            delete_on_termination={
                volume.device: volume.delete_on_termination
                for volume in spec.launch.volumes
                if volume.delete_on_termination is not None
            },
        ),
    )
    given_back = graph.add(f"{prefix}give-back", GiveBack(ec2, instance, image))
    images = [image]
    for other in copies:
        copy = CopyToRegion(
            tools.regions[other], tools.limits, labels, image, source, names, output.description, output.tags
        )
        images.append(graph.add(f"{prefix}copy-{other}", copy))
    return graph.add(f"{prefix}keep", Keep(everywhere, tuple(images), (given_back,)))


def _wanted(spec: Spec) -> str | Newest:
    match spec.source.ami:
        case AmiById(id=id):
            return id
        case AmiByFilter() as wanted:
            return Newest(ImageFilter(wanted.name, wanted.owners, wanted.architecture), only=not wanted.newest)
        case AmiBySsm() | None:
            raise AssertionError("refused as not yet")
        case _:
            assert_never(spec.source.ami)


def _key(graph: Graph, one: LoadedSpec, tools: Tools, region: str, labels: Labels, prefix: str) -> Ref[Key]:
    ssh, ec2 = one.checked().launch.ssh, tools.regions[region]
    if ssh.key_pair and ssh.private_key:
        path = (one.file.parent / ssh.private_key).expanduser().resolve()
        return graph.add(f"{prefix}key", UseKey(ec2, ssh.key_pair, path))
    name = f"id_ed25519.{prefix.strip('/')}" if prefix else "id_ed25519"
    return graph.add(f"{prefix}key", MakeKey(ec2, labels, tools.run_folder / name))


def _network(graph: Graph, spec: Spec, tools: Tools, region: str, labels: Labels, prefix: str) -> Ref[Network]:
    launch, ec2 = spec.launch, tools.regions[region]
    subnets = tuple(subnet for subnet in launch.subnets if isinstance(subnet, str))
    if launch.security_groups:
        return graph.add(f"{prefix}network", UseGroups(launch.security_groups, subnets))
    return graph.add(f"{prefix}network", MakeGroup(ec2, labels, subnets, launch.ssh.port, launch.ssh.allow_from))


def _launch(
    spec: Spec,
    tools: Tools,
    region: str,
    labels: Labels,
    source: Ref[SourceImage],
    key: Ref[Key],
    network: Ref[Network],
    names: Ref[Mapping[str, str]],
) -> Launch:
    launch = spec.launch
    encrypt = spec.output.encrypt if isinstance(spec.output, EbsOutput) else None
    return Launch(
        ec2=tools.regions[region],
        labels=labels,
        source=source,
        key=key,
        network=network,
        names=names,
        instance_types=launch.instance_types,
        devices=tuple(_device(volume) for volume in launch.volumes),
        encrypt_root=encrypt is not None,
        kms_key=encrypt.kms_key if encrypt else None,
        instance_profile=launch.iam_instance_profile,
        has_host_key=launch.ssh.host_key == "user-data",
        user_data=launch.user_data,
        public_address=launch.ssh.address in ("public_ip", "public_dns"),
        tags=launch.tags,
    )


def _device(volume: Volume) -> DeviceWanted:
    return DeviceWanted(**volume.model_dump(exclude={"tags"}))


def _steps(
    graph: Graph,
    one: LoadedSpec,
    tools: Tools,
    ec2: Ec2,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    prefix: str,
) -> Ref[Reachable]:
    """Each step takes the machine as the step before left it; those whose `when` is false already are left out."""
    width = len(str(len(one.steps)))
    for number, at in enumerate(one.steps, start=1):
        late = _conditions(at)
        if late is None:
            continue
        stage = _step(one, at, tools, ec2, machine, source, late)
        machine = graph.add(f"{prefix}step-{number:0{width}}", stage)
    return machine


def _conditions(at: StepAt) -> tuple[Late, ...] | None:
    """Conditions that only the run can decide; None where one is false already."""
    own = ((at.step.when, at.names),) if at.step.when else ()
    late = []
    for expression, names in (*at.whens, *own):
        used = render.names_in_expression(expression)
        if names_late(used) or any(render.has_late(names.get(name.partition(".")[0])) for name in used):
            late.append(Late(expression, tuple(names.items())))
        elif not render.holds(expression, names):
            return None
    return tuple(late)


def _step(
    one: LoadedSpec,
    at: StepAt,
    tools: Tools,
    ec2: Ec2,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    late: tuple[Late, ...],
) -> RunShell | UploadFile | RenderTemplate | RebootMachine:
    step, ssh = at.step, one.checked().launch.ssh
    options = Options(
        title=step.name or _title(at),
        where=f"{at.file}:{at.line}",
        timeout_seconds=step.timeout,
        retries=step.retries,
        sudo=ssh.user != "root" and (ssh.sudo if step.sudo is None else step.sudo),
        exit_codes=step.exit_codes,
        disconnect_expected=step.on_disconnect == "expected",
        rerun_safe=step.rerun == "safe",
        env=step.env,
        when=late,
    )
    base = (ec2, tools.connections, machine, source, options)
    match step:
        case ShellStep(shell=shell):
            script = at.folder / shell.script if shell.script is not None else shell.inline or ()
            return RunShell(*base, script=script, args=shell.args, interpreter=shell.interpreter)
        case FileStep(file=file):
            return UploadFile(*base, folder=at.folder, src=file.src, dest=file.dest, mode=file.mode, owner=file.owner)
        case TemplateStep(template=template):
            return RenderTemplate(
                *base,
                src=at.folder / template.src,
                dest=template.dest,
                vars=template.vars,
                known=dict(at.names),
                mode=template.mode,
                owner=template.owner,
            )
        case RebootStep(reboot=reboot):
            return RebootMachine(*base, timeout_seconds=reboot.timeout)
        case _:
            assert_never(step)


def _title(at: StepAt) -> str:
    """What a step without a name is called."""
    match at.step:
        case ShellStep(shell=shell) if shell.script is not None:
            return Path(shell.script).name
        case ShellStep(shell=shell):
            first = next((line for part in shell.inline or () for line in _text(part).splitlines() if line.strip()), "")
            return first.strip()[:60] or "shell"
        case FileStep(file=file):
            return f"{file.src} -> {file.dest}"
        case TemplateStep(template=template):
            return f"{Path(template.src).name} -> {template.dest}"
        case RebootStep():
            return "reboot"
        case _:
            assert_never(at.step)


def _text(part: str | Late) -> str:
    return part.text if isinstance(part, Late) else part
