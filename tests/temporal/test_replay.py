"""Recorded histories are replayed: a change of the workflows that would break builds in progress fails here.

Builds in progress are pinned to the version of the workflows that they began with, so such a change is allowed. It
needs new recordings, which shows that it is one: IMAGEPIPE_RECORD_HISTORIES=1 pytest tests/temporal/test_replay.py
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from imagepipe.temporal import client
from imagepipe.temporal.connection import Server as Address
from imagepipe.temporal.connection import connect
from imagepipe.temporal.messages import BuildRequest
from imagepipe.temporal.workflows import BakeWorkflow, BuildWorkflow
from tests.temporal.conftest import Yard, request

HISTORIES = Path(__file__).with_name("histories")
RECORDED: dict[str, BuildRequest] = {
    "layers": request("base", "middle<base", "leaf<middle", "alone"),
    "failed": request("fails-base", "middle<fails-base", "alone"),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in HISTORIES.glob("*.json")))
def test_a_recorded_history_is_replayed(name: str) -> None:
    id = f"{client.PREFIX}recorded-{name.partition('-')[0]}"  # a workflow's id decides those of its children
    history = WorkflowHistory.from_json(id, (HISTORIES / f"{name}.json").read_text(encoding="utf-8"))
    asyncio.run(Replayer(workflows=[BuildWorkflow, BakeWorkflow]).replay_workflow(history))


def test_a_recorded_history_names_no_path_of_a_machine() -> None:
    assert not [path.name for path in HISTORIES.glob("*.json") if "stackTrace" in path.read_text(encoding="utf-8")]


def test_every_recorded_build_and_one_of_its_bakes_has_a_history() -> None:
    names = {path.stem for path in HISTORIES.glob("*.json")}
    assert names == {f"{name}-{kind}" for name in RECORDED for kind in ("build", "bake")}


@pytest.mark.skipif(not os.environ.get("IMAGEPIPE_RECORD_HISTORIES"), reason="records the histories")
@pytest.mark.parametrize("name", RECORDED)
def test_record(yard: Yard, name: str) -> None:
    yard.worker()
    yard.build(f"recorded-{name}", RECORDED[name])

    async def record() -> None:
        own = await connect(Address.at(yard.temporal.address), {})
        build = f"{client.PREFIX}recorded-{name}"
        for kind, id in (("build", build), ("bake", f"{build}/{RECORDED[name].jobs[0].spec}")):
            history = await own.get_workflow_handle(id).fetch_history()
            text = json.dumps(_without_traces(json.loads(history.to_json())), indent=2)
            text = re.sub(r"\d+@[\w.-]+", "1@host", text)
            (HISTORIES / f"{name}-{kind}.json").write_text(text, encoding="utf-8")

    asyncio.run(record())


def _without_traces(value: Any) -> Any:
    """Return a history without stack traces, which name the paths of the machine that recorded it."""
    if isinstance(value, dict):
        return {key: _without_traces(each) for key, each in value.items() if key != "stackTrace"}
    return [_without_traces(each) for each in value] if isinstance(value, list) else value
