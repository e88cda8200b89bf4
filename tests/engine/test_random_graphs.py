"""Random graphs of groups, with limits and failures: the executor starts each stage in time, and only once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from imagepipe.engine.executor import Outcome
from imagepipe.engine.groups import Groups, Limit
from imagepipe.engine.stage import Context, Ref
from imagepipe.errors import StageError
from tests.engine.rig import Rig

GRAPHS = 40
"""Graphs of each test."""


class Record:
    """The stages of a run that began and ended, and those that began too early."""

    def __init__(self, rig: Rig, choose: random.Random, *, fails: bool) -> None:
        self.rig, self.choose, self.fails = rig, choose, fails
        self.begun: list[str] = []
        self.ended: set[str] = set()
        self.early: list[str] = []
        self.stages: dict[str, frozenset[str]] = {}
        self.after: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()

    def add_group(self, group: str) -> None:
        """Add a group of up to five stages, perhaps after another group."""
        names = [f"{group}-{place}" for place in range(self.choose.randint(1, 5))]
        if self.stages and self.choose.random() < 0.6:
            self.after[group] = self.stages[self.choose.choice(sorted(self.stages))]
        refs: list[Ref[None]] = []
        for name in names:
            inputs = self.choose.sample(refs, min(len(refs), self.choose.randint(0, 2)))
            refs.append(self.add(name, self.after.get(group, frozenset()), *inputs))
        self.stages[group] = frozenset(names)

    def add(self, name: str, before: frozenset[str], *inputs: Ref[None]) -> Ref[None]:
        seconds = self.choose.choice((0.0, 0.0, 0.0005, 0.002))
        fails = self.fails and self.choose.random() < 0.1
        needs = before | {each.stage for each in inputs}

        def work(ctx: Context) -> None:
            with self._lock:
                self.begun.append(name)
                if not needs <= self.ended:
                    self.early.append(name)
            time.sleep(seconds)
            if fails:
                raise StageError(name)
            with self._lock:
                self.ended.add(name)

        return self.rig.add(name, work, *inputs)

    def execute(self) -> Outcome:
        limit = Limit(frozenset(self.stages), self.choose.randint(1, 3))
        try:
            return self.rig.execute(groups=Groups(self.stages, self.after, limits=(limit,)))
        finally:
            self.rig.journal.close()


@pytest.mark.parametrize("fails", [False, True], ids=["all succeed", "some fail"])
def test_every_stage_runs_once_and_after_its_inputs(tmp_path: Path, fails: bool) -> None:
    for seed in range(GRAPHS):
        record = Record(Rig(tmp_path / str(seed)), random.Random(seed), fails=fails)
        for number in range(record.choose.randint(2, 8)):
            record.add_group(f"g{number}")
        outcome = record.execute()
        assert len(record.begun) == len(set(record.begun)), seed
        assert record.early == [], seed
        assert outcome.stuck == (), seed
        stopped = _stopped(outcome, record.after)
        for group, stages in record.stages.items():
            assert group in stopped or stages <= record.ended, (seed, group)


def _stopped(outcome: Outcome, after: Mapping[str, frozenset[str]]) -> set[str]:
    """Return the groups that failed, and those that wait for one that did."""
    stopped = {failure.stage.partition("-")[0] for failure in outcome.failures}
    while (
        more := {group for group, stages in after.items() if {s.partition("-")[0] for s in stages} & stopped} - stopped
    ):
        stopped |= more
    return stopped
