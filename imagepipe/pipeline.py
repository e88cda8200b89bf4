"""THE RECIPE: from checked specs to the graph of stages that bakes them. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, assert_never

from imagepipe import render
from imagepipe.bundle.manifest import Recipients
from imagepipe.capture.ebs import CaptureEbs
from imagepipe.capture.gate import Allowed, Gate
from imagepipe.capture.hygiene import CheckBundle, CheckHygiene, CheckNewInstance, Offline
from imagepipe.capture.instance_store import BundleRoot, RegisterBundle
from imagepipe.capture.scrub import Scrub
from imagepipe.capture.stop import GiveBack, Stop
from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.cloud.images import Audience, ImageFilter, SourceImage
from imagepipe.cloud.tags import Labels
from imagepipe.communicator.ssh import Connections
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref, Stage
from imagepipe.errors import UsageError
from imagepipe.launch.access import Key, MakeGroup, MakeKey, Network, UseGroups, UseKey
from imagepipe.launch.bucket import CheckBucket, CheckTypes
from imagepipe.launch.connect import AwaitSsh
from imagepipe.launch.machine import Launch, SpotWanted
from imagepipe.launch.source import BySsm, CheckNames, FindSource, NameImages, Newest
from imagepipe.provision.files import RenderTemplate, UploadFile
from imagepipe.provision.reboot import RebootMachine
from imagepipe.provision.shell import RunShell
from imagepipe.provision.step import Options
from imagepipe.publish.copy import CopyLimits, CopyToRegion
from imagepipe.publish.copy_bundle import CopyBundleToRegion
from imagepipe.publish.keep import Keep
from imagepipe.publish.replace import Renamed, TakeName
from imagepipe.publish.share import CheckPublic, ShareImage
from imagepipe.publish.test import NewImage, Tested
from imagepipe.spec.bundle_rules import bundle_region
from imagepipe.spec.find import named_file
from imagepipe.spec.load import LoadedSpec
from imagepipe.spec.models import (
    AmiByFilter,
    AmiById,
    AmiBySsm,
    EbsOutput,
    FileStep,
    InstanceStoreOutput,
    Publish,
    RebootStep,
    ShellStep,
    Spec,
    TemplateStep,
    Volume,
)
from imagepipe.spec.rendering import names_late
from imagepipe.spec.steps import StepAt
from imagepipe.values import BundlePlace, Endpoint, Image, Instance, Late, Reachable, Stopped


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages work with; one set serves all specs of a run."""

    regions: Regions
    connections: Connections
    limits: CopyLimits
    run_folder: Path
    run_id: str
    recipients: Callable[[LoadedSpec, str, str], Recipients]
    """Who signs a spec's bundle for a region and who may open it, by the spec, that region and the launch region."""
    is_local: bool = False
    offline: Offline | None = None
    """What reads captured disks: the local cloud's. None: the machines themselves are looked at."""


@dataclass(frozen=True, slots=True)
class Baked:
    """Where a spec's images will be in the outcome."""

    spec: str
    images: Ref[tuple[Image, ...]]
    kept: Ref[tuple[Image, ...]]
    """Where they are already once they are kept, though what comes after should fail; often the same."""
    tests: tuple[str, ...] = ()
    """The stages that test the image, the boot of the test instance first."""


