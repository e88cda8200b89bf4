"""Builds are asked to stop in some stages, drawn by a seed that is printed; `make reliability` has them all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.machine.bakery import Bakery, without_boot
from tests.reliability.bench import OUTPUTS, Kind
from tests.reliability.cancels import stops

pytestmark = pytest.mark.machine

SAMPLE = 4
SEED = int(os.environ.get("IMAGEPIPE_CANCEL_SEED", "2"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bakery]:
    with without_boot(tmp_path_factory.mktemp("cancels")) as bakery:
        yield bakery


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_build_that_is_asked_to_stop_gives_everything_back_in_whatever_stage_it_is(bench: Bakery, kind: Kind) -> None:
    found = list(stops(bench, kind, SEED, sample=SAMPLE))
    sys.stdout.write(f"IMAGEPIPE_CANCEL_SEED={SEED}: {'; '.join(stop.words() for stop in found)}\n")
    assert [stop.words() for stop in found if stop.wrong] == []
