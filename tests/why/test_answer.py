"""The answers of `why`."""

from __future__ import annotations

from imagepipe.inputs.manifest import Input, InputManifest, source_input
from imagepipe.why.answer import Answer, Baked, Now, answer

INPUTS = InputManifest.of([source_input("ami-1"), Input("variable", "var.greeting", "d1", value="hello")])
CHANGED = InputManifest.of([source_input("ami-1"), Input("variable", "var.greeting", "d2", value="hi")])
IMAGE = Baked("ami-9", INPUTS.fingerprint(), "r1")


def _lines(found: Answer) -> list[str]:
    return found.describe()


def test_the_same_fingerprint_is_up_to_date_even_without_the_old_list() -> None:
    assert _lines(answer(Now("web", INPUTS), IMAGE, None, missing="gone")) == ["web: up to date (ami-9, run r1)"]


def test_a_changed_input_is_named_with_both_values() -> None:
    assert _lines(answer(Now("web", CHANGED), IMAGE, INPUTS)) == [
        "web: changed (ami-9, run r1)",
        "  variable var.greeting: hello -> hi",
    ]


def test_without_the_old_list_a_change_is_unknown_and_the_reason_is_given() -> None:
    found = answer(Now("web", CHANGED), IMAGE, None, missing="the folder of run r1 is gone")
    assert _lines(found) == ["web: unknown (ami-9, run r1): the folder of run r1 is gone"]


def test_a_stale_base_comes_first_and_the_new_source_is_not_guessed() -> None:
    base = Answer("base", "changed", Baked("ami-1", "", "r0"))
    moved = CHANGED.with_source("ami-2")
    assert _lines(answer(Now("web", moved, base=base), IMAGE, INPUTS)) == [
        "web: changed (ami-9, run r1): its base base is changed",
        "  variable var.greeting: hello -> hi",
    ]


def test_an_unchanged_spec_on_a_base_that_nobody_knows_is_unknown() -> None:
    base = Answer("base", "unknown", Baked("ami-1", "", "r0"))
    assert answer(Now("web", INPUTS, base=base), IMAGE, INPUTS).state == "unknown"


def test_a_source_that_was_not_found_is_the_reason() -> None:
    found = answer(Now("web", INPUTS, problem="no image is named x"), IMAGE, INPUTS)
    assert _lines(found) == ["web: unknown (ami-9, run r1): no image is named x"]


def test_the_json_has_old_and_new_values() -> None:
    assert answer(Now("web", CHANGED), IMAGE, INPUTS).to_json() == {
        "spec": "web",
        "state": "changed",
        "image_id": "ami-9",
        "run": "r1",
        "reason": None,
        "changes": [{"kind": "variable", "name": "var.greeting", "old": "hello", "new": "hi"}],
    }
