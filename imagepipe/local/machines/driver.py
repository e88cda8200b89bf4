"""The interface of drivers, which boot machines from raw disks and know nothing of EC2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from pathlib import Path
from typing import Protocol

from imagepipe.dataclass import dataclass

ARM = "arm64"


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device of a machine and the raw file behind it."""

    device: str
    """As EC2 names it: `/dev/xvda`."""
    path: Path


@dataclass(frozen=True, slots=True)
class Seed:
    """cloud-init's input at boot. It is never written to the disk."""

    instance_id: str
    hostname: str
    region: str
    user_data: bytes
    """The caller's own, untouched: cloud-config, a script, MIME, gzip or empty."""
    public_keys: tuple[str, ...]
    """OpenSSH lines of the key pair; vendor-data and meta-data pass them on."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The answers of 169.254.169.254 inside a machine; user data is the seed's."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Credentials of the instance's role among them. By path below `meta-data/`: `placement/region`."""
    identity: str = ""
    """The instance identity document, JSON."""
    tokens_required: bool = True
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class Ingress:
    """Ports that a security group opens to a range of addresses."""

    protocol: str
    """`tcp`, `udp`, `icmp`, or `-1` for all."""
    from_port: int
    to_port: int
    cidr: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as a driver needs it, the same at every start."""

    id: str
    """The instance's id."""
    address: str
    """The machine's loopback address, 127.42.x.y; SSH is on port 22 there."""
    disks: tuple[Disk, ...]
    """The root device first."""
    seed: Seed
    metadata: Metadata = field(default_factory=Metadata)
    architecture: str = "x86_64"
    """As EC2 names it: `x86_64`, `arm64` or `i386`."""
    further_addresses: tuple[str, ...] = ()
    """Loopback addresses at which its ports are open as well."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, *self.further_addresses)


class Driver(Protocol):
    """Machines of one kind. Methods may be called from any thread, and one id only by one thread at a time."""

    name: str

    def start(self, machine: Machine, ingress: Sequence[Ingress]) -> None:
        """Boot; returns once the machine's init runs. Raises MachineError, and then leaves nothing behind."""

    def stop(self, machine_id: str, *, force: bool = False) -> None:
        """Power off cleanly (with `force`: at once), and delete mounts, loops, namespaces and processes.

        When it returns, the raw files hold all that the machine wrote. A machine that is not running is success.
        """

    def reboot(self, machine_id: str) -> None:
        """Ask the machine's init to reboot; returns at once."""

    def set_ingress(self, machine_id: str, ingress: Sequence[Ingress]) -> None:
        """Open these ports of a running machine to their callers, and close all others."""

    def set_addresses(self, machine_id: str, further: Sequence[str]) -> None:
        """Open the ports of a running machine at these addresses as well, and close them at all others but its own."""

    def attach(self, machine_id: str, disk: Disk) -> None:
        """Plug a disk into a running machine, and into its next boots; a disk that it has already is success.

        Raises MachineError; the machine then does not have the disk.
        """

    def detach(self, machine_id: str, device: str) -> None:
        """Unplug a disk from a running machine, and from its next boots; a missing one is success.

        When it returns, the raw file holds all that the machine wrote. Raises DiskBusy while the machine uses the disk.
        """

    def resize(self, machine_id: str, device: str) -> None:
        """Show a running machine that the raw file of a disk has grown; a missing disk is success."""

    def set_metadata(self, machine_id: str, metadata: Metadata) -> None:
        """Have 169.254.169.254 of a running machine answer with these values, from now on."""

    def quiesced(self, machine_id: str) -> AbstractContextManager[None]:
        """Freeze the disks of a running machine within the block, with consistent file systems."""

    def console(self, machine_id: str) -> bytes:
        """Return the console output since the machine was first started, the last 64 KiB of it.

        Works for a stopped machine too, until `forget`.
        """

    def running(self) -> frozenset[str]:
        """Return the ids of running machines, including those adopted from an earlier process of this store."""

    def on_exit(self, callback: Callable[[str], None]) -> None:
        """Call this, with the id, after a machine has powered itself off and has been cleaned up."""

    def forget(self, machine_id: str) -> None:
        """Delete what is kept about a machine that is stopped for good: console and scratch files."""

    def close(self) -> None:
        """Stop watching; the machines live on, for the next process of this store."""