def plan(specs: Sequence[LoadedSpec], tools: Tools, *, region: Callable[[Spec], str]) -> tuple[Graph, list[Baked]]:
    """One graph for all specs. Their stages share nothing but tools, so they run side by side."""
    _check_names(specs, region)
    graph = Graph()
    prefixes = {one.checked().name: f"{one.checked().name}/" if len(specs) > 1 else "" for one in specs}
    baked = []
    for one in specs:
        spec = one.checked()
        baked.append(bake(graph, one, tools, region=region(spec), prefix=prefixes[spec.name]))
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
    labels = Labels(tools.run_id, spec.name, str(one.names["build"]["timestamp"]))

    # What does not need one another begins together.
    source = graph.add(f"{prefix}source", FindSource(ec2, source_wanted(spec), isinstance(spec.output, EbsOutput)))
    wanted = graph.add(f"{prefix}name", NameImages(tuple(everywhere), source, spec.output.name))
    replaces = spec.output.on_name_taken == "replace"
    names = graph.add(f"{prefix}names", CheckNames(everywhere, wanted, replaces))
    before: tuple[Ref[Any], ...] = (names,)
    if isinstance(spec.output, InstanceStoreOutput):
        types = graph.add(f"{prefix}types", CheckTypes(ec2, spec.launch.instance_types))
        place = graph.add(f"{prefix}bucket", _check_bucket(spec.output, tools, everywhere, region, source))
        before += (types, place)
    if spec.publish.share.public:
        before += (graph.add(f"{prefix}public", CheckPublic(everywhere)),)
    key = _key(graph, one, tools, region, labels, prefix, "")
    network = _network(graph, spec, tools, region, labels, prefix)

    # A machine, reached; then the steps in their order; then nobody may log in again.
    host_key = _kept_key(tools, "host_ed25519", prefix, "")
    launch = _launch(spec, tools, region, labels, source, key, network, before, host_key)
    instance = graph.add(f"{prefix}launch", launch)
    machine = graph.add(f"{prefix}connect", _await(one, tools, ec2, instance, key))
    machine = _steps(graph, one, one.steps, tools, ec2, machine, source, f"{prefix}step-")

    # The image, while the instance is given back.
    match spec.output:
        case EbsOutput():
            captured = _as_ebs(graph, one, tools, ec2, labels, machine, source, names, prefix)
        case InstanceStoreOutput():
            captured = _as_bundle(graph, one, spec.output, tools, ec2, labels, machine, source, place, names, prefix)
        case _:
            assert_never(spec.output)
    given_back = [graph.add(f"{prefix}give-back", GiveBack(ec2, instance, captured))]

    # Looked through, booted and tested before anything is published.
    image: Ref[Image] = captured
    if check := _check(one, tools, ec2, captured, machine):
        image = graph.add(f"{prefix}hygiene", check)
    cases: tuple[str, ...] = ()
    if one.tests:
        tests = _test(graph, one, tools, region, labels, network, image, source, prefix)
        image, cases = tests.passed, tests.cases
        given_back.append(graph.add(f"{prefix}test-give-back", GiveBack(ec2, tests.instance, image)))

    # Copies side by side; others may launch none before all are there.
    images = [image]
    for other in copies:
        match spec.output:
            case EbsOutput() as output:
                copy: Stage[Image] = _copy(spec.publish, output, tools, other, labels, image, source, names)
            case InstanceStoreOutput() as output:
                copy = _copy_bundle(one, output, tools, other, region, labels, image, source, names)
            case _:
                assert_never(spec.output)
        images.append(graph.add(f"{prefix}copy-{other}", copy))
    audience = _audience(spec)
    published = images
    if audience:
        published = [
            graph.add(f"{prefix}share-{where}", ShareImage(tools.regions[where], ref, audience, tuple(images)))
            for where, ref in zip(everywhere, images, strict=True)
        ]
    kept = graph.add(f"{prefix}keep", Keep(everywhere, tuple(published), tuple(given_back)))
    final = kept
    if replaces:
        taken = [
            graph.add(f"{prefix}replace-{where}", TakeName(tools.regions[where], labels, kept, wanted, audience))
            for where in everywhere
        ]
        final = graph.add(f"{prefix}replaced", Renamed(tuple(taken)))
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
    labels: Labels,
    network: Ref[Network],
    captured: Ref[Image],
    source: Ref[SourceImage],
    prefix: str,
) -> _Tests:
    """A second instance, of the new image, with a key of its own; the image is what it was only if all steps pass."""
    spec, ec2 = one.checked(), tools.regions[region]
    new = graph.add(f"{prefix}test-image", NewImage(ec2, captured))
    key = _key(graph, one, tools, region, labels, prefix, "test")
    host_key = _kept_key(tools, "host_ed25519", prefix, "test")
    launch = replace(
        _launch(spec, tools, region, labels, new, key, network, (), host_key),
        devices=(),
        user_data=None,
        encrypt_root=False,
    )
    instance = graph.add(f"{prefix}test-launch", launch)
    booted = f"{prefix}test-boot"
    machine = graph.add(booted, replace(_await(one, tools, ec2, instance, key), of_new_image=True))
    if gate := _live_gate(one, tools):
        machine = graph.add(f"{prefix}test-hygiene", CheckNewInstance(tools.connections, machine, gate))
    before = set(graph.stages)
    machine = _steps(graph, one, one.tests, tools, ec2, machine, source, f"{prefix}test-")
    steps = tuple(name for name in graph.stages if name not in before)
    passed = graph.add(f"{prefix}tested", Tested(captured, machine, len(steps)))
    return _Tests(passed, instance, (booted, *steps))


def _await(one: LoadedSpec, tools: Tools, ec2: Ec2, instance: Ref[Instance], key: Ref[Key]) -> AwaitSsh:
    ssh = one.checked().launch.ssh
    # Who goes through a bastion means the private address, unless another one is named.
    address = "private_ip" if ssh.bastion and "address" not in ssh.model_fields_set else ssh.address
    via = None
    if ssh.bastion:
        path = str(named_file(one.file.parent, ssh.bastion.private_key).resolve())
        via = Endpoint(ssh.bastion.host, ssh.bastion.port, ssh.bastion.user, ssh.bastion.host_key, path)
    return AwaitSsh(
        ec2,
        tools.connections,
        instance,
        key,
        ssh.user,
        ssh.port,
        address,
        ssh.timeout,
        via=via,
        key_on_console=ssh.host_key == "console",
    )


