"""Instance types that cannot launch the source image are found before anything is launched."""

from __future__ import annotations

import pytest
from botocore.session import get_session

from imagepipe.spec.ec2_rules import architecture_of_type, size_findings

from .conftest import Loader, messages

SPEC = """\
imagepipe: 1
name: web
source: {ami: {name: "debian-12-*", owners: ["136693071363"], architecture: ARCHITECTURE}}
launch: {region: us-east-1TYPES}
output: {name: web-1}
"""


@pytest.mark.parametrize(
    ("instance_type", "architecture"),
    [
        *(
            (each, "arm64")
            for each in ("t4g.small", "m6gd.large", "c7gn.xlarge", "im4gn.large", "g5g.xlarge", "a1.2xlarge")
        ),
        *(
            (each, "x86_64")
            for each in ("t3.small", "t3a.small", "g4dn.xlarge", "m7i-flex.large", "u7i-12tb.224xlarge")
        ),
    ],
)
def test_the_architecture_of_a_type_is_in_its_name(instance_type: str, architecture: str) -> None:
    assert architecture_of_type(instance_type) == architecture


@pytest.mark.parametrize(
    ("architecture", "types", "found"),
    [
        ("arm64", ", instance_types: [t4g.small]", []),
        ("x86_64", "", []),
        ("i386", "", []),
        ("arm64", "", ["the default instance type t3.small is for x86_64: set launch.instance_types: [t4g.small]"]),
        (
            "arm64",
            ", instance_types: [t4g.small, t3.small]",
            ["t3.small is for x86_64, but the source image is for arm64; such as t4g.small"],
        ),
        (
            "x86_64",
            ", instance_types: [t4g.small]",
            ["t4g.small is for arm64, but the source image is for x86_64; such as t3.small"],
        ),
    ],
)
def test_a_type_of_another_architecture_is_an_error(
    loaded: Loader, architecture: str, types: str, found: list[str]
) -> None:
    text = SPEC.replace("ARCHITECTURE", architecture).replace("TYPES", types)
    assert messages(loaded(text, whole=True)) == found


def test_every_type_that_ec2_has_is_accepted_and_a_misspelt_size_is_not(loaded: Loader) -> None:
    known = get_session().get_service_model("ec2").shape_for("InstanceType").enum
    assert len(known) > 1000
    assert list(size_findings(known)) == []
    wrong = "imagepipe: 1\nname: web\nsource: {ami: ami-0123456789abcdef0}\noutput: {name: web-1}\n"
    wrong += "launch: {instance_types: [t3.smal, m5.2xlrge, x9.enormous]}\n"
    assert messages(loaded(wrong, whole=True)) == [
        "EC2 has no size 'smal' of instances; did you mean 't3.small'?",
        "EC2 has no size '2xlrge' of instances; did you mean 'm5.2xlarge'?",
    ]
