"""Refusals of unknown ids, in the words of EC2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.protocol.query import Answer

REFUSALS: Mapping[str, tuple[str, str]] = {
    "acl": ("InvalidNetworkAclID.NotFound", "The networkAcl ID '{}' does not exist"),
    "amiur": ("InvalidImageUsageReportId.NotFound", "The image usage report ID '{}' does not exist"),
    "cr": ("InvalidCapacityReservationId.NotFound", "The capacity reservation ID '{}' does not exist"),
    "dopt": ("InvalidDhcpOptionID.NotFound", "The dhcpOption ID '{}' does not exist"),
    "eigw": ("InvalidGatewayID.NotFound", "The eigw ID '{}' does not exist"),
    "eipalloc": ("InvalidAllocationID.NotFound", "The allocation ID '{}' does not exist"),
    "fl": ("InvalidFlowLogId.NotFound", "The flow log ID '{}' does not exist"),
    "h": ("InvalidHostID.NotFound", "The host ID '{}' does not exist"),
    "igw": ("InvalidInternetGatewayID.NotFound", "The internetGateway ID '{}' does not exist"),
    "key": ("InvalidKeyPair.NotFound", "The key pair ID '{}' does not exist"),
    "lt": ("InvalidLaunchTemplateId.NotFound", "The launch template ID '{}' does not exist"),
    "nat": ("NatGatewayNotFound", "NatGateway {} was not found"),
    "pcx": ("InvalidVpcPeeringConnectionID.NotFound", "The vpcPeeringConnection ID '{}' does not exist"),
    "pg": ("InvalidPlacementGroupId.NotFound", "The placement group ID '{}' does not exist"),
    "pl": ("InvalidPrefixListID.NotFound", "The prefix list ID '{}' does not exist"),
    "rtb": ("InvalidRouteTableID.NotFound", "The routeTable ID '{}' does not exist"),
    "sfr": ("InvalidSpotFleetRequestId.NotFound", "The spot fleet request ID '{}' does not exist"),
    "sgr": ("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '{}' does not exist"),
    "sir": ("InvalidSpotInstanceRequestID.NotFound", "The spot instances request ID '{}' does not exist"),
    "subnet": ("InvalidSubnetID.NotFound", "The subnet ID '{}' does not exist"),
    "tgw": ("InvalidTransitGatewayID.NotFound", "Transit Gateway {} was deleted or does not exist."),
    "vgw": ("InvalidVpnGatewayID.NotFound", "The vpnGateway ID '{}' does not exist"),
    "vpc": ("InvalidVpcID.NotFound", "The vpc ID '{}' does not exist"),
    "vpce": ("InvalidVpcEndpointId.NotFound", "The Vpc Endpoint Id '{}' does not exist"),
}
"""EC2's code and text for an unknown id, by its prefix; `ids.MALFORMED` has the kinds that are not here."""
_NOT_FOUND = re.compile(rb"<Code>[A-Za-z]+\.NotFound</Code>(\s*)<Message>([^<]*)</Message>")
_ID = re.compile(rf"\b({'|'.join(REFUSALS)})-[0-9a-f]+")


def unknown_id(identifier: str) -> AwsError:
    """Make the error for the id of a resource that does not exist."""
    prefix = identifier.partition("-")[0]
    if prefix not in REFUSALS:
        return invalid(f"The ID '{identifier}' is not valid")
    code, text = REFUSALS[prefix]
    return AwsError(code, text.format(identifier))


def reworded(answer: Answer) -> Answer:
    """Return an answer of moto's; if it refuses an unknown id, refuse it as EC2 does.

    moto's code for an unknown network ACL is that of a route table.
    """
    if answer.status != 400:
        return answer
    return replace(answer, body=_NOT_FOUND.sub(_as_ec2_says, answer.body))


def _as_ec2_says(match: re.Match[bytes]) -> bytes:
    found = _ID.search(match[2].decode())
    if found is None:
        return match[0]
    error = unknown_id(found[0])
    return f"<Code>{error.code}</Code>{match[1].decode()}<Message>{error.message}</Message>".encode()