def _check_bucket(
    output: InstanceStoreOutput, tools: Tools, everywhere: Mapping[str, Ec2], home: str, source: Ref[SourceImage]
) -> CheckBucket:
    buckets = {region: bundle_region(output, region, home=home).bucket for region in everywhere}
    return CheckBucket(
        everywhere, tools.regions.session, source, buckets, output.prefix, output.account, is_local=tools.is_local
    )


def _as_ebs(
    graph: Graph,
    one: LoadedSpec,
    tools: Tools,
    ec2: Ec2,
    labels: Labels,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    names: Ref[Mapping[str, str]],
    prefix: str,
) -> Ref[Image]:
    """Scrubbed, stopped, and its volumes' snapshots registered."""
    sealed = graph.add(f"{prefix}scrub", Scrub(ec2, tools.connections, machine, _live_gate(one, tools)))
    stopped = graph.add(f"{prefix}stop", Stop(ec2, sealed))
    return graph.add(f"{prefix}capture", _capture(one.checked(), ec2, labels, stopped, source, names))


def _as_bundle(
    graph: Graph,
    one: LoadedSpec,
    output: InstanceStoreOutput,
    tools: Tools,
    ec2: Ec2,
    labels: Labels,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    place: Ref[BundlePlace],
    names: Ref[Mapping[str, str]],
    prefix: str,
) -> Ref[Image]:
    """Scrubbed and bundled while it runs, and the bundle registered."""
    bundle = BundleRoot(
        ec2=ec2,
        connections=tools.connections,
        recipients=tools.recipients(one, ec2.region, ec2.region),
        machine=machine,
        source=source,
        place=place,
        name=one.checked().name,
        account=output.account,
        method=output.method,
        bundle_on=output.bundle_on,
        exclude=output.exclude,
        size_gib=output.size_gib,
        is_local=tools.is_local,
        gate=_live_gate(one, tools),
    )
    register = RegisterBundle(
        ec2=ec2,
        labels=labels,
        bundle=graph.add(f"{prefix}bundle", bundle),
        source=source,
        names=names,
        description=output.description,
        tags=output.tags,
        imds_v2=output.imds == "v2",
        virtual_names={v.device: v.virtual_name for v in output.block_devices if v.virtual_name},
    )
    return graph.add(f"{prefix}register", register)


def _capture(
    spec: Spec,
    ec2: Ec2,
    labels: Labels,
    stopped: Ref[Stopped],
    source: Ref[SourceImage],
    names: Ref[Mapping[str, str]],
) -> CaptureEbs:
    output, volumes = spec.output, spec.launch.volumes
    assert isinstance(output, EbsOutput)
    return CaptureEbs(
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
            v.device: v.delete_on_termination for v in volumes if v.delete_on_termination is not None
        },
        devices=devices_wanted(output.block_devices),
        virtual_names={v.device: v.virtual_name for v in volumes if v.virtual_name or v.no_device},
        timeout_seconds=output.timeout,
    )


def _copy(
    publish: Publish,
    output: EbsOutput,
    tools: Tools,
    region: str,
    labels: Labels,
    image: Ref[Image],
    source: Ref[SourceImage],
    names: Ref[Mapping[str, str]],
) -> CopyToRegion:
    key = output.encrypt.per_region.get(region) if output.encrypt else None
    return CopyToRegion(
        ec2=tools.regions[region],
        limits=tools.limits,
        labels=labels,
        image=image,
        source=source,
        names=names,
        description=output.description,
        tags=output.tags,
        kms_key=key,
        timeout_seconds=publish.copy_timeout,
    )


def _copy_bundle(
    one: LoadedSpec,
    output: InstanceStoreOutput,
    tools: Tools,
    region: str,
    home: str,
    labels: Labels,
    image: Ref[Image],
    source: Ref[SourceImage],
    names: Ref[Mapping[str, str]],
) -> CopyBundleToRegion:
    return CopyBundleToRegion(
        ec2=tools.regions[region],
        source_ec2=tools.regions[home],
        labels=labels,
        image=image,
        source=source,
        names=names,
        description=output.description,
        tags=output.tags,
        bucket=bundle_region(output, region, home=home).bucket,
        prefix=output.prefix,
        recipients=tools.recipients(one, region, home),
    )


def _gate(one: LoadedSpec) -> Gate:
    allow = one.checked().hygiene.allow
    return Gate(tuple(Allowed(each.path, each.rule, each.reason) for each in allow), tuple(sorted(one.secrets)))


def _live_gate(one: LoadedSpec, tools: Tools) -> Gate | None:
    """For machines that are looked at while they run; None where their captured disks are."""
    return None if tools.offline else _gate(one)


