"""Plan files: what is written is read again, and damaged, foreign or old ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from imagepipe.errors import UsageError
from imagepipe.planning.actions import Action
from imagepipe.planning.decisions import Decision
from imagepipe.planning.document import MAX_AGE, PlanDocument, Request, read_plan
from imagepipe.wiring.existing import Change, Existing

NOW = datetime(2026, 11, 29, tzinfo=UTC)
REQUEST = Request(
    ("/specs/web.yaml",), ("web", "base"), ("web",), {"greeting": "hi"}, None, {"profile": "builder"}, False
)
BAKE = Decision("web", "bake", "it was not baked yet", "ami-1", "f1")
USE = Decision(
    "base",
    "use",
    "nothing has changed",
    "ami-2",
    "f2",
    Existing({"us-east-1": "ami-3"}, (Change("us-east-1", "share"),)),
)
PLAN = PlanDocument(NOW, REQUEST, (BAKE, USE), (Action("web", "create", "the image", "us-east-1"),))


def test_a_plan_that_was_written_is_read_again(tmp_path: Path) -> None:
    PLAN.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json", NOW) == (REQUEST, (BAKE, USE))
    assert (tmp_path / "plan.json").stat().st_mode & 0o077 == 0


def test_a_key_that_is_not_known_is_ignored_and_another_major_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**PLAN.to_json(), "format_version": "1.9", "news": 1}))
    assert read_plan(file, NOW)[0] == REQUEST
    file.write_text(json.dumps({**PLAN.to_json(), "format_version": "2.0"}))
    with pytest.raises(UsageError, match=r"format_version is '2\.0'"):
        read_plan(file, NOW)


def test_a_plan_that_is_more_than_a_week_old_is_refused(tmp_path: Path) -> None:
    PLAN.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json", NOW + MAX_AGE)
    with pytest.raises(UsageError, match=r"is 8 days old; at most 7 are accepted"):
        read_plan(tmp_path / "plan.json", NOW + MAX_AGE + timedelta(days=1))


def _without(*keys: str) -> Any:
    document = PLAN.to_json()
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return document


@pytest.mark.parametrize(
    "document",
    [
        [],
        "plan",
        {},
        _without("created"),
        _without("request", "files"),
        {**PLAN.to_json(), "decisions": [{}]},
        {**PLAN.to_json(), "created": "yesterday"},
        {**PLAN.to_json(), "request": {**PLAN.to_json()["request"], "files": "web.yaml"}},
    ],
    ids=["list", "text", "empty", "no-time", "no-files", "no-spec", "bad-time", "files-text"],
)
def test_a_damaged_plan_is_refused_with_a_hint(tmp_path: Path, document: object) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(UsageError) as refused:
        read_plan(tmp_path / "plan.json", NOW)
    assert "imagepipe plan" in str(refused.value.hint)


def test_a_plan_changes_something_only_if_something_stays() -> None:
    assert PLAN.changes
    finds, temporary = Action("web", "find", "the source image"), Action("web", "create", "a key pair", "r", True)
    assert not replace(PLAN, actions=(finds, temporary)).changes


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (replace(BAKE, reason="another reason"), None),
        (replace(BAKE, source="ami-9"), "web: the source image was ami-1, now it is ami-9"),
        (replace(BAKE, fingerprint="f9"), "web: its inputs have changed since the plan"),
        (replace(BAKE, action="use", reason="r"), "web: the plan says 'bake', now it is 'use': r"),
    ],
)
def test_a_difference_from_the_plan_is_named(now: Decision, message: str | None) -> None:
    found = now.differs_from(BAKE)
    assert found is None if message is None else str(found).startswith(message)


def test_another_existing_image_is_a_difference() -> None:
    other = replace(USE, existing=Existing({"us-east-1": "ami-4"}))
    assert "its images, or their permissions, have changed" in str(other.differs_from(USE))
