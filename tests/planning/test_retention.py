"""A plan lists the images that the new image would make superfluous."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from imagepipe.planning.retention import retired_by
from imagepipe.retention.rules import Rules
from imagepipe.spec.keys import SpecKey
from tests.local.aws import harness
from tests.retention.baked import HOME, Workshop
from tests.retention.conftest import workshop

__all__ = ["workshop"]


def _planned(workshop: Workshop) -> list[tuple[str, str, str]]:
    rules = {SpecKey("web"): Rules(1, regions=(HOME,))}
    found = retired_by(rules, workshop.account.regions, lambda run, key: "", datetime.now(UTC))
    return [(action.verb, action.what, action.region) for action in found]


def test_the_image_that_the_new_one_replaces_is_listed_with_its_step(workshop: Workshop) -> None:
    assert _planned(workshop) == []
    image = workshop.bake("r1")
    assert _planned(workshop) == [("retire", f"{image} 'web-r1' (deprecate: 1 newer, 1 kept)", HOME)]
    harness.running(workshop.client(), ImageId=image)
    assert _planned(workshop) == [], "it is in use"
    calls = workshop.account.cloud.admin("GET", "calls")
    assert not [name for name in calls if "UsageReport" in name]


def test_without_a_permission_the_plan_says_that_nothing_is_retired(workshop: Workshop) -> None:
    workshop.bake("r1")
    workshop.account.fault("refuse", "DescribeImageReferences", code="UnauthorizedOperation", status=403)
    [(verb, what, _)] = _planned(workshop)
    assert verb == "retire"
    assert what.startswith("no older image: nothing was retired")


@pytest.mark.parametrize("newest", [2, 3])
def test_an_image_among_the_newest_is_not_listed(newest: int, workshop: Workshop) -> None:
    workshop.bake("r1")
    rules = {SpecKey("web"): Rules(newest, regions=(HOME,))}
    assert list(retired_by(rules, workshop.account.regions, lambda run, key: "", datetime.now(UTC))) == []
