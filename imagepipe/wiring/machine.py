"""How a spec's instance is found, launched and reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import ImageFilter, SourceImage
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref
from imagepipe.launch.access import Key, MakeGroup, MakeKey, Network, UseGroups, UseKey
from imagepipe.launch.connect import AwaitSsh
from imagepipe.launch.machine import Launch, SpotWanted
from imagepipe.launch.source import BySsm, Newest
from imagepipe.spec.find import named_file
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import AmiByFilter, AmiById, AmiBySsm, BlockDevice, EbsOutput, Spec
from imagepipe.values import Endpoint, Instance, Late
from imagepipe.wiring.tools import Tools


def source_wanted(spec: Spec) -> str | BySsm | Newest:
    """How the source image of a spec is found."""
    match spec.source.ami:
        case AmiById(id=id):
            return id
        case AmiByFilter() as wanted:
            return Newest(ImageFilter(wanted.name, wanted.owners, wanted.architecture), only=not wanted.most_recent)
        case AmiBySsm(ssm=name):
            return BySsm(name)
        case None:
            raise AssertionError("refused as not yet")
        case _:
            assert_never(spec.source.ami)


def key_for(
    graph: Graph,
    one: LoadedSpec,
    tools: Tools,
    region: str,
    labels: RunTags,
    source: Ref[SourceImage],
    prefix: str,
    purpose: str,
) -> Ref[Key]:
    """The account's own key pair where the spec names one; else a temporary one for this very instance."""
    ssh, ec2 = one.checked().launch.ssh, tools.regions[region]
    stage = f"{prefix}{purpose}-key" if purpose else f"{prefix}key"
    if ssh.key_pair and ssh.private_key:
        path = named_file(one.file.parent, ssh.private_key).resolve()
        return graph.add(stage, UseKey(ec2, ssh.key_pair, path))
    return graph.add(
        stage, MakeKey(ec2, labels, kept_key(tools, "id_ed25519", prefix, purpose), *_tagged(one.checked(), source))
    )


def kept_key(tools: Tools, kind: str, prefix: str, purpose: str) -> Path:
    """Where a key of one instance is kept as long as the run needs it."""
    return tools.run_folder / ".".join((kind, *filter(None, (prefix.strip("/"), purpose))))


def _tagged(spec: Spec, source: Ref[SourceImage]) -> tuple[Mapping[str, str | Late], Ref[SourceImage] | None]:
    """The tags of temporary resources; the source image only where a tag names it, as others need not wait for it."""
    tags = spec.launch.tags
    return tags, source if any(isinstance(value, Late) for value in tags.values()) else None


def network_for(
    graph: Graph, spec: Spec, tools: Tools, region: str, labels: RunTags, source: Ref[SourceImage], prefix: str
) -> Ref[Network]:
    launch, ec2 = spec.launch, tools.regions[region]
    subnets = tuple(subnet if isinstance(subnet, str) else subnet.tags for subnet in launch.subnets)
    if launch.security_groups:
        return graph.add(f"{prefix}network", UseGroups(ec2, launch.security_groups, subnets))
    group = MakeGroup(ec2, labels, subnets, launch.ssh.port, launch.ssh.allow_from, *_tagged(spec, source))
    return graph.add(f"{prefix}network", group)


def launch_of(
    spec: Spec,
    tools: Tools,
    region: str,
    labels: RunTags,
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
        devices=devices_wanted(launch.block_devices),
        encrypt_root=encrypt is not None,
        kms_key=encrypt.kms_key if encrypt else None,
        instance_profile=launch.iam_instance_profile,
        host_key=host_key if launch.ssh.host_key == "user-data" else None,
        user_data=launch.user_data,
        public_address=launch.ssh.bastion is None and launch.ssh.address in ("public_ip", "public_dns"),
        tags=launch.tags,
        spot=SpotWanted(launch.spot.max_price, launch.spot.fallback) if launch.spot else None,
    )


def devices_wanted(devices: Sequence[BlockDevice]) -> tuple[DeviceWanted, ...]:
    """Block devices of a spec."""
    return tuple(DeviceWanted(**{**each.model_dump(exclude={"tags"}), "tags": each.tags}) for each in devices)


def await_ssh(one: LoadedSpec, tools: Tools, ec2: Ec2, instance: Ref[Instance], key: Ref[Key]) -> AwaitSsh:
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
        ssh.login,
        ssh.port,
        address,
        ssh.timeout,
        via=via,
        key_on_console=ssh.host_key == "console",
    )
