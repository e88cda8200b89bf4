"""A small storm, by a seed that is printed; `python -m tests.reliability.storm` runs fifty builds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.reliability.storm import run_storm

pytestmark = pytest.mark.machine

BUILDS = 4
SEED = int(os.environ.get("IMAGEPIPE_STORM_SEED", "2"))


def test_builds_under_random_faults_end_well_or_in_a_clear_error_and_leave_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    storm = run_storm(BUILDS, SEED, folder=tmp_path, say=said.append)
    sys.stdout.write("\n".join((f"IMAGEPIPE_STORM_SEED={SEED}", *said, storm.words(), "")))
    assert storm.ok, storm.words()
    assert storm.succeeded + storm.failed == storm.builds == BUILDS
    assert storm.faults_injected > BUILDS
