"""The rules of security groups. A change takes effect on running machines at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.instances import jobs
from imagepipe.local.aws.ec2.network.security_groups import named
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, invalid, missing
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Rule, SecurityGroup

NUMBERS = {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "all": "-1"}
WAIT_SECONDS = 2.0  # most that an answer waits for open ports; a machine that is starting takes longer


def _authorize(backend: Backend, call: Call, side: str) -> Mapping[str, Any]:
    group = named(backend, call)
    present: tuple[Rule, ...] = getattr(group, side)
    tags = tagging.parse_specifications(call.params, "security-group-rule")["security-group-rule"]
    added = [replace(rule, id=new_id("sgr"), tags=tags) for rule in _rules(backend, call)]
    if not added:
        raise missing("ipPermissions")
    for place, rule in enumerate(added):
        if any(_key(rule) == _key(other) for other in (*present, *added[:place])):
            raise AwsError(
                "InvalidPermission.Duplicate",
                f'the specified rule "peer: {_peer(rule)}, {_shown_protocol(rule)}, from port: {rule.from_port}, '
                f'to port: {rule.to_port}, ALLOW" already exists',
            )
    changed = _put_rules(backend, group, side, (*present, *added))
    return {"Return": True, "SecurityGroupRules": [_to_api(_Row(changed, rule, side)) for rule in added]}


def _revoke(backend: Backend, call: Call, side: str) -> Mapping[str, Any]:
    group = named(backend, call)
    present: tuple[Rule, ...] = getattr(group, side)
    ids = _rule_ids(call, present)
    wanted = [rule for rule in present if rule.id in ids]
    for rule in _rules(backend, call):
        found = [other for other in present if _key(rule) == _key(other)]
        if not found:
            raise AwsError("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
        wanted += found
    if not wanted:
        raise missing("ipPermissions")
    _put_rules(backend, group, side, tuple(rule for rule in present if rule not in wanted))
    return {"Return": True, "RevokedSecurityGroupRules": [_revoked(_Row(group, rule, side)) for rule in wanted]}


def _revoked(row: _Row) -> dict[str, Any]:
    """Describe a rule that was revoked: without tags, and with the id alone of the group that it names."""
    kept = ("SecurityGroupRuleId", "GroupId", "IsEgress", "IpProtocol", "FromPort", "ToPort", "CidrIpv4", "CidrIpv6")
    described = _to_api(row)
    return {
        **{name: described[name] for name in (*kept, "PrefixListId", "Description")},
        "ReferencedGroupId": row.rule.group_id,
    }


authorize_ingress = partial(_authorize, side="ingress")
authorize_egress = partial(_authorize, side="egress")
revoke_ingress = partial(_revoke, side="ingress")
revoke_egress = partial(_revoke, side="egress")


def modify_rules(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Replace rules of a group; each keeps its id, its tags and its side."""
    group = named(backend, call)
    present = (*group.ingress, *group.egress)
    changed: dict[str, Rule] = {}
    for wanted in call.params["SecurityGroupRules"]:
        id, given = str(wanted.get("SecurityGroupRuleId", "")), wanted.get("SecurityGroupRule", {})
        old = _rule_of(present, id)
        [new] = _of_permission(backend, call, _as_permission(given))
        changed[id] = replace(new, id=id, tags=old.tags)
    for side in ("ingress", "egress"):
        rules: tuple[Rule, ...] = getattr(group, side)
        if any(rule.id in changed for rule in rules):
            group = _put_rules(backend, group, side, tuple(changed.get(rule.id, rule) for rule in rules))
    return {"Return": True}


