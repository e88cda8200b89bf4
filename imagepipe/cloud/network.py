"""Key pairs, security groups and subnets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imagepipe.cloud import tags as tagging
from imagepipe.cloud.batching import BatchedLookup
from imagepipe.cloud.consistency import delete_if_exists, ignore_missing, retry_until_visible
from imagepipe.cloud.errors import translating
from imagepipe.cloud.idempotency import IdempotentCreate
from imagepipe.errors import CloudError


class Keys:
    """Key pairs of one region."""

    def __init__(self, client: Any, creates: IdempotentCreate, region: str) -> None:
        self._client, self._creates = client, creates
        self.region = region

    def import_public(self, name: str, public_key: str, *, token: str, tags: Mapping[str, str]) -> str:
        """Import a public key and return the key pair's id. Idempotent, even if an answer is lost."""

        def call() -> str:
            with translating(f"importing key pair {name} in {self.region}"):
                answer = self._creates.client.import_key_pair(
                    KeyName=name,
                    PublicKeyMaterial=public_key.encode(),
                    TagSpecifications=[tagging.specification("key-pair", tags)],
                )
            return str(answer["KeyPairId"])

        return self._creates.once(call, lambda: next(iter(self.of_token(token)), None))

    def of_token(self, token: str) -> list[str]:
        """Return the ids of key pairs that are tagged with a token."""
        with translating(f"looking for key pairs of token {token} in {self.region}"):
            answer = self._client.describe_key_pairs(Filters=[tagging.by_token(token)])
        return [str(pair["KeyPairId"]) for pair in answer["KeyPairs"]]

    def delete(self, id: str) -> bool:
        """Delete a key pair. Return whether it existed."""

        def call() -> None:
            with translating(f"deleting key pair {id} in {self.region}"):
                self._client.delete_key_pair(KeyPairId=id)

        return delete_if_exists(call, "InvalidKeyPair.NotFound")


class Groups:
    """Security groups of one region."""

    def __init__(self, client: Any, creates: IdempotentCreate, region: str) -> None:
        self._client, self._creates = client, creates
        self.region = region

    def create(self, name: str, *, vpc: str, description: str, token: str, tags: Mapping[str, str]) -> str:
        """Create a security group and return its id. Idempotent, even if an answer is lost."""

        def call() -> str:
            with translating(f"creating security group {name} in {self.region}"):
                answer = self._creates.client.create_security_group(
                    GroupName=name,
                    Description=description,
                    VpcId=vpc,
                    TagSpecifications=[tagging.specification("security-group", tags)],
                )
            return str(answer["GroupId"])

        return self._creates.once(call, lambda: next(iter(self.of_token(token)), None))

    def allow_ssh_from(self, id: str, *, port: int, cidrs: Sequence[str]) -> None:
        """Admit these addresses on a port; a rule that already exists is a success."""
        v4 = [{"CidrIp": c, "Description": "imagepipe"} for c in cidrs if ":" not in c]
        v6 = [{"CidrIpv6": c, "Description": "imagepipe"} for c in cidrs if ":" in c]
        permission: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
        if v4:
            permission["IpRanges"] = v4
        if v6:
            permission["Ipv6Ranges"] = v6

        def call() -> None:
            with (
                ignore_missing("InvalidPermission.Duplicate"),
                translating(f"opening port {port} of {id} in {self.region}"),
            ):
                self._client.authorize_security_group_ingress(GroupId=id, IpPermissions=[permission])

        retry_until_visible(call, self._creates.clock, "InvalidGroup.NotFound")

    def of_token(self, token: str) -> list[str]:
        """Return the ids of security groups that are tagged with a token."""
        with translating(f"looking for security groups of token {token} in {self.region}"):
            answer = self._client.describe_security_groups(Filters=[tagging.by_token(token)])
        return [str(group["GroupId"]) for group in answer["SecurityGroups"]]

    def delete(self, id: str) -> bool:
        """Delete a security group. Return whether it existed. Raises CloudError while it is in use."""

        def call() -> None:
            with translating(f"deleting security group {id} in {self.region}"):
                self._client.delete_security_group(GroupId=id)

        return delete_if_exists(call, "InvalidGroup.NotFound")


class Subnets:
    """Subnets and their VPCs, in one region."""

    def __init__(self, client: Any, region: str) -> None:
        self._client = client
        self.region = region
        self._default = BatchedLookup(self._default_vpc)

    def default_vpc(self) -> str | None:
        """Return the id of the default VPC; None if the region has none."""
        return self._default.look_up("vpc")

    def _default_vpc(self, _: Sequence[str]) -> dict[str, str]:
        with translating(f"looking for the default VPC in {self.region}"):
            answer = self._client.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])
        return {"vpc": str(answer["Vpcs"][0]["VpcId"])} if answer["Vpcs"] else {}

    def by_tags(self, tags: Mapping[str, str]) -> list[str]:
        """Return the ids of subnets with all these tags, those with the most free addresses first."""
        filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
        with translating(f"looking for subnets tagged {_describe(tags)} in {self.region}"):
            answer = self._client.describe_subnets(Filters=filters)
        if not answer["Subnets"]:
            raise CloudError(
                f"looking for subnets tagged {_describe(tags)} in {self.region}: no subnet has these tags",
                code="InvalidSubnetID.NotFound",
                hint="see launch.subnets; compare with `aws ec2 describe-subnets`",
            )
        found = sorted(answer["Subnets"], key=lambda s: (-int(s.get("AvailableIpAddressCount", 0)), s["SubnetId"]))
        return [str(subnet["SubnetId"]) for subnet in found]

    def default_route(self, subnet: str, vpc: str) -> str | None:
        """Return the gateway that a subnet's route table sends 0.0.0.0/0 to; None without such a route."""
        with translating(f"looking up the route table of {subnet} in {self.region}"):
            own = self._client.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [subnet]}])
            tables = own["RouteTables"]
            if not tables:  # a subnet without its own table uses the VPC's main one
                main = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}]
                tables = self._client.describe_route_tables(Filters=main)["RouteTables"]
        for route in (route for table in tables for route in table["Routes"]):
            if route.get("DestinationCidrBlock") == "0.0.0.0/0":
                keys = ("GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "InstanceId")
                return next((str(route[key]) for key in keys if route.get(key)), None)
        return None

    def vpcs_of(self, subnets: Sequence[str]) -> dict[str, str]:
        """Return the VPC of each subnet. Raises CloudError for a subnet that does not exist."""
        with translating(f"looking up {', '.join(subnets)} in {self.region}"):
            answer = self._client.describe_subnets(SubnetIds=list(subnets))
        return {str(subnet["SubnetId"]): str(subnet["VpcId"]) for subnet in answer["Subnets"]}


def _describe(tags: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in tags.items())
