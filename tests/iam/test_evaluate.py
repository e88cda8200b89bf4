"""Decisions about requests, for policies that are written by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagepipe.iam.conditions import Condition, NotUnderstood
from imagepipe.iam.evaluate import AuthorizationRequest, Decision, decide, rules_of

IMAGE = "arn:aws:ec2:us-east-1::image/ami-1"


def _policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def _allow(**more: Any) -> dict[str, Any]:
    return {"Sid": "A", "Effect": "Allow", "Action": "ec2:DeregisterImage", "Resource": IMAGE, **more}


def _asked(**context: str) -> AuthorizationRequest:
    return AuthorizationRequest("ec2:DeregisterImage", IMAGE, {key: (value,) for key, value in context.items()})


def test_nothing_is_allowed_that_no_statement_allows() -> None:
    assert decide(rules_of(_policy()), _asked()) == Decision(False)


def test_a_statement_allows_its_action_on_its_resource() -> None:
    assert decide(rules_of(_policy(_allow())), _asked()) == Decision(True, ("A",))


def test_a_deny_wins_over_every_allow() -> None:
    deny = {"Sid": "D", "Effect": "Deny", "Action": "ec2:*", "Resource": "*"}
    assert decide(rules_of(_policy(_allow(), deny)), _asked()) == Decision(False, ("D",), is_denied=True)


@pytest.mark.parametrize(
    ("action", "fits"),
    [
        ("ec2:deregisterimage", True),
        ("ec2:Deregister*", True),
        ("ec2:DeregisterImag?", True),
        ("*", True),
        ("ec2:DeregisterImages", False),
        ("s3:*", False),
    ],
)
def test_actions_have_wildcards_and_no_case(action: str, fits: bool) -> None:
    assert decide(rules_of(_policy(_allow(Action=action))), _asked()).is_allowed is fits


@pytest.mark.parametrize(
    ("resource", "fits"),
    [
        ("*", True),
        ("arn:aws:ec2:*::image/*", True),
        ("arn:aws:ec2:us-*:*:image/ami-?", True),
        ("arn:aws:ec2:us-west-2::image/*", False),
        ("arn:aws:ec2:us-east-1::snapshot/*", False),
        ("arn:aws:ec2:us-east-1::IMAGE/ami-1", False),
    ],
)
def test_a_wildcard_of_a_resource_stays_between_its_colons(resource: str, fits: bool) -> None:
    assert decide(rules_of(_policy(_allow(Resource=resource))), _asked()).is_allowed is fits


def test_an_action_about_no_resource_wants_a_statement_about_all() -> None:
    asked = AuthorizationRequest("ec2:DescribeImages", "*", {})
    for resource, allowed in (("*", True), (IMAGE, False), ("arn:aws:ec2:*:*:*", False)):
        rules = rules_of(_policy(_allow(Action="ec2:DescribeImages", Resource=resource)))
        assert decide(rules, asked).is_allowed is allowed


@pytest.mark.parametrize(
    ("operator", "values", "present", "holds"),
    [
        ("StringEquals", ["a", "b"], ["b"], True),
        ("StringEquals", ["a"], ["A"], False),
        ("StringEqualsIgnoreCase", ["a"], ["A"], True),
        ("StringEquals", ["a*"], ["ab"], False),
        ("StringLike", ["a*"], ["ab"], True),
        ("StringEquals", ["a"], None, False),
        ("StringEqualsIfExists", ["a"], None, True),
        ("StringEqualsIfExists", ["a"], ["b"], False),
        ("StringNotEquals", ["a"], ["b"], True),
        ("StringNotEquals", ["a"], ["a"], False),
        ("StringNotEquals", ["a"], None, True),
        ("Bool", ["true"], ["True"], True),
        ("Null", ["true"], None, True),
        ("Null", ["false"], None, False),
        ("Null", ["false"], ["x"], True),
        ("ForAllValues:StringEquals", ["a", "b"], ["a", "b"], True),
        ("ForAllValues:StringEquals", ["a", "b"], ["a", "c"], False),
        ("ForAllValues:StringEquals", ["a"], None, True),
        ("ForAnyValue:StringEquals", ["a"], ["a", "c"], True),
        ("ForAnyValue:StringEquals", ["a"], None, False),
    ],
)
def test_a_condition_holds_as_the_iam_user_guide_says(
    operator: str, values: list[str], present: list[str] | None, holds: bool
) -> None:
    condition = Condition(operator, "aws:TagKeys", tuple(values))
    assert condition.is_met({} if present is None else {"aws:TagKeys": tuple(present)}) is holds


def test_an_arn_is_compared_part_by_part() -> None:
    condition = Condition("ArnLike", "ec2:InstanceProfile", ("arn:aws:iam::*:instance-profile/reader",))
    assert condition.is_met({"ec2:InstanceProfile": ("arn:aws:iam::123456789012:instance-profile/reader",)})
    assert not condition.is_met({"ec2:InstanceProfile": ("arn:aws:iam::123456789012:instance-profile/x/reader",)})


def test_a_variable_stands_for_what_the_request_says() -> None:
    own = {"StringEquals": {"ec2:Owner": "${aws:PrincipalAccount}"}}
    rules = rules_of(_policy(_allow(Condition=own)))
    assert decide(rules, _asked(**{"ec2:Owner": "1", "aws:PrincipalAccount": "1"})).is_allowed
    assert not decide(rules, _asked(**{"ec2:Owner": "2", "aws:PrincipalAccount": "1"})).is_allowed


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("{", "not JSON"),
        ("[]", "only Version, Id and Statement"),
        ('{"Version": "2008-10-17", "Statement": []}', "2012-10-17"),
        (_policy(_allow(NotAction="ec2:*")), "NotAction is not supported"),
        (_policy(_allow(Effect="Maybe")), "neither Allow nor Deny"),
        (_policy(_allow(Action=None)), "Action is neither"),
        (_policy(_allow(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})), "operator 'IpAddress'"),
        (_policy(_allow(Condition={"NumericLessThan": {"s3:max-keys": "1"}})), "operator 'NumericLessThan'"),
        (_policy(_allow(Condition={"StringEquals": {"aws:SourceVpc": "v"}})), "key 'aws:SourceVpc'"),
        (_policy(_allow(Condition={"StringEquals": {"ec2:Owner": "${aws:username}"}})), "variable 'aws:username'"),
        (_policy(_allow(Condition={"NullIfExists": {"ec2:Owner": "true"}})), "Null takes no set operator"),
        (_policy(_allow(Condition={"Null": {"ec2:Owner": "yes"}})), "true or false"),
        (_policy(_allow(Condition={"Null": {"ec2:Owner": ["true", "false"]}})), "one value"),
        (_policy(_allow(Condition={"Bool": {"ec2:Encrypted": "1"}})), "true or false"),
        (_policy(_allow(Action="DeregisterImage")), "Action 'DeregisterImage' is not supported"),
        (_policy(_allow(Resource="arn:aws:ec2:*")), "Resource 'arn:aws:ec2:.' is not supported"),
        (_policy(_allow(Resource="ami-1")), "Resource 'ami-1' is not supported"),
        (_policy(_allow(Resource="arn:aws:s3:::${aws:PrincipalAccount}/*")), "is not supported"),
        (_policy(_allow()).replace('"Effect"', '"Condition": {}, "Condition": {}, "Effect"'), "a duplicate key"),
        ("[" * 100_000, "not JSON"),
    ],
    ids=lambda text: text[-30:],
)
def test_what_is_not_understood_is_refused_and_does_not_pass(policy: str, message: str) -> None:
    with pytest.raises(NotUnderstood, match=message):
        rules_of(policy)


def test_a_condition_on_several_values_without_a_quantifier_is_refused_and_not_passed_over() -> None:
    deny = {"Sid": "D", "Effect": "Deny", "Action": "*", "Resource": "*"}
    rules = rules_of(_policy(_allow(), {**deny, "Condition": {"StringEquals": {"aws:TagKeys": "secret"}}}))
    asked = AuthorizationRequest("ec2:DeregisterImage", IMAGE, {"aws:TagKeys": ("team", "secret")})
    with pytest.raises(NotUnderstood, match="2 values"):
        decide(rules, asked)
