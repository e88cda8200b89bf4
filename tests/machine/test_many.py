"""Several specs in one call: side by side, and each by itself when one fails."""

from __future__ import annotations

import pytest

from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine


def test_specs_of_one_call_are_baked_side_by_side(quick: Bakery) -> None:
    specs = quick.folder / "many"
    specs.mkdir()
    for number in range(3):
        quick.spec(f"s{number}", "- shell: sleep 1").rename(specs / f"s{number}.yaml")
    baked = quick.build(specs)
    assert baked.out.count('"image_id"') == 6
    started = [e for e in quick.events() if e["event"] == "StageStarted"]
    order = [e["stage"] for e in started]
    last_launch = max(order.index(f"s{n}/launch") for n in range(3))
    first_stop = min(order.index(f"s{n}/stop") for n in range(3))
    assert last_launch < first_stop, "all were launched before the first was stopped"


def test_of_several_specs_what_was_finished_is_kept_and_the_rest_cleaned_up(quick: Bakery) -> None:
    before = quick.inventory()
    good = quick.spec("good", "- shell: 'true'")
    bad = quick.spec("bad", "- shell: sleep 25; exit 1")
    failed = quick("build", str(good), str(bad), "--local")
    assert failed.code == 7, failed.err
    kept = [line for line in failed.out.splitlines() if line.startswith("ami-") and line.endswith("(good)")]
    assert len(kept) == 2, failed.out
    after = quick.inventory()
    for region in ("us-east-1", "us-west-2"):
        assert len(after[f"{region} images"]) == len(before[f"{region} images"]) + 1
        for kind in ("instances", "volumes", "keys", "groups"):
            assert after[f"{region} {kind}"] == before[f"{region} {kind}"]
    assert quick("clean", "--all").code == 0
    assert quick.inventory() == after, "what is kept is kept"
