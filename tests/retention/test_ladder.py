"""The ladder: which bakes are superfluous, since when, and when the next step is due."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from imagepipe.clock import iso
from imagepipe.cloud import tags
from imagepipe.retention.bakes import Bake, BakedImage, bakes_of
from imagepipe.retention.ladder import assess, days
from imagepipe.retention.rules import Rules, Step

NOW = datetime(2026, 11, 29, tzinfo=UTC)
DAY = timedelta(days=1)
GRACE = {Step.DEPRECATE: 1 * DAY, Step.DISABLE: 2 * DAY, Step.DEREGISTER: 3 * DAY}


def _image(age: int, *, region: str = "us-east-1", run: str | None = None, **own: str) -> BakedImage:
    labels = {tags.SPEC: "web", tags.RUN: run or f"r{age}", tags.STATE: tags.KEPT, **own}
    return BakedImage(f"ami-{age}-{region}", region, f"web-{age}", "available", NOW - age * DAY, labels)


def _bakes(*images: BakedImage) -> list[Bake]:
    return bakes_of(images)


def _steps(bakes: list[Bake], rules: Rules) -> list[tuple[Step | None, int | None]]:
    """The next step of each bake, with the days until it is due."""
    return [(each.step, (each.due - NOW) // DAY if each.due else None) for each in assess(bakes, rules, NOW)]


def test_an_image_must_meet_every_condition() -> None:
    bakes = _bakes(_image(1), _image(10), _image(20), _image(100))
    assert [step for step, _ in _steps(bakes, Rules(2))] == [None, None, Step.DEPRECATE, Step.DEPRECATE]
    assert [step for step, _ in _steps(bakes, Rules(1, 90 * DAY))] == [None, None, None, Step.DEPRECATE]
    assert [step for step, _ in _steps(bakes, Rules(4, 1 * DAY))] == [None] * 4
    assert [step for step, _ in _steps(_bakes(_image(1000)), Rules(1, 1 * DAY))] == [None], "the last one"


def test_each_step_waits_from_the_one_before() -> None:
    first, old = _image(10), _image(50)
    assert _steps(_bakes(first, old), Rules(1, grace=GRACE))[1] == (Step.DEPRECATE, -9)
    deprecated = replace(old, deprecated_at=NOW - 1 * DAY)
    assert _steps(_bakes(first, deprecated), Rules(1, grace=GRACE))[1] == (Step.DISABLE, 1)
    disabled = replace(deprecated, state="disabled", tags={**old.tags, tags.DISABLED: iso(NOW - 1 * DAY)})
    assert _steps(_bakes(first, disabled), Rules(1, grace=GRACE))[1] == (Step.DEREGISTER, 2)


def test_a_deprecation_of_the_spec_counts_only_once_the_image_is_superfluous() -> None:
    old = replace(_image(50), deprecated_at=NOW - 40 * DAY)
    assert _steps(_bakes(_image(1), old), Rules(1, grace=GRACE))[1] == (Step.DISABLE, 2)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-29"])
def test_an_image_that_somebody_else_disabled_waits_from_now_whatever_its_tag_says(text: str) -> None:
    old = replace(_image(50), state="disabled", tags={**_image(50).tags, tags.DISABLED: text})
    step, due = _steps(_bakes(_image(10), old), Rules(1, grace=GRACE))[1]
    assert (step, due) == ((Step.DISABLE, -7) if text != "2026-11-29" else (Step.DEREGISTER, 3))


def test_the_copies_of_a_bake_take_each_step_together() -> None:
    here, there = _image(50, run="r"), _image(50, run="r", region="eu-west-1")
    done = replace(here, deprecated_at=NOW - 30 * DAY)
    [_, second] = assess(_bakes(_image(1), done, there), Rules(1), NOW)
    assert (second.step, second.images) == (Step.DEPRECATE, (there,))


def test_a_copy_that_a_later_run_made_belongs_to_its_bake() -> None:
    first = _image(50, run="r", **{tags.FINGERPRINT: "f"})
    copied = replace(
        _image(3, run="later", region="eu-west-1", **{tags.FINGERPRINT: "f"}), source=(first.id, first.region)
    )
    [bake] = _bakes(first, copied)
    assert bake.regions == ("eu-west-1", "us-east-1")
    assert bake.created == copied.created
    other = replace(copied, tags={**copied.tags, tags.FINGERPRINT: "g"})
    assert len(_bakes(first, other)) == 2


def test_each_region_of_the_spec_keeps_its_last_image() -> None:
    old = _image(50, region="eu-west-1")
    assert _steps(_bakes(_image(1), old), Rules(1, regions=("us-east-1", "eu-west-1")))[1] == (None, None)
    assert _steps(_bakes(_image(1), old), Rules(1, regions=("us-east-1",)))[1][0] is Step.DEPRECATE


def test_an_unfinished_copy_of_a_newer_bake_does_not_count_as_the_last_image_of_its_region() -> None:
    rules = Rules(1, regions=("eu-west-1", "us-east-1"))
    newer = [_image(10, run="r2"), _image(10, region="eu-west-1", run="r2", **{tags.STATE: "unfinished"})]
    older = [_image(30, run="r1"), _image(30, region="eu-west-1", run="r1")]
    last = assess(_bakes(*newer, *older), rules, NOW)[-1]
    assert (last.step, last.reason) == (None, "it is the last image of web in eu-west-1")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_protected": True}, "has deregistration protection"),
        ({"state": "pending"}, "is pending"),
        ({"last_launched": NOW - 3 * DAY}, "was launched on 2026-11-26"),
    ],
)
def test_a_superfluous_image_is_left_for_a_reason_of_its_own(change: dict[str, object], reason: str) -> None:
    old = replace(_image(50), **change)  # type: ignore[arg-type]
    assessed = assess(_bakes(_image(1), old), Rules(1, launched_within=30 * DAY), NOW)[1]
    assert assessed.step is None
    assert assessed.is_protected
    assert reason in assessed.reason


def test_an_old_launch_does_not_condemn_an_image() -> None:
    old = replace(_image(5), last_launched=NOW - 1000 * DAY)
    assert _steps(_bakes(_image(1), old), Rules(2, launched_within=30 * DAY))[1] == (None, None)


def test_durations_are_written_in_their_largest_unit() -> None:
    assert [days(timedelta(seconds=each)) for each in (90 * 86400, 7200, 60, 61, 0)] == ["90d", "2h", "1m", "61s", "0s"]


def test_an_image_whose_deprecation_is_a_minute_away_counts_as_deprecated() -> None:
    """EC2 takes no time in the past, so that of `prune` is always in the next minute."""
    assert replace(_image(1), deprecated_at=NOW + timedelta(minutes=1)).state_at(NOW) == "deprecated"
    assert replace(_image(1), deprecated_at=NOW + DAY).state_at(NOW) == "available"
