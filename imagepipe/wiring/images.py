"""How a spec's image is captured, looked through, copied and shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from imagepipe.capture.ebs import CaptureEbs
from imagepipe.capture.instance_store.preconditions import CheckBucket
from imagepipe.capture.instance_store.stages import BundleRoot, RegisterBundle
from imagepipe.capture.known_files import KnownFiles
from imagepipe.capture.scan.gate import Allowed, Gate
from imagepipe.capture.scan.stages import CheckBundle, CheckHygiene
from imagepipe.capture.scrub import Scrub
from imagepipe.capture.stop import Stop
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import Audience, SourceImage
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref
from imagepipe.publish.copy_bundle import CopyBundleToRegion
from imagepipe.publish.copy_ebs import CopyToRegion
from imagepipe.spec.bundle_rules import bundle_region
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import EbsOutput, InstanceStoreOutput, Publish, Spec
from imagepipe.values import BundlePlace, Image, Reachable, Stopped
from imagepipe.wiring.machine import devices_wanted
from imagepipe.wiring.tools import Tools


def check_bucket(
    output: InstanceStoreOutput, tools: Tools, everywhere: Mapping[str, Ec2], home: str, source: Ref[SourceImage]
) -> CheckBucket:
    buckets = {region: bundle_region(output, region, home=home).bucket for region in everywhere}
    return CheckBucket(
        everywhere, tools.regions.session, source, buckets, output.prefix, output.account, is_local=tools.is_local
    )


def as_ebs(
    graph: Graph,
    one: LoadedSpec,
    tools: Tools,
    ec2: Ec2,
    labels: RunTags,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    names: Ref[Mapping[str, str]],
    prefix: str,
) -> Ref[Image]:
    """Scrubbed, stopped, and its volumes' snapshots registered."""
    sealed = graph.add(f"{prefix}scrub", scrub_of(one, tools, ec2, machine, source))
    stopped = graph.add(f"{prefix}stop", Stop(ec2, sealed))
    return graph.add(f"{prefix}capture", _capture(one.checked(), ec2, labels, stopped, source, names))


def as_bundle(
    graph: Graph,
    one: LoadedSpec,
    output: InstanceStoreOutput,
    tools: Tools,
    ec2: Ec2,
    labels: RunTags,
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
        gate=_gate(one),
        offline=tools.offline,
    )
    register = RegisterBundle(
        ec2=ec2,
        labels=labels,
        bundle=graph.add(f"{prefix}bundle", bundle),
        source=source,
        names=names,
        description=output.description,
        tags=output.tags,
        imds_v2=output.imds_support == "v2.0",
        virtual_names={v.device: v.virtual_name for v in output.block_devices if v.virtual_name},
    )
    return graph.add(f"{prefix}register", register)


def _capture(
    spec: Spec,
    ec2: Ec2,
    labels: RunTags,
    stopped: Ref[Stopped],
    source: Ref[SourceImage],
    names: Ref[Mapping[str, str]],
) -> CaptureEbs:
    output, volumes = spec.output, spec.launch.block_devices
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
        imds_v2=output.imds_support == "v2.0",
        delete_on_termination={
            v.device: v.delete_on_termination for v in volumes if v.delete_on_termination is not None
        },
        devices=devices_wanted(output.block_devices),
        virtual_names={v.device: v.virtual_name for v in volumes if v.virtual_name or v.no_device},
        timeout_seconds=output.timeout,
    )


def copy_of(
    publish: Publish,
    output: EbsOutput,
    tools: Tools,
    region: str,
    labels: RunTags,
    image: Ref[Image],
    source: Ref[SourceImage],
    names: Ref[Mapping[str, str]],
) -> CopyToRegion:
    encrypt = output.encrypt.per_region.get(region) if output.encrypt else None
    return CopyToRegion(
        ec2=tools.regions[region],
        limits=tools.limits,
        labels=labels,
        image=image,
        source=source,
        names=names,
        description=output.description,
        tags=output.tags,
        kms_key=encrypt.kms_key if encrypt else None,
        timeout_seconds=publish.timeout,
    )


def copy_of_bundle(
    one: LoadedSpec,
    output: InstanceStoreOutput,
    tools: Tools,
    region: str,
    home: str,
    labels: RunTags,
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


def scrub_of(one: LoadedSpec, tools: Tools, ec2: Ec2, machine: Ref[Reachable], source: Ref[SourceImage]) -> Scrub:
    return Scrub(ec2, tools.connections, machine, source, _gate(one), known_files(one, tools), tools.offline)


def known_files(one: LoadedSpec, tools: Tools) -> KnownFiles:
    """Files that scans of earlier builds found clean."""
    ssh = one.checked().launch.ssh
    return KnownFiles(tools.scans, own_key=bool(ssh.key_pair and ssh.private_key))


def _gate(one: LoadedSpec) -> Gate:
    allow = one.checked().hygiene.allow
    return Gate(tuple(Allowed(each.path, each.rule, each.reason) for each in allow), tuple(sorted(one.secrets)))


def live_gate(one: LoadedSpec, tools: Tools) -> Gate | None:
    """For machines that are looked at while they run; None where their captured disks are."""
    return None if tools.offline else _gate(one)


def check_of(
    one: LoadedSpec,
    tools: Tools,
    ec2: Ec2,
    captured: Ref[Image],
    machine: Ref[Reachable],
    source: Ref[SourceImage],
) -> CheckHygiene | CheckBundle | None:
    """The look at what was captured; None where that cannot be read, and the machine itself was looked at."""
    if tools.offline is None:
        return None
    match one.checked().output:
        case EbsOutput():
            return CheckHygiene(ec2, tools.offline, captured, machine, source, _gate(one), known_files(one, tools))
        case InstanceStoreOutput():
            recipients = tools.recipients(one, ec2.region, ec2.region)
            return CheckBundle(ec2, tools.offline, recipients, tools.run_folder, captured, machine, source, _gate(one))
        case output:
            assert_never(output)


def audience_of(spec: Spec) -> Audience:
    share = spec.publish.share
    return Audience(share.accounts, share.organizations, share.ous, share.public)
