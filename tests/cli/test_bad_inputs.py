"""Bad input of every kind: specs, bundles, journals, faults, command lines; `make reliability` counts them too."""

from __future__ import annotations

from tests.reliability.badinputs import run_bad_inputs


def test_every_bad_input_has_a_clear_answer() -> None:
    found = run_bad_inputs(seed=2)
    assert [f"{each.what}: exit {each.code}: {each.said}" for each in found.unclear] == []
    assert found.tried > 500
