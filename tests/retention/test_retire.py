"""Retiring can be stopped and repeated, and a process that was killed loses nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagepipe.cloud import tags
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.stage import Ref
from imagepipe.retention.bakes import baked_image
from imagepipe.retention.decide import decide
from imagepipe.retention.record import RetirementRecord
from imagepipe.retention.retire import Retirer
from imagepipe.retention.rules import RuleBook, Rules, Step
from imagepipe.retention.stage import RetireImages
from imagepipe.retention.survey import survey
from tests.local.aws import harness
from tests.retention.baked import HOME, SECOND, Workshop

BOOK = RuleBook({("web", ""): Rules(1, regions=(HOME,))})


def _record(workshop: Workshop, tmp_path: Path) -> RetirementRecord:
    return RetirementRecord(tmp_path / "retired.jsonl", {"account": "1"}, workshop.account.clock)


def _retirer(workshop: Workshop, tmp_path: Path, cancel: Cancel | None = None) -> Retirer:
    account = workshop.account
    return Retirer(account.regions, cancel or account.cancel, account.clock, _record(workshop, tmp_path))


def test_a_cancel_stops_before_the_next_image_and_a_second_run_goes_on(workshop: Workshop, tmp_path: Path) -> None:
    old, _ = workshop.bake("r1"), workshop.bake("r2")
    regions, now = workshop.account.regions, datetime.now(UTC)
    decisions = decide(regions, survey(regions, [HOME]), BOOK, now)
    cancel = Cancel(workshop.account.clock)
    cancel.set("got SIGINT")
    [stopped] = _retirer(workshop, tmp_path, cancel).retire_all(decisions)
    assert stopped.is_cancelled
    assert "DeprecationTime" not in workshop.described(old)
    [done] = _retirer(workshop, tmp_path).retire_all(decisions)
    assert [image.id for image in done.images] == [old]


def test_a_killed_process_leaves_snapshots_that_the_next_one_deletes(workshop: Workshop, tmp_path: Path) -> None:
    """As if it was killed after DeregisterImage, which left the snapshot."""
    old = workshop.bake("r1")
    snapshot = harness.only_snapshot(workshop.client(), old)
    image = baked_image(workshop.described(old), HOME)
    _record(workshop, tmp_path).begin(image, Step.DEREGISTER)
    workshop.client().deregister_image(ImageId=old)
    [finished] = _retirer(workshop, tmp_path).finish_earlier()
    assert finished.deleted == (snapshot,)
    assert _retirer(workshop, tmp_path).finish_earlier() == []
    assert workshop.client().describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_a_killed_process_that_had_not_deregistered_deletes_nothing(workshop: Workshop, tmp_path: Path) -> None:
    old = workshop.bake("r1")
    _record(workshop, tmp_path).begin(baked_image(workshop.described(old), HOME), Step.DEREGISTER)
    assert _retirer(workshop, tmp_path).finish_earlier() == []
    assert workshop.exists(old)


def test_the_record_is_kept_for_each_cloud_and_skips_a_line_that_was_cut_off(
    workshop: Workshop, tmp_path: Path
) -> None:
    image = baked_image(workshop.described(workshop.bake("r1")), HOME)
    record = _record(workshop, tmp_path)
    record.begin(image, Step.DEREGISTER)
    with (tmp_path / "retired.jsonl").open("a") as file:
        file.write('{"time": "2026')
    assert [entry.id for entry in record.unfinished()] == [image.id]
    other = RetirementRecord(tmp_path / "retired.jsonl", {"account": "2"}, workshop.account.clock)
    assert other.entries() == []


def test_an_image_that_was_launched_or_changed_in_the_meantime_is_left(workshop: Workshop, tmp_path: Path) -> None:
    old, _ = workshop.bake("r1"), workshop.bake("r2")
    regions = workshop.account.regions
    decisions = decide(regions, survey(regions, [HOME]), BOOK, datetime.now(UTC))
    workshop.client().enable_image_deregistration_protection(ImageId=old)
    [left] = _retirer(workshop, tmp_path).retire_all(decisions)
    assert "has deregistration protection" in left.problem
    assert not left.is_error


@pytest.mark.parametrize(("step", "checks"), [(Step.DEPRECATE, 1), (Step.DEREGISTER, 3)])
def test_uses_are_checked_once_for_several_images_but_for_each_one_before_it_is_deregistered(
    workshop: Workshop, tmp_path: Path, step: Step, checks: int
) -> None:
    old = [workshop.bake(f"r{number}") for number in range(3)]
    workshop.bake("newest")
    if step is Step.DEREGISTER:
        for image in old:
            workshop.disable(image)
    regions = workshop.account.regions
    decisions = decide(regions, survey(regions, [HOME]), BOOK, datetime.now(UTC))
    before = workshop.account.cloud.admin("GET", "calls")["ec2:DescribeImageReferences"]
    done = _retirer(workshop, tmp_path).retire_all(decisions)
    assert sorted(image.id for each in done for image in each.images) == sorted(old), done
    assert {image.step for each in done for image in each.images} == {step}
    assert workshop.account.cloud.admin("GET", "calls")["ec2:DescribeImageReferences"] - before == checks


def test_an_image_that_was_launched_since_is_left_and_those_checked_with_it_are_not(
    workshop: Workshop, tmp_path: Path
) -> None:
    used, unused, _ = workshop.bake("r1"), workshop.bake("r2"), workshop.bake("r3")
    regions = workshop.account.regions
    decisions = decide(regions, survey(regions, [HOME]), BOOK, datetime.now(UTC))
    harness.running(workshop.client(), ImageId=used)
    by_image = {each.decision.bake.images[0].id: each for each in _retirer(workshop, tmp_path).retire_all(decisions)}
    assert "instance" in " ".join(by_image[used].users) or "was launched" in by_image[used].problem
    assert [image.id for image in by_image[unused].images] == [unused]
    assert "DeprecationTime" not in workshop.described(used)


def _stage(workshop: Workshop) -> RetireImages:
    rules = Rules(1, regions=(HOME, SECOND))
    account = workshop.account
    return RetireImages(account.regions, "web", "", rules, {}, lambda run, key: "", Ref("keep"))


def test_the_stage_of_a_build_does_the_next_step_and_names_it(workshop: Workshop) -> None:
    old, _ = workshop.bake("r1"), workshop.bake("r2")
    assert _stage(workshop).run(workshop.account.context(keep=())) == (f"deprecate {old} in {HOME}",)
    assert workshop.described(old)["DeprecationTime"]


def test_a_failure_of_the_stage_is_a_warning(workshop: Workshop) -> None:
    old, _ = workshop.bake("r1"), workshop.bake("r2")
    workshop.account.fault("refuse", "DescribeImageReferences", code="UnauthorizedOperation", status=403)
    assert _stage(workshop).run(workshop.account.context(keep=())) == ()
    said = [event.text for event in workshop.account.seen if hasattr(event, "text")]
    assert any("warning: no older image was retired" in text for text in said), said
    assert any("ec2:DescribeImageReferences" in text for text in said)
    assert "DeprecationTime" not in workshop.described(old)


def test_a_row_in_json_has_no_secret_and_every_result(workshop: Workshop) -> None:
    old, _ = workshop.bake("r1"), workshop.bake("r2", **{tags.VARIANT: ""})
    result = json.loads(workshop.prune("--yes", "--format", "json").stdout)
    row = next(each for each in result["images"] if each["run"] == "r1")
    assert row["done"] == [{"image_id": old, "region": HOME, "step": "deprecate", "deleted": [], "left": {}}]
    assert (result["dry_run"], result["currency"]) == (False, "USD")
