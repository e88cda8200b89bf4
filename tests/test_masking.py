from __future__ import annotations

from imagepipe.masking import Masker


def test_a_secret_is_taken_out_wherever_it_stands() -> None:
    assert Masker(["hunter2"]).mask("a hunter2, b=hunter2") == "a ***, b=***"


def test_of_a_secret_that_contains_another_nothing_is_left() -> None:
    assert Masker(["pass", "password"]).mask("password") == "***"


def test_every_line_of_a_secret_of_several_lines_is_masked() -> None:
    masker = Masker(["-----BEGIN KEY-----\nabcdef\n"])
    assert masker.mask("it said abcdef") == "it said ***"


def test_a_very_short_value_masks_nothing() -> None:
    assert Masker(["a", ""]).mask("banana") == "banana"
