"""Some points of the crash matrix, drawn by a seed that is printed; `make reliability` tries them all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.reliability.bench import SCENARIOS, Scenario
from tests.reliability.kept_runs import SharedRuns
from tests.reliability.matrix import Lab, chosen, lab, table

pytestmark = pytest.mark.machine

SAMPLE: dict[Scenario, int] = {"ebs": 1, "instance-store": 0, "family": 0}
ALWAYS: dict[Scenario, tuple[str, ...]] = {
    "ebs": (),
    "instance-store": ("bundle",),
    "family": ("family-base/keep", "family-layer/launch"),
}
"""Stages right before whose notes a kill once was the end of a run."""
SEED = int(os.environ.get("IMAGEPIPE_CRASH_SEED", "2"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("matrix")) as bench:
        yield bench


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("shared-matrix"), SharedRuns) as bench:
        yield bench


@pytest.mark.parametrize("kind", SCENARIOS)
def test_a_build_that_is_killed_leaves_nothing_after_clean_and_ends_well_after_resume(
    bench: Lab, kind: Scenario
) -> None:
    points = [
        *(chosen(bench, [kind], SAMPLE[kind], SEED) if SAMPLE[kind] else ()),
        *(bench.before_output(kind, stage) for stage in ALWAYS[kind]),
    ]
    sys.stdout.write(f"IMAGEPIPE_CRASH_SEED={SEED}: {', '.join(map(str, points))}\n")
    findings = [bench.try_out(point) for point in points]
    assert not [each for each in findings if each.leaks or each.wrong], findings
    assert table(findings).count("| 0 | 0 |") == len(SCENARIOS)


def test_a_build_with_shared_state_that_is_killed_is_cleaned_up_and_resumed_as_well(shared_bench: Lab) -> None:
    points = [shared_bench.before_output("ebs", "launch")]
    sys.stdout.write(f"{', '.join(map(str, points))}\n")
    findings = [shared_bench.try_out(point) for point in points]
    assert not [each for each in findings if each.leaks or each.wrong], findings
