"""Every parameter that EC2's model has is read, refused by name, or known to have no effect."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from imagepipe.local.aws.ec2 import absent
from imagepipe.local.aws.ec2.actions import OWN
from imagepipe.local.aws.ec2.parameters import NO_EFFECT, REFUSED
from imagepipe.local.aws.protocol.query import operation
from tests.local.aws.harness import refused

ROOM = "imagepipe.local.aws"


@cache
def words(module: str) -> frozenset[str]:
    """The strings in a module's code."""
    tree = ast.parse(Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8"))
    return frozenset(
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def modules(function: Any) -> Iterator[str]:
    """The module of an action's function, and those that it uses."""
    plain = function.func if isinstance(function, functools.partial) else function
    seen, waiting = set(), [plain.__module__]
    while waiting:
        name = waiting.pop()
        if name in seen or not name.startswith(ROOM) or name.endswith(".parameters"):
            continue
        seen.add(name)
        yield name
        for value in vars(sys.modules[name]).values():
            used = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            if used in sys.modules:
                waiting.append(str(used))


@pytest.mark.parametrize("action", OWN)
def test_no_parameter_is_overlooked(action: str) -> None:
    shape = operation(action).input_shape
    known = {name.partition(".")[0] for name in REFUSED.get(action, ())} | set(NO_EFFECT.get(action, ())) | {"DryRun"}
    if OWN[action] is absent.describe_none:  # it refuses every id
        known |= {name for name in shape.members if name.endswith("Ids")}
    read = {word for module in modules(OWN[action]) for word in words(module)}
    assert [name for name in (shape.members if shape else ()) if name not in read | known] == []


@pytest.mark.parametrize(("action", "name"), [(action, name) for action, names in REFUSED.items() for name in names])
def test_a_refused_parameter_is_one_of_the_action(action: str, name: str) -> None:
    shape = operation(action).input_shape
    for step in name.split("."):
        assert step in shape.members
        shape = shape.members[step]


@pytest.mark.parametrize(("action", "name"), [(action, name) for action, names in NO_EFFECT.items() for name in names])
def test_a_parameter_without_effect_is_one_of_the_action(action: str, name: str) -> None:
    assert name in operation(action).input_shape.members


def test_what_the_local_cloud_lacks_is_refused_by_every_action(ec2: Any) -> None:
    with refused("UnsupportedOperation", match="MultiAttachEnabled of CreateVolume"):
        ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, MultiAttachEnabled=True)
    ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, MultiAttachEnabled=False)
    with refused("UnsupportedOperation", match="LaunchGroup of RequestSpotInstances"):
        ec2.request_spot_instances(LaunchGroup="x", LaunchSpecification={"ImageId": "ami-1"})
