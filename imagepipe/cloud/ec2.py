"""EC2 in one region: images, snapshots, instances, key pairs, groups, and the poller that they share."""

from __future__ import annotations

import http.client
import ipaddress
import urllib.parse
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

from imagepipe.clock import Clock, Deadline
from imagepipe.cloud.errors import translating
from imagepipe.cloud.idempotency import IdempotentCreate
from imagepipe.cloud.images import Images
from imagepipe.cloud.instances import Instances
from imagepipe.cloud.lifecycle import Lifecycle
from imagepipe.cloud.network import Groups, Keys, Subnets
from imagepipe.cloud.parameters import Parameters
from imagepipe.cloud.poller import Cancel, Poller
from imagepipe.cloud.rate_limit import RetryBudget
from imagepipe.cloud.s3 import S3
from imagepipe.cloud.session import Session
from imagepipe.cloud.snapshots import Snapshots
from imagepipe.errors import CloudError
from imagepipe.values import HostPorts

if TYPE_CHECKING:
    from imagepipe.cloud.launch_templates import LaunchTemplates
    from imagepipe.cloud.recycle_bin import RecycleBin
    from imagepipe.cloud.references import References

CALLER_URL = "https://checkip.amazonaws.com"
"""A service of AWS that returns the caller's address."""
CALLER_SECONDS = 10


class Ec2:
    """EC2 in one region; thread-safe."""

    def __init__(self, session: Session, region: str, clock: Clock) -> None:
        self.region = region
        self.clock = clock
        self._session = session
        self.endpoint_url = session.endpoint_url
        self._client: Any = session.client("ec2", region)
        creates = IdempotentCreate(session.client("ec2", region, retries=False), clock, RetryBudget())
        self.images = Images(self._client, creates, region)
        self.snapshots = Snapshots(self._client, creates, region)
        self.instances = Instances(self._client, region, clock)
        self.keys = Keys(self._client, creates, region)
        self.groups = Groups(self._client, creates, region)
        self.subnets = Subnets(self._client, region)
        self.parameters = Parameters(session, region)
        self.lifecycle = Lifecycle(self._client, region)
        self.poller = Poller(
            {
                "instance": self.instances.describe_many,
                "image": self.images.describe_many,
                "snapshot": self.snapshots.describe_many,
            },
            clock,
        )
        self._s3: S3 | None = None
        self._lock = Lock()

    @property
    def s3(self) -> S3:
        """S3 of the region; created on first use, because it takes 50 ms and most builds do not need it."""
        with self._lock:
            if self._s3 is None:
                self._s3 = S3(self._session, self.region, self.clock)
            return self._s3

    @cached_property
    def launch_templates(self) -> LaunchTemplates:
        """The launch templates; loaded by those that use them."""
        from imagepipe.cloud.launch_templates import LaunchTemplates

        return LaunchTemplates(self._client, self.region)

    @cached_property
    def references(self) -> References:
        """The search for users of images; loaded by those that use it."""
        from imagepipe.cloud.references import References

        return References(self._session, self._client, self.region)

    @cached_property
    def recycle_bin(self) -> RecycleBin:
        """The Recycle Bin; loaded by those that use it."""
        from imagepipe.cloud.recycle_bin import RecycleBin

        return RecycleBin(self._session, self._client, self.region)

    @property
    def host_ports(self) -> HostPorts:
        """The ports at which instances' ports are open."""
        return self._session.host_ports

    def await_image(self, id: str, *, deadline: Deadline, cancel: Cancel) -> Mapping[str, Any]:
        """Wait until an image is available; return its description.

        Raises CloudError if the image fails, or at the deadline, with the last state seen.
        """

        def settled(seen: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
            state = seen["State"] if seen else "unknown"
            if state in ("failed", "invalid", "error", "deregistered"):
                reason = (seen or {}).get("StateReason", {}).get("Message") or "no reason given"
                raise CloudError(f"{id} in {self.region} is in state {state}: {reason}", code=state)
            return seen if state == "available" else None

        return self.poller.until(
            "image",
            id,
            settled,
            operation=f"waiting for {id} in {self.region} to be available",
            deadline=deadline,
            cancel=cancel,
            state=lambda seen: str(seen["State"]),
        )

    def await_terminated(self, id: str, *, deadline: Deadline, cancel: Cancel) -> None:
        """Wait until an instance is terminated: its security group and volumes are in use until then."""
        self.poller.until(
            "instance",
            id,
            lambda seen: True if seen is None or seen["State"]["Name"] == "terminated" else None,
            operation=f"waiting for {id} in {self.region} to terminate",
            deadline=deadline,
            cancel=cancel,
            state=lambda seen: str(seen["State"]["Name"]),
        )

    def caller_cidr(self) -> str:
        """Return the address that AWS sees as ours, as a CIDR of one address."""
        endpoint = self._session.endpoint_url or ""
        if urllib.parse.urlparse(endpoint).hostname in ("127.0.0.1", "localhost", "::1"):
            return "127.0.0.1/32"
        try:
            with urllib.request.urlopen(CALLER_URL, timeout=CALLER_SECONDS) as answer:
                # Fails if the answer is not an address but, say, the login page of a Wi-Fi portal.
                address = ipaddress.ip_address(answer.read(64).decode("ascii").strip())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise CloudError(
                f"asking {CALLER_URL} for the address of this computer: {error}",
                hint="name the addresses that may connect: launch.ssh.allow_from: [203.0.113.7/32]",
            ) from error
        return f"{address}/{address.max_prefixlen}"


class Regions:
    """An Ec2 for each region, created on first use."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self.session = session
        self._clock = clock
        self._made: dict[str, Ec2] = {}
        self._lock = Lock()

    def __getitem__(self, region: str) -> Ec2:
        with self._lock:
            if region not in self._made:
                self._made[region] = Ec2(self.session, region, self._clock)
            return self._made[region]

    def enabled(self, region: str) -> list[str]:
        """Ask one region for all regions that are enabled for the account. Raises CloudError."""
        with translating("listing the account's regions"):
            client: Any = self.session.client("ec2", region)
            return sorted(str(each["RegionName"]) for each in client.describe_regions()["Regions"])
