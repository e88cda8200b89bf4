"""Launch the instance that is customized: with IMDSv2, optional encryption, and other types as a fallback."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from itertools import product
from typing import Any

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.errors import NO_CAPACITY
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.cloud.instances import LaunchRequest
from imagepipe.cloud.tags import RunTags
from imagepipe.communicator import keys
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Claim, Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.late import Text
from imagepipe.launch.access import Key, Network, temporary_tags
from imagepipe.launch.devices import devices_of
from imagepipe.launch.source import checked_tags
from imagepipe.launch.user_data import user_data
from imagepipe.values import Instance

VOLUMES_SECONDS = 300


@dataclass(frozen=True, slots=True)
class SpotWanted:
    """The spec's request for a spot instance."""

    max_price: str | None = None
    fallback: bool = True
    """Launch on demand if there is no spot capacity: every type and subnet is tried again."""


@dataclass(frozen=True)
class Launch(Stage[Instance]):
    """Launch an instance of the source image. The stage ends when EC2 accepts the request, before the instance runs."""

    ec2: Ec2 = field(repr=False, compare=False)
    run_tags: RunTags = field(repr=False, compare=False)
    source: Ref[SourceImage]
    key: Ref[Key]
    network: Ref[Network]
    after: tuple[Ref[Any], ...]
    """Checks without cost that must pass before anything is launched, such as the check of names."""
    instance_types: tuple[str, ...]
    devices: tuple[DeviceWanted, ...]
    encrypt_root: bool
    kms_key: str | None
    instance_profile: str | None
    sends_host_key: bool
    """True to give the instance an SSH host key by user data, so that the first connection can verify it."""
    user_data: str | None
    public_address: bool
    tags: Mapping[str, Text] = field(default_factory=dict)
    spot: SpotWanted | None = None

    def run(self, ctx: Context) -> Instance:
        source = ctx[self.source]
        device_tags = self._device_tags(source)
        devices = devices_of(self.devices, source, encrypt=self.encrypt_root, kms_key=self.kms_key)
        key_file = ctx.own_file("host_ed25519") if self.sends_host_key else None
        # Claim first: whatever then deletes the instance also deletes the private key file.
        details = {"private_key": str(key_file)} if key_file else None
        claim = ctx.intend("instance", self.ec2.region, lifetime=Lifetime.RUN, details=details)
        host_key = keys.load_or_generate(key_file, "imagepipe") if key_file else None
        base = LaunchRequest(
            image=source.id,
            instance_type=self.instance_types[0],
            subnet=None,
            security_groups=ctx[self.network].security_groups,
            key_pair=ctx[self.key].name,
            user_data=user_data(host_key, self.user_data),
            mappings=tuple(device.launched() for device in devices),
            instance_profile=self.instance_profile,
            public_address=self.public_address,
            has_ebs_root=source.root_device_type == "ebs",
        )
        id, request = self._launch(ctx, claim, base, ctx[self.network])
        self._tag_volumes(ctx, id, device_tags)
        public = " ".join(host_key.public.split()[:2]) if host_key else None
        return Instance(id, self.ec2.region, request.instance_type, source.root_device_name, public, spot=request.spot)

    def _device_tags(self, source: SourceImage) -> dict[str, dict[str, str]]:
        """Render the tags of single volumes, by device. Raises CloudError for a tag that EC2 would refuse."""
        names = late_names(source, self.ec2.region)
        return {
            device.device: checked_tags(f"the tags of {device.device}:", device.tags, names, self.ec2.region)
            for device in self.devices
            if device.tags
        }

    def _tag_volumes(self, ctx: Context, id: str, wanted: Mapping[str, Mapping[str, str]]) -> None:
        """Add each volume's own tags once EC2 lists the volumes: RunInstances gives all volumes the same tags."""
        if not wanted:
            return

        def attached(seen: Mapping[str, Any] | None) -> dict[str, str] | None:
            mappings = (seen or {}).get("BlockDeviceMappings", ())
            found = {str(m["DeviceName"]): str(m["Ebs"]["VolumeId"]) for m in mappings if "Ebs" in m}
            return found if wanted.keys() <= found.keys() else None

        volumes = self.ec2.poller.until(
            "instance",
            id,
            attached,
            operation=f"waiting for the volumes of {id} in {self.ec2.region}",
            deadline=ctx.deadline(VOLUMES_SECONDS),
            cancel=ctx.cancel,
            state=lambda seen: str(seen["State"]["Name"]),
        )
        for device, tags in wanted.items():
            self.ec2.images.tag([volumes[device]], dict(tags))

    def _launch(self, ctx: Context, claim: Claim, base: LaunchRequest, network: Network) -> tuple[str, LaunchRequest]:
        if before := self._launched_before(ctx, claim):
            return before, self._request_of(before, base)
        name = f"imagepipe {self.run_tags.spec}"
        tags = temporary_tags(ctx, self.run_tags, claim, name, self.tags, self.source, self.ec2.region)
        refused: list[str] = []
        for request in self._requests(base, network):
            try:
                launched = self.ec2.instances.launch(
                    request, client_token=_token(claim.token, request), instance_tags=tags, volume_tags=tags
                )
            except CloudError as error:
                if error.code not in NO_CAPACITY:
                    raise
                refused.append(f"{_describe(request)}: {error.code}")
                ctx.say(f"{error}")
                ctx.cancel.check()
                continue
            ctx.bind(claim, str(launched["InstanceId"]))
            return str(launched["InstanceId"]), request
        keys.delete_private_key(claim.details)
        ctx.released(claim)
        raise CloudError(
            f"launching {base.image} in {self.ec2.region}: no capacity: {'; '.join(refused)}",
            code="InsufficientInstanceCapacity",
            hint="name more instance types in launch.instance_types, more subnets, or another region",
        )

    def _launched_before(self, ctx: Context, claim: Claim) -> str | None:
        """Return the id of an instance that an earlier process launched, even if that process never got the id."""
        if claim.id is not None:
            return claim.id
        id = ctx.found_again(claim, lambda token: next(iter(self.ec2.instances.of_token(token)), None))
        if id is not None:
            ctx.bind(claim, id)
        return id

    def _request_of(self, id: str, base: LaunchRequest) -> LaunchRequest:
        """Reconstruct the request that launched an instance: its type and whether it is a spot instance."""
        seen = self.ec2.instances.describe(id)
        is_spot = seen.get("InstanceLifecycle") == "spot"
        return replace(base, instance_type=str(seen["InstanceType"]), spot=is_spot)

    def _requests(self, base: LaunchRequest, network: Network) -> Iterator[LaunchRequest]:
        """Yield every attempt in order: spot in every subnet with every type, and only then on demand."""
        markets = [False] if self.spot is None else [True, False] if self.spot.fallback else [True]
        price = self.spot.max_price if self.spot else None
        for spot, subnet, instance_type in product(markets, network.subnets, self.instance_types):
            yield replace(
                base, subnet=subnet, instance_type=instance_type, spot=spot, max_price=price if spot else None
            )

    def title(self) -> str:
        return f"launch {self.instance_types[0]} in {self.ec2.region}"

    def summary(self, output: Instance) -> str:
        return f"{output.id} ({output.instance_type}{', spot' if output.spot else ''})"


def _describe(request: LaunchRequest) -> str:
    return (
        request.instance_type
        + (f" in {request.subnet}" if request.subnet else "")
        + (" (spot)" if request.spot else "")
    )


def _token(token: str, request: LaunchRequest) -> str:
    """Return a client token for exactly this request: EC2 refuses the same token with other parameters."""
    digest = hashlib.sha256(f"{request.instance_type} {request.subnet} {request.spot}".encode()).hexdigest()[:12]
    return f"{token}-{digest}"