def _as_permission(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a rule of ModifySecurityGroupRules to the shape of AuthorizeSecurityGroupIngress."""
    note = {"Description": given["Description"]} if given.get("Description") else {}
    peers = {
        "IpRanges": {"CidrIp": given.get("CidrIpv4")},
        "Ipv6Ranges": {"CidrIpv6": given.get("CidrIpv6")},
        "PrefixListIds": {"PrefixListId": given.get("PrefixListId")},
        "UserIdGroupPairs": {"GroupId": given.get("ReferencedGroupId")},
    }
    named_peers = {kind: [{**peer, **note}] for kind, peer in peers.items() if any(peer.values())}
    if len(named_peers) != 1:
        raise invalid("A security group rule has one source or destination: a CIDR block, a prefix list or a group")
    return {**{key: given.get(key) for key in ("IpProtocol", "FromPort", "ToPort")}, **named_peers}


def _update_descriptions(backend: Backend, call: Call, side: str) -> Mapping[str, Any]:
    """Change descriptions of rules, which are named by their ids or described."""
    group = named(backend, call)
    rules: tuple[Rule, ...] = getattr(group, side)
    texts: dict[str, str | None] = {}
    for each in call.params.get("SecurityGroupRuleDescriptions", []):
        rule = _rule_of(rules, str(each.get("SecurityGroupRuleId", "")))
        texts[rule.id] = each.get("Description") or None
    for wanted in _rules(backend, call):
        found = [rule for rule in rules if _key(rule) == _key(wanted)]
        if not found:
            raise AwsError("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
        texts[found[0].id] = wanted.description
    if not texts:
        raise missing("ipPermissions or securityGroupRuleDescription")
    _put_rules(
        backend,
        group,
        side,
        tuple(replace(rule, description=texts[rule.id]) if rule.id in texts else rule for rule in rules),
    )
    return {"Return": True}


update_ingress_descriptions = partial(_update_descriptions, side="ingress")
update_egress_descriptions = partial(_update_descriptions, side="egress")


def _rule_of(rules: Iterable[Rule], identifier: str) -> Rule:
    """Find the rule of this id. Raises AwsError."""
    for rule in rules:
        if rule.id == identifier:
            return rule
    text = f"The security group rule ID '{identifier}' does not exist"
    raise AwsError("InvalidSecurityGroupRuleId.NotFound", text)


def _rule_ids(call: Call, rules: Sequence[Rule]) -> Sequence[str]:
    """Return the rule ids of the request. Raises AwsError if a rule does not exist."""
    ids: Sequence[str] = call.params.get("SecurityGroupRuleIds", [])
    for identifier in ids:
        _rule_of(rules, identifier)
    return ids


def _put_rules(backend: Backend, group: SecurityGroup, side: str, rules: tuple[Rule, ...]) -> SecurityGroup:
    """Give a side of the group these rules; afterwards open and close the ports of its running machines."""
    changed = replace(group, ingress=rules) if side == "ingress" else replace(group, egress=rules)
    backend.database.put(changed)

    def change_ports() -> None:
        changes = [
            backend.submit(row.id, jobs.open_ports, row.id)
            for row in backend.database.instances
            if group.id in row.group_ids and row.state == "running"
        ]
        wait(changes, WAIT_SECONDS)

    backend.database.later(change_ports)
    return changed


def _key(rule: Rule) -> tuple[object, ...]:
    return (
        rule.protocol, rule.from_port, rule.to_port, rule.cidr, rule.cidr_v6, rule.prefix_list, rule.group_id
    )  # fmt: skip


def _shown_protocol(rule: Rule) -> str:
    """Name the protocol of a rule as EC2's refusals do."""
    return "ALL" if rule.protocol == "-1" else rule.protocol.upper()


def _peer(rule: Rule) -> str:
    return str(rule.cidr or rule.cidr_v6 or rule.prefix_list or rule.group_id)


def _rules(backend: Backend, call: Call) -> Iterator[Rule]:
    """List the rules of a request, in its older, flat form or in IpPermissions."""
    params = call.params
    for permission in params.get("IpPermissions", []):
        yield from _of_permission(backend, call, permission)
    if params.get("CidrIp") or params.get("SourceSecurityGroupName"):
        flat: dict[str, Any] = {key: params.get(key) for key in ("IpProtocol", "FromPort", "ToPort")}
        if params.get("CidrIp"):
            flat["IpRanges"] = [{"CidrIp": params["CidrIp"]}]
        else:
            flat["UserIdGroupPairs"] = [{"GroupName": params["SourceSecurityGroupName"]}]
            flat["IpProtocol"] = flat["IpProtocol"] or "-1"
        yield from _of_permission(backend, call, flat)


def _of_permission(backend: Backend, call: Call, permission: Mapping[str, Any]) -> Iterable[Rule]:
    if not permission.get("IpProtocol"):
        raise missing("ipProtocol")
    protocol = NUMBERS.get(str(permission["IpProtocol"]).lower(), str(permission["IpProtocol"]).lower())
    first, last = _ports(protocol, permission.get("FromPort"), permission.get("ToPort"))
    blank = Rule(id="", protocol=protocol, from_port=first, to_port=last)
    rules = [
        replace(blank, **_peer_of(backend, call, kind, entry), description=entry.get("Description"))
        for kind in ("IpRanges", "Ipv6Ranges", "PrefixListIds", "UserIdGroupPairs")
        for entry in permission.get(kind, [])
    ]
    if not rules:
        raise missing("ipRanges, ipv6Ranges, prefixListIds or groups")
    return rules


def _peer_of(backend: Backend, call: Call, kind: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a rule that name its source or destination."""
    match kind:
        case "IpRanges":
            return {"cidr": _cidr(entry.get("CidrIp", ""))}
        case "Ipv6Ranges":
            return {"cidr_v6": _cidr(entry.get("CidrIpv6", ""), ipaddress.IPv6Network)}
        case "PrefixListIds":
            return {"prefix_list": entry.get("PrefixListId")}
    group = named(backend, replace(call, params=entry))
    return {"group_id": group.id, "group_account": group.account}


def _ports(protocol: str, first: int | None, last: int | None) -> tuple[int, int]:
    if protocol == "-1":
        return -1, -1
    if protocol not in ("tcp", "udp", "icmp", "icmpv6"):
        if protocol.isdigit() and int(protocol) < 256:
            return -1, -1
        raise invalid(f"Invalid value '{protocol}' for IP protocol. Unknown protocol.")
    if protocol in ("icmp", "icmpv6"):
        return (-1 if first is None else first), (-1 if last is None else last)
    if first is None or last is None:
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid value 'Must specify both from and to ports with {protocol.upper()}/UDP.' for portRange.",
        )
    if not 0 <= first <= last <= 65535:
        raise invalid(f"Invalid TCP/UDP port range ({first}:{last})")
    return first, last


def _cidr(text: str, kind: type[ipaddress.IPv4Network] | type[ipaddress.IPv6Network] = ipaddress.IPv4Network) -> str:
    try:
        if "/" in text:
            return str(kind(text, strict=False))
    except ValueError:
        pass
    raise invalid(f"CIDR block {text} is malformed")


@dataclass(frozen=True, slots=True)
class _Row:
    """A rule and its group."""

    group: SecurityGroup
    rule: Rule
    side: str

    @property
    def id(self) -> str:
        return self.rule.id

    @property
    def tags(self) -> Mapping[str, str]:
        return self.rule.tags


GETTERS: Mapping[str, Getter] = {
    "group-id": lambda row: row.group.id,
    "security-group-rule-id": lambda row: row.rule.id,
}


def describe_security_group_rules(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = [
        _Row(group, rule, side)
        for group in backend.database.groups.owned(call.account, call.region)
        for side in ("ingress", "egress")
        for rule in getattr(group, side)
    ]
    if ids := _rule_ids(call, [row.rule for row in rows]):
        rows = [row for row in rows if row.rule.id in ids]
    getters = AnswerFilters("DescribeSecurityGroupRules", _to_api, GETTERS)
    shown, token = filters.page(rows, call.params, getters, ids="SecurityGroupRuleIds")
    return {"SecurityGroupRules": [_to_api(row) for row in shown], "NextToken": token}


def _to_api(row: _Row) -> dict[str, Any]:
    rule = row.rule
    return {
        "SecurityGroupRuleId": rule.id,
        "GroupId": row.group.id,
        "GroupOwnerId": row.group.account,
        "IsEgress": row.side == "egress",
        "IpProtocol": rule.protocol,
        "FromPort": rule.from_port,
        "ToPort": rule.to_port,
        "CidrIpv4": rule.cidr,
        "CidrIpv6": rule.cidr_v6,
        "PrefixListId": rule.prefix_list,
        "ReferencedGroupInfo": {"GroupId": rule.group_id, "UserId": rule.group_account} if rule.group_id else None,
        "Description": rule.description,
        "Tags": tagging.to_api(rule.tags),
    }
