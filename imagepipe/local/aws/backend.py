"""The parts that every action works with: database, disks, machines, network, clock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import field
from typing import Concatenate, ParamSpec

from imagepipe.dataclass import dataclass
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

P = ParamSpec("P")


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

    def submit(
        self, queue: str, work: Callable[Concatenate[Backend, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> Future[None]:
        """Run the work on this backend, after everything that is already in the queue."""
        return self.job_queues.submit(queue, lambda: work(self, *args, **kwargs))

    def submit_later(
        self, queue: str, work: Callable[Concatenate[Backend, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Submit this work once the change that is being made is on disk."""
        self.database.later(lambda: self.submit(queue, work, *args, **kwargs))
