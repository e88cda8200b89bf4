"""The build of the base image is stopped at a moment drawn by a printed seed; `make reliability` has twenty of them."""

from __future__ import annotations

import os
import sys

import pytest

from tests.reliability.base_kills import kills

pytestmark = pytest.mark.machine

SAMPLE = 1
SEED = int(os.environ.get("IMAGEPIPE_BASE_SEED", "5"))


def test_a_base_image_that_is_stopped_while_it_is_built_costs_this_computer_no_file() -> None:
    found = list(kills(SEED, SAMPLE))
    sys.stdout.write(f"IMAGEPIPE_BASE_SEED={SEED}: {'; '.join(kill.words() for kill in found)}\n")
    assert [kill.words() for kill in found if kill.wrong] == []
