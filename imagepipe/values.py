"""Values that stages pass to each other."""

from __future__ import annotations

from collections.abc import Mapping

from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a machine's SSH server, with the login and the expected host key."""

    host: str
    port: int
    user: str
    host_key: str | None
    """OpenSSH public key that the server must show; set before boot, so that the first connection is verified too.

    None only for `accept-new`."""
    private_key: str
    """Path of the private key; the key itself is never in a value."""
    via: Endpoint | None = None
    """The bastion, which is verified too; None for a direct connection."""


PORT_OFFSET = 20_000


@dataclass(frozen=True, slots=True)
class HostPorts:
    """The ports at which an instance's ports are open; other ones only on the local cloud of a plain user."""

    first_real: int = 0
    """The first port that the local cloud's user may bind. Ports below it are open at an offset."""

    def of(self, port: int) -> int:
        """Return the port at which an instance's port is open."""
        return port if port >= self.first_real else port + PORT_OFFSET


@dataclass(frozen=True, slots=True)
class ImageText:
    """The name, description and tags of an image in one region, rendered."""

    name: str
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Instance:
    """A launched instance, with the host key that proves its identity."""

    id: str
    region: str
    instance_type: str
    root_device_name: str
    host_key: str | None
    """OpenSSH public key from user data; None for `console` and `accept-new`."""
    spot: bool = False
    """True if the instance is a spot instance, which cannot be stopped."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """An instance that accepts our login."""

    instance: Instance
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Sealed:
    """A scrubbed instance: its disks have no traces of the build, and nobody can log in."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Stopped:
    """A scrubbed and stopped instance: its disks no longer change."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Image:
    """An image that this run created, in one region."""

    id: str
    region: str
    name: str
    snapshots: tuple[str, ...]
    bundle: str | None = None
    """ImageLocation of an instance-store image, `bucket/folder/NAME.manifest.xml`; None if it is EBS-backed."""


@dataclass(frozen=True, slots=True)
class BundlePlace:
    """The place of a future bundle, claimed in advance."""

    bucket: str
    folder: str
    """Folder of all its keys, without a final slash."""
    token: str
    """Token of its claim."""


@dataclass(frozen=True, slots=True)
class BundlePart:
    """A part of a bundle, as seen in S3."""

    filename: str
    size: int
    md5: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A complete instance-store bundle in S3."""

    region: str
    bucket: str
    folder: str
    """Folder of all its keys, without a final slash; contains the token of the bundle's claim."""
    name: str
    architecture: str
    parts: tuple[BundlePart, ...] = ()

    @property
    def manifest_key(self) -> str:
        return f"{self.folder}/{self.name}.manifest.xml"

    @property
    def location(self) -> str:
        """Location for RegisterImage, which is also the id of the bundle's claim."""
        return f"{self.bucket}/{self.manifest_key}"
