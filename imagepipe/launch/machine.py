"""Launch the instance that is customized: IMDSv2, encrypted where wanted, the next type on lack of capacity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from imagepipe import render
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.cloud.instances import LaunchRequest
from imagepipe.cloud.tags import Labels
from imagepipe.cloud.translate import NO_CAPACITY
from imagepipe.communicator import keys
from imagepipe.engine.journal import Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.launch.access import Key, Network
from imagepipe.values import Instance, Text


@dataclass(frozen=True, slots=True)
class DeviceWanted:
    """A block device, as the spec has it; None is the source image's own."""

    device: str
    size_gib: int | None = None
    type: str | None = None
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool | None = None
    kms_key: str | None = None
    snapshot: str | None = None
    delete_on_termination: bool | None = None
    virtual_name: str | None = None
    no_device: bool = False

    @property
    def is_left_out(self) -> bool:
        """Whether this is no EBS volume at all."""
        return self.no_device or self.virtual_name is not None

    def request(self) -> dict[str, Any]:
        """One entry of BlockDeviceMappings."""
        if self.no_device:
            return {"DeviceName": self.device, "NoDevice": ""}
        if self.virtual_name:
            return {"DeviceName": self.device, "VirtualName": self.virtual_name}
        values = {
            "VolumeSize": self.size_gib,
            "VolumeType": self.type,
            "Iops": self.iops,
            "Throughput": self.throughput,
            "Encrypted": self.encrypted,
            "KmsKeyId": self.kms_key,
            "SnapshotId": self.snapshot,
            # A volume that outlived its instance would be a leak: all are captured before that.
            "DeleteOnTermination": True,
        }
        return {"DeviceName": self.device, "Ebs": {key: value for key, value in values.items() if value is not None}}


@dataclass(frozen=True)
class Launch(Stage[Instance]):
    """An instance of the source image. It is launched when EC2 takes the request, not when it runs."""

    ec2: Ec2 = field(repr=False, compare=False)
    labels: Labels
    source: Ref[SourceImage]
    key: Ref[Key]
    network: Ref[Network]
    names: Ref[Mapping[str, str]]
    """Nothing is launched before the names are known to be free."""
    instance_types: tuple[str, ...]
    devices: tuple[DeviceWanted, ...]
    encrypt_root: bool
    kms_key: str | None
    instance_profile: str | None
    has_host_key: bool
    """Give the instance a host key by user data."""
    user_data: str | None
    public_address: bool
    tags: Mapping[str, Text] = field(default_factory=dict)

    def run(self, ctx: Context) -> Instance:
        source = ctx[self.source]
        host_key = keys.generate("imagepipe") if self.has_host_key else None
        user_data = _host_key_user_data(host_key) if host_key else (self.user_data or "").encode()
        base = LaunchRequest(
            image=source.id,
            instance_type=self.instance_types[0],
            subnet=None,
            security_groups=ctx[self.network].security_groups,
            key_pair=ctx[self.key].name,
            user_data=user_data,
            mappings=tuple(device.request() for device in self._devices(source)),
            instance_profile=self.instance_profile,
            public_address=self.public_address,
        )
        instance_id, instance_type = self._launch(ctx, base, ctx[self.network])
        public = " ".join(host_key.public.split()[:2]) if host_key else None
        return Instance(instance_id, self.ec2.region, instance_type, source.root_device_name, public)

    def _devices(self, source: SourceImage) -> list[DeviceWanted]:
        """What the spec says; of the source image's other volumes, that they are encrypted and go with the instance."""
        encrypted = True if self.encrypt_root or self.kms_key else None
        devices = [
            device
            if device.is_left_out or device.encrypted is not None
            else replace(device, encrypted=encrypted, kms_key=device.kms_key or self.kms_key)
            for device in self.devices
        ]
        known = {device.device for device in devices}
        for mapping in source.mappings:
            ebs = mapping.get("Ebs")
            if ebs is None or mapping["DeviceName"] in known:
                continue
            # A volume that stays when its instance goes would be a leak.
            if encrypted or not ebs.get("DeleteOnTermination"):
                devices.append(DeviceWanted(mapping["DeviceName"], encrypted=encrypted, kms_key=self.kms_key))
        return devices

    def _launch(self, ctx: Context, base: LaunchRequest, network: Network) -> tuple[str, str]:
        source = ctx[self.source]
        names = late_names(source, self.ec2.region)
        extra = {key: render.finish(value, names) for key, value in self.tags.items()}
        claim = ctx.intend("instance", self.ec2.region, lifetime=Lifetime.RUN)
        tags = {**extra, **self.labels.temporary(claim.token, f"imagepipe {self.labels.spec}")}
        refused: list[str] = []
        for subnet, instance_type in product(network.subnets, self.instance_types):
            request = LaunchRequest(**{**_fields(base), "instance_type": instance_type, "subnet": subnet})
            try:
                launched = self.ec2.instances.launch(
                    request, client_token=_token(claim.token, request), instance_tags=tags, volume_tags=tags
                )
            except CloudError as error:
                if error.code not in NO_CAPACITY:
                    raise
                refused.append(f"{instance_type}{f' in {subnet}' if subnet else ''}: {error.code}")
                ctx.say(f"{error}")
                ctx.cancel.check()
                continue
            ctx.bind(claim, str(launched["InstanceId"]))
            return str(launched["InstanceId"]), instance_type
        ctx.released(claim)
        raise CloudError(
            f"launching {base.image} in {self.ec2.region}: no capacity: {'; '.join(refused)}",
            code="InsufficientInstanceCapacity",
            hint="name more instance types in launch.instance_types, or another region",
        )

    def title(self) -> str:
        return f"launch {self.instance_types[0]} in {self.ec2.region}"

    def summary(self, output: Instance) -> str:
        return f"{output.id} ({output.instance_type})"


def _fields(request: LaunchRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__slots__}


def _token(token: str, request: LaunchRequest) -> str:
    """A client token for this very request: the same token with other parameters is refused by EC2."""
    what = hashlib.sha256(f"{request.instance_type} {request.subnet}".encode()).hexdigest()[:12]
    return f"{token}-{what}"


def _host_key_user_data(key: keys.KeyPair) -> bytes:
    """cloud-config that makes this the machine's only host key. JSON is YAML, and needs no indentation."""
    config = {
        "ssh_deletekeys": True,
        "ssh_genkeytypes": [],
        "ssh_keys": {"ed25519_private": key.private, "ed25519_public": key.public},
    }
    return b"#cloud-config\n" + json.dumps(config).encode("ascii") + b"\n"
