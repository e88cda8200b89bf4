"""A build of twelve specs on Temporal under a few kills, by a seed that is printed.

`python -m tests.reliability.workers` makes fifty.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.reliability.workers import Chaos, lab

pytestmark = pytest.mark.machine

KILLS = 3
SEED = int(os.environ.get("IMAGEPIPE_WORKERS_SEED", "2"))


def test_a_build_goes_on_when_workers_its_client_and_the_server_are_killed(tmp_path: Path) -> None:
    said: list[str] = []
    with lab(tmp_path) as own:
        chaos = Chaos(own, SEED, said.append)
        chaos.start()
        chaos.build(KILLS)
        run = own.bakery("runs", "--local", **own.env).out.splitlines()[1].split()[0]
        shown = own.bakery("show", run, "--local", **own.env).out
    sys.stdout.write("\n".join((f"IMAGEPIPE_WORKERS_SEED={SEED}", *said, chaos.found.words(), "")))
    assert chaos.found.ok, chaos.found.words()
    assert "succeeded" in shown, "each bake is a run that any machine can show"
    assert "Traceback" not in own.worker_logs()
