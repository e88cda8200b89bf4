"""The security group that every VPC has, and the rule that every group begins with."""

from __future__ import annotations

from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.state.records import Rule, SecurityGroup


def default_group(account: str, region: str, vpc_id: str) -> SecurityGroup:
    """Make the group that every VPC has: open within itself, and to the outside."""
    group_id = new_id("sg")
    inside = Rule(id=new_id("sgr"), protocol="-1", from_port=-1, to_port=-1, group_id=group_id, group_account=account)
    return SecurityGroup(
        id=group_id,
        account=account,
        region=region,
        name="default",
        description="default VPC security group",
        vpc_id=vpc_id,
        ingress=(inside,),
        egress=(open_egress(),),
    )


def open_egress() -> Rule:
    """Make the rule of a new group, which allows all traffic out."""
    return Rule(id=new_id("sgr"), protocol="-1", from_port=-1, to_port=-1, cidr="0.0.0.0/0")
