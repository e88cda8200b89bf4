"""Words that every room shares: ids, and the few values that stages pass to one another's rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NewType

Region = NewType("Region", str)
ImageId = NewType("ImageId", str)
InstanceId = NewType("InstanceId", str)
SnapshotId = NewType("SnapshotId", str)
VolumeId = NewType("VolumeId", str)
SubnetId = NewType("SubnetId", str)
SecurityGroupId = NewType("SecurityGroupId", str)
AccountId = NewType("AccountId", str)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a machine's shell is, and how to know that it is the right machine."""

    host: str
    port: int
    user: str
    host_key: str | None
    """OpenSSH public key that the server must show; set before boot, so the first connection is checked too.

    None only where the spec asks for `accept-new`."""
    private_key: str
    """Path of the private key that opens it; the key itself is never in a value."""
    via: Endpoint | None = None
    """The host to go through, itself verified."""


@dataclass(frozen=True, slots=True)
class Late:
    """A template that names `source` or `region`, which are known only while the graph runs.

    It stands where its text stood; the stage that holds it renders it in `run()` (`imagepipe.render.finish`).
    """

    text: str
    """The template as it was written."""
    known: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    """The known values that the template reads, of `var`, `param`, `spec` and `build`."""


Text = str | Late
"""A text, or a template that becomes one while the graph runs."""


@dataclass(frozen=True, slots=True)
class ImageText:
    """The name, description and tags of an image in one region, rendered."""

    name: str
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance that was launched, and what proves that it is the one we reach."""

    id: str
    region: str
    instance_type: str
    root_device_name: str
    host_key: str | None
    """OpenSSH public key that user data gave it; None for `console` and `accept-new`."""
    spot: bool = False
    """A spot instance, which EC2 does not let us stop."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """An instance that lets us in."""

    instance: Instance
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Sealed:
    """An instance that was scrubbed: nothing of the build's own is on its disks, and nobody may log in again."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Stopped:
    """An instance that was scrubbed and stopped: its disks stand still."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Image:
    """An image that this run made, in one region."""

    id: str
    region: str
    name: str
    snapshots: tuple[str, ...]
    bundle: str | None = None
    """ImageLocation of an instance-store image, `bucket/folder/NAME.manifest.xml`; None: EBS-backed."""


@dataclass(frozen=True, slots=True)
class BundlePlace:
    """Where a bundle will be, claimed before there is any of it."""

    bucket: str
    folder: str
    """What all its keys will begin with, without a slash at its end."""
    token: str
    """Of its claim."""


@dataclass(frozen=True, slots=True)
class BundlePart:
    """A part of a bundle as it was seen in S3."""

    filename: str
    size: int
    md5: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """An instance-store bundle in S3, its manifest included."""

    region: str
    bucket: str
    folder: str
    """What all its keys begin with, without a slash at its end. It has the token of the bundle's claim."""
    name: str
    architecture: str
    parts: tuple[BundlePart, ...] = ()

    @property
    def manifest_key(self) -> str:
        return f"{self.folder}/{self.name}.manifest.xml"

    @property
    def location(self) -> str:
        """As RegisterImage takes it, and the id that the bundle's claim is bound to."""
        return f"{self.bucket}/{self.manifest_key}"
