"""Instances: launch, describe, stop, terminate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imagepipe.clock import Clock
from imagepipe.cloud import tags as tagging
from imagepipe.cloud.batching import BatchedChange, BatchedLookup
from imagepipe.cloud.consistency import chunks, ignore_missing, retry_until_visible
from imagepipe.cloud.errors import translating
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """The parameters of a launch."""

    image: str
    instance_type: str
    subnet: str | None
    security_groups: tuple[str, ...]
    key_pair: str | None
    user_data: bytes
    mappings: tuple[dict[str, Any], ...]
    """BlockDeviceMappings for RunInstances."""
    instance_profile: str | None = None
    public_address: bool = True
    """Ask for a public address if the request names a subnet, which may not assign one by default."""
    spot: bool = False
    max_price: str | None = None
    """Highest spot price in dollars per hour; None means the on-demand price."""
    has_ebs_root: bool = True

    def request(self) -> dict[str, Any]:
        """Return the parameters for RunInstances."""
        profile = self.instance_profile
        network: dict[str, Any] = {"SecurityGroupIds": list(self.security_groups)}
        if self.subnet:
            interface: dict[str, Any] = {
                "DeviceIndex": 0,
                "SubnetId": self.subnet,
                "Groups": list(self.security_groups),
            }
            if self.public_address:
                interface["AssociatePublicIpAddress"] = True
            network = {"NetworkInterfaces": [interface]}
        return {
            "ImageId": self.image,
            "InstanceType": self.instance_type,
            "UserData": self.user_data,  # botocore encodes it
            "MinCount": 1,
            "MaxCount": 1,
            # An instance with its root on instance store can only be terminated.
            **({"InstanceInitiatedShutdownBehavior": "stop"} if self.has_ebs_root else {}),
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 2},
            **network,
            **({"KeyName": self.key_pair} if self.key_pair else {}),
            **({"InstanceMarketOptions": self._market()} if self.spot else {}),
            **({"BlockDeviceMappings": list(self.mappings)} if self.mappings else {}),
            **({"IamInstanceProfile": {"Arn" if profile.startswith("arn:") else "Name": profile}} if profile else {}),
        }

    def _market(self) -> dict[str, Any]:
        """Return the market options for a one-time request; a persistent one would relaunch a dead build's instance."""
        price = {"MaxPrice": self.max_price} if self.max_price else {}
        return {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time", **price}}


class Instances:
    """Instances of one region."""

    def __init__(self, client: Any, region: str, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self.region = region
        self._described_together = BatchedLookup(self.describe_many)
        self._stopped_together = BatchedChange(self._stop)
        self._terminated_together = BatchedChange(self._terminate)

    def launch(
        self,
        request: LaunchRequest,
        *,
        client_token: str,
        instance_tags: Mapping[str, str],
        volume_tags: Mapping[str, str],
    ) -> Mapping[str, Any]:
        """Launch an instance and return its description. Idempotent by its client token, even if an answer is lost.

        Raises CloudError with a code of `errors.NO_CAPACITY` if another type or subnet may work.
        """
        where = f"{self.region}, {request.subnet}" if request.subnet else self.region

        def call() -> Mapping[str, Any]:
            with translating(f"launching {request.image} as {request.instance_type} in {where}"):
                answer = self._client.run_instances(
                    ClientToken=client_token,
                    TagSpecifications=[
                        tagging.specification("instance", instance_tags),
                        tagging.specification("volume", volume_tags),
                    ],
                    **request.request(),
                )
            return dict(answer["Instances"][0])

        return retry_until_visible(call, self._clock, "InvalidGroup.NotFound", "InvalidKeyPair.NotFound")

    def describe_many(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return the descriptions of instances by id, without those that do not exist."""
        found: dict[str, Mapping[str, Any]] = {}
        for chunk in chunks(ids):
            found |= self._described([{"Name": "instance-id", "Values": chunk}])
        return found

    def describe(self, id: str) -> Mapping[str, Any]:
        """Return the description of an instance. Raises CloudError if it does not exist."""
        seen = self._described_together.look_up(id)
        if seen is None:
            raise CloudError(f"{id} in {self.region} does not exist", code="InvalidInstanceID.NotFound")
        return seen

    def of_token(self, token: str) -> list[str]:
        """Return the instances that are tagged with a token and not terminated."""
        states = ["pending", "running", "shutting-down", "stopping", "stopped"]
        return list(self._described([tagging.by_token(token), {"Name": "instance-state-name", "Values": states}]))

    def root_device_types(self, instance_types: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the root device types (`ebs`, `instance-store`) of each instance type; skips unknown types."""
        found: dict[str, tuple[str, ...]] = {}
        for chunk in chunks(instance_types):
            with translating(f"describing {', '.join(chunk)} in {self.region}"):
                pages = self._client.get_paginator("describe_instance_types").paginate(
                    Filters=[{"Name": "instance-type", "Values": chunk}]
                )
                found |= {
                    str(described["InstanceType"]): tuple(described.get("SupportedRootDeviceTypes", ()))
                    for page in pages
                    for described in page["InstanceTypes"]
                }
        return found

    def ended(self, id: str) -> str | None:
        """Return the state of an instance that no longer runs; None if it runs or its state is unknown."""
        try:
            seen = self.describe_many([id]).get(id)
        except CloudError:
            return None
        state = str(seen["State"]["Name"]) if seen else "gone"
        return None if state in ("running", "pending") else state

    def check_runs(self, id: str) -> None:
        """Raise CloudError if the instance no longer runs, so that nobody waits for it."""
        if state := self.ended(id):
            raise CloudError(
                f"{id} in {self.region} is {state}: SSH will not come back",
                code=state,
                hint="did a step or somebody else power it off?",
            )

    def status_checks(self, id: str) -> str:
        """Describe the results of EC2's two status checks."""
        with translating(f"reading the status checks of {id} in {self.region}"):
            found = self._client.describe_instance_status(InstanceIds=[id], IncludeAllInstances=True)
        for status in found["InstanceStatuses"]:
            return f"system {status['SystemStatus']['Status']}, instance {status['InstanceStatus']['Status']}"
        return "not known"

    def _described(self, filters: list[dict[str, Any]]) -> dict[str, Mapping[str, Any]]:
        with translating(f"describing instances in {self.region}"):
            pages = self._client.get_paginator("describe_instances").paginate(Filters=filters)
            return {instance["InstanceId"]: instance for instance in _instances(pages)}

    def stop(self, id: str) -> None:
        """Ask EC2 to stop an instance."""
        self._stopped_together.make(id)

    def _stop(self, ids: Sequence[str]) -> None:
        with translating(f"stopping {', '.join(ids)} in {self.region}"):
            self._client.stop_instances(InstanceIds=list(ids))

    def terminate(self, id: str) -> None:
        """Ask EC2 to terminate an instance; one that is already gone is a success."""
        with ignore_missing("InvalidInstanceID.NotFound"):
            self._terminated_together.make(id)

    def _terminate(self, ids: Sequence[str]) -> None:
        with translating(f"terminating {', '.join(ids)} in {self.region}"):
            self._client.terminate_instances(InstanceIds=list(ids))

    def uefi_data(self, id: str) -> str | None:
        """Return the UEFI variables of an instance for RegisterImage."""
        with translating(f"reading the UEFI data of {id} in {self.region}"):
            return self._client.get_instance_uefi_data(InstanceId=id).get("UefiData") or None

    def console(self, id: str) -> str:
        """Return the console output of an instance, as far as EC2 has it."""
        try:
            return self._console(id, Latest=True)
        except CloudError as error:
            # "Latest" is only for instances on Nitro (EC2 API reference, GetConsoleOutput).
            if error.code not in ("UnsupportedOperation", "InvalidParameterCombination"):
                raise
            return self._console(id)

    def _console(self, id: str, **more: bool) -> str:
        with translating(f"reading the console of {id} in {self.region}"):
            answer = self._client.get_console_output(InstanceId=id, **more)
        return str(answer.get("Output") or "")  # botocore has decoded the base64


def _instances(pages: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for page in pages:
        for reservation in page["Reservations"]:
            yield from reservation["Instances"]
