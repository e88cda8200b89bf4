"""The parts that every action works with: database, disks, machines, network, clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event

from imagepipe.clock import Clock, iso
from imagepipe.local.aws.authentication.accounts import ANYWHERE, Accounts
from imagepipe.local.aws.faults.faults import Faults
from imagepipe.local.aws.moto.adapter import Moto
from imagepipe.local.aws.moto.bundles import Bundles
from imagepipe.local.aws.moto.s3_transfers import Transfers
from imagepipe.local.aws.moto.vpcs import Network
from imagepipe.local.aws.protocol.ids import new_id, stable_id
from imagepipe.local.aws.state.call_log import Calls, Evaluations
from imagepipe.local.aws.state.database import Database
from imagepipe.local.aws.state.job_queues import JobQueues
from imagepipe.local.aws.state.records import DiskSpec, Image, Rule, SecurityGroup, Setting, Snapshot
from imagepipe.local.disks.base_image import BaseImage
from imagepipe.local.disks.files import Disks
from imagepipe.local.machines.driver import Driver

DEBIAN = "136693071363"  # wiki.debian.org/Cloud/AmazonEC2Image: the account of Debian's official images


class CloudClock:
    """The time of the cloud: another clock's, set forward as far as somebody asked; it stays so on disk."""

    def __init__(self, clock: Clock, database: Database) -> None:
        self._clock = clock
        self._database = database

    def now(self) -> datetime:
        """Whole milliseconds, as EC2 tells the time."""
        moment = self._clock.now() + self._offset()
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wait(self, event: Event, seconds: float) -> bool:
        return self._clock.wait(event, seconds)

    def advance(self, seconds: float) -> str:
        """Set the clock forward; gives the time that it then shows."""
        offset = self._offset() + timedelta(seconds=seconds)
        with self._database.change():
            self._database.put(Setting(id="clock", account="", region=ANYWHERE, value=str(offset.total_seconds())))
        return iso(self.now())

    def _offset(self) -> timedelta:
        setting = self._database.settings.get("clock")
        return timedelta(seconds=float(setting.value)) if setting else timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One local cloud, as its actions see it."""

    database: Database
    disks: Disks
    driver: Driver
    base: BaseImage
    clock: CloudClock
    accounts: Accounts
    faults: Faults
    job_queues: JobQueues
    moto: Moto
    network: Network
    bundles: Bundles
    transfers: Transfers
    calls: Calls = field(default_factory=Calls)
    evaluations: Evaluations = field(default_factory=Evaluations)

    def settle(self, account: str, region: str) -> None:
        """Make the region as a new account finds it: default VPC, default groups, Debian's image."""
        self.network.settle(account, region)
        self.settle_base(region)
        if self._default_groups(account, region) != set(self.network.vpc_ids(account, region)):
            self._settle_groups(account, region)

    def _default_groups(self, account: str, region: str) -> set[str]:
        """The VPCs that have their default group."""
        return {group.vpc_id for group in self.database.groups.owned(account, region) if group.name == "default"}

    def _settle_groups(self, account: str, region: str) -> None:
        """moto makes and deletes VPCs; a VPC's default group comes and goes with it."""
        with self.database.change():
            present = self.network.vpc_ids(account, region)
            for vpc_id in set(present) - self._default_groups(account, region):
                self.database.put(default_group(account, region, vpc_id))
            for group in self.database.groups.owned(account, region):
                if group.name == "default" and group.vpc_id not in present:
                    self.database.remove(group)

    def base_image_id(self, region: str) -> str:
        """The id of Debian's image in this region."""
        return _image_id(self.base, region)

    def settle_base(self, region: str) -> None:
        """Make Debian's images as this region has them. Raises StoreFull: the first region's take room."""
        for base in (self.base, self.base.as_disk()):
            if base is not None and self.database.images.get(_image_id(base, region)) is None:
                self._settle(base, region)

    def _settle(self, base: BaseImage, region: str) -> None:
        # Two first requests may come here at once; both then do the same.
        snapshot_id = stable_id("snap", base.name, iso(base.created), region)
        if not self.disks.snapshot_path(snapshot_id).exists():
            self._adopt_base(base, snapshot_id)
        with self.database.change():
            self.database.put(
                Snapshot(
                    id=snapshot_id,
                    account=DEBIAN,
                    region=region,
                    volume_id="vol-ffffffff",
                    size_gib=base.size_gib,
                    state="completed",
                    progress=100,
                    description=base.description,
                    start_time=base.created,
                    completion_time=base.created,
                    users=("all",),
                )
            )
            self.database.put(_base_record(base, snapshot_id, region))

    def _adopt_base(self, base: BaseImage, snapshot_id: str) -> None:
        """The base image's bytes under this id; those of another region where there are some, as they cost nothing."""
        for other in self.database.snapshots:
            is_base = other.account == DEBIAN and (other.start_time, other.description) == (
                base.created,
                base.description,
            )
            if is_base and self.disks.snapshot_path(other.id).exists():
                return self.disks.copy_snapshot(other.id, snapshot_id)
        return self.disks.adopt_snapshot(base.path, snapshot_id)


def _image_id(base: BaseImage, region: str) -> str:
    return stable_id("ami", base.name, iso(base.created), region)


def _base_record(base: BaseImage, snapshot_id: str, region: str) -> Image:
    return Image(
        id=_image_id(base, region),
        account=DEBIAN,
        region=region,
        name=base.name,
        description=base.description,
        state="available",
        created=base.created,
        root_device=base.root_device,
        mappings=(
            DiskSpec(
                device=base.root_device,
                snapshot_id=snapshot_id,
                size_gib=base.size_gib,
                type="gp3",
                iops=3000,
                throughput=125,
            ),
        ),
        architecture=base.architecture,
        ena_support=True,
        sriov="simple",
        boot_mode=base.boot_mode,
        users=("all",),
    )


def default_group(account: str, region: str, vpc_id: str) -> SecurityGroup:
    """The group that every VPC has: open within itself, and to the outside."""
    group_id = new_id("sg")
    return SecurityGroup(
        id=group_id,
        account=account,
        region=region,
        name="default",
        description="default VPC security group",
        vpc_id=vpc_id,
        ingress=(
            Rule(id=new_id("sgr"), protocol="-1", from_port=-1, to_port=-1, group_id=group_id, group_account=account),
        ),
        egress=(open_egress(),),
    )


def open_egress() -> Rule:
    """What a new group lets out: everything."""
    return Rule(id=new_id("sgr"), protocol="-1", from_port=-1, to_port=-1, cidr="0.0.0.0/0")
