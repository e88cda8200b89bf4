"""How long the builds of specs took: for drawings, and for the duration that a plan expects."""

from __future__ import annotations

from collections.abc import Sequence

from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.engine.journal import read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.errors import ImagepipeError

BAKING = frozenset({"capture", "register"})
"""Stages of which a spec that was baked has one; a spec that was unchanged has none."""
MOST_RUNS = 200
"""Runs that are searched, newest first. Older ones say little about the next build."""


@dataclass(frozen=True, slots=True)
class SpecTimes:
    """The durations of a spec in one run, in seconds."""

    run: str
    stages: dict[str, float]
    """Durations by stage, without the spec's prefix."""
    total: float
    """Time from the start of its first stage to the end of its last one."""


def last_bakes(store: JournalStore, keys: Sequence[str]) -> dict[str, SpecTimes]:
    """Return the times of the last run that baked each spec, by key; a damaged run has none."""
    found: dict[str, SpecTimes] = {}
    wanted = set(keys)
    for run in reversed(store.runs()[-MOST_RUNS:]):
        if not wanted:
            break
        try:
            specs = read(store, run).run.specs
            times = _times(store, run, specs) if wanted & set(specs) else {}
        except ImagepipeError:
            continue
        for key in wanted & times.keys():
            found[key] = times[key]
        wanted -= found.keys()
    return found


def _times(store: JournalStore, run: str, specs: Sequence[str]) -> dict[str, SpecTimes]:
    stages: dict[str, dict[str, float]] = {}
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    for event in store.events(run):
        if isinstance(event, ev.StageStarted | ev.StageFinished):
            prefix, _, stage = event.stage.rpartition("/")
            key = prefix or specs[0]
            began.setdefault(key, event.time.timestamp())
            if isinstance(event, ev.StageFinished):
                stages.setdefault(key, {})[stage] = event.seconds
                ended[key] = event.time.timestamp()
    return {
        key: SpecTimes(run, own, ended[key] - began[key]) for key, own in stages.items() if not BAKING.isdisjoint(own)
    }
