"""Policies put together, and how large IAM finds them."""

from __future__ import annotations

from imagepipe.iam.document import Statement, document, merged, parts, size

ONE = Statement("S", ("ec2:A",), ("arn:b", "arn:a"), {"StringEquals": {"k": ("v",)}})


def test_statements_of_one_reason_and_kind_of_condition_are_one() -> None:
    other = Statement("S", ("ec2:B",), ("arn:a",), {"StringEquals": {"k": ("w",)}})
    assert merged([ONE, other]) == [
        Statement("S", ("ec2:A", "ec2:B"), ("arn:a", "arn:b"), {"StringEquals": {"k": ("v", "w")}})
    ]


def test_statements_of_one_reason_and_other_conditions_have_a_number() -> None:
    other = Statement("S", ("ec2:A",), ("*",), {"Bool": {"k": ("true",)}})
    assert [one.sid for one in merged([ONE, other, Statement("A", (), ())])] == ["A", "S", "S2"]


def test_a_document_is_sorted_and_says_one_value_as_itself() -> None:
    assert document([ONE]) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "S",
                "Effect": "Allow",
                "Action": "ec2:A",
                "Resource": ["arn:a", "arn:b"],
                "Condition": {"StringEquals": {"k": "v"}},
            }
        ],
    }


def test_white_space_does_not_count() -> None:
    assert size({"a": "b c"}) == len('{"a":"bc"}')


def test_a_policy_that_is_too_large_is_parted_between_statements() -> None:
    several = parts([ONE, ONE, ONE], limit=size(document([ONE, ONE])))
    assert [len(each["Statement"]) for each in several] == [2, 1]
    assert parts([ONE]) == [document([ONE])]
