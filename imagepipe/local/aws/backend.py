"""The parts that every action works with: database, disks, machines, network, clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from imagepipe.local.aws.authentication.accounts import Accounts
from imagepipe.local.aws.faults.faults import Faults
from imagepipe.local.aws.moto.adapter import Moto
from imagepipe.local.aws.moto.bundles import Bundles
from imagepipe.local.aws.moto.s3_transfers import Transfers
from imagepipe.local.aws.moto.vpcs import Network
from imagepipe.local.aws.state.call_log import Calls, Evaluations
from imagepipe.local.aws.state.clock import CloudClock
from imagepipe.local.aws.state.database import Database
from imagepipe.local.aws.state.job_queues import JobQueues
from imagepipe.local.disks.base_image import BaseImage
from imagepipe.local.disks.files import Disks
from imagepipe.local.machines.driver import Driver


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