def _check(
    one: LoadedSpec, tools: Tools, ec2: Ec2, captured: Ref[Image], machine: Ref[Reachable]
) -> CheckHygiene | CheckBundle | None:
    """The look at what was captured; None where that cannot be read, and the machine itself was looked at."""
    if tools.offline is None:
        return None
    match one.checked().output:
        case EbsOutput():
            return CheckHygiene(ec2, tools.offline, captured, machine, _gate(one))
        case InstanceStoreOutput():
            recipients = tools.recipients(one, ec2.region, ec2.region)
            return CheckBundle(ec2, tools.offline, recipients, tools.run_folder, captured, machine, _gate(one))
        case output:
            assert_never(output)


def _audience(spec: Spec) -> Audience:
    share = spec.publish.share
    return Audience(share.accounts, share.organizations, share.ous, share.public)


def source_wanted(spec: Spec) -> str | BySsm | Newest:
    """How the source image of a spec is found."""
    match spec.source.ami:
        case AmiById(id=id):
            return id
        case AmiByFilter() as wanted:
            return Newest(ImageFilter(wanted.name, wanted.owners, wanted.architecture), only=not wanted.newest)
        case AmiBySsm(ssm=name):
            return BySsm(name)
        case None:
            raise AssertionError("refused as not yet")
        case _:
            assert_never(spec.source.ami)


def _key(
    graph: Graph, one: LoadedSpec, tools: Tools, region: str, labels: Labels, prefix: str, purpose: str
) -> Ref[Key]:
    """The account's own key pair where the spec names one; else a temporary one for this very instance."""
    ssh, ec2 = one.checked().launch.ssh, tools.regions[region]
    stage = f"{prefix}{purpose}-key" if purpose else f"{prefix}key"
    if ssh.key_pair and ssh.private_key:
        path = named_file(one.file.parent, ssh.private_key).resolve()
        return graph.add(stage, UseKey(ec2, ssh.key_pair, path))
    return graph.add(stage, MakeKey(ec2, labels, _kept_key(tools, "id_ed25519", prefix, purpose)))


def _kept_key(tools: Tools, kind: str, prefix: str, purpose: str) -> Path:
    """Where a key of one instance is kept as long as the run needs it."""
    return tools.run_folder / ".".join((kind, *filter(None, (prefix.strip("/"), purpose))))


def _network(graph: Graph, spec: Spec, tools: Tools, region: str, labels: Labels, prefix: str) -> Ref[Network]:
    launch, ec2 = spec.launch, tools.regions[region]
    subnets = tuple(subnet if isinstance(subnet, str) else subnet.tags for subnet in launch.subnets)
    if launch.security_groups:
        return graph.add(f"{prefix}network", UseGroups(ec2, launch.security_groups, subnets))
    return graph.add(f"{prefix}network", MakeGroup(ec2, labels, subnets, launch.ssh.port, launch.ssh.allow_from))


def _launch(
    spec: Spec,
    tools: Tools,
    region: str,
    labels: Labels,
    source: Ref[SourceImage],
    key: Ref[Key],
    network: Ref[Network],
    after: tuple[Ref[Any], ...],
    host_key: Path,
) -> Launch:
    launch = spec.launch
    encrypt = spec.output.encrypt if isinstance(spec.output, EbsOutput) else None
    return Launch(
        ec2=tools.regions[region],
        labels=labels,
        source=source,
        key=key,
        network=network,
        after=after,
        instance_types=launch.instance_types,
        devices=devices_wanted(launch.volumes),
        encrypt_root=encrypt is not None,
        kms_key=encrypt.kms_key if encrypt else None,
        instance_profile=launch.iam_instance_profile,
        host_key=host_key if launch.ssh.host_key == "user-data" else None,
        user_data=launch.user_data,
        public_address=launch.ssh.bastion is None and launch.ssh.address in ("public_ip", "public_dns"),
        tags=launch.tags,
        spot=SpotWanted(launch.spot.max_price, launch.spot.fall_back) if launch.spot else None,
    )


def devices_wanted(volumes: Sequence[Volume]) -> tuple[DeviceWanted, ...]:
    """Block devices of a spec."""
    return tuple(DeviceWanted(**{**v.model_dump(exclude={"tags"}), "tags": v.tags}) for v in volumes)


def _steps(
    graph: Graph,
    one: LoadedSpec,
    steps: Sequence[StepAt],
    tools: Tools,
    ec2: Ec2,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    prefix: str,
) -> Ref[Reachable]:
    """Each step takes the machine as the step before left it; those whose `when` is false already are left out."""
    width = len(str(len(steps)))
    for number, at in enumerate(steps, start=1):
        late = _conditions(at)
        if late is None:
            continue
        stage = _step(one, at, tools, ec2, machine, source, late)
        machine = graph.add(f"{prefix}{number:0{width}}", stage)
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
