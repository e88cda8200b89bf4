"""A driver's name, and what becomes of one that is none."""

from __future__ import annotations

import pytest

from imagepipe.errors import LocalCloudError
from imagepipe.local.machines import registry


def test_nothing_said_is_the_default() -> None:
    assert registry.named(None) == registry.named("") == registry.DEFAULT


def test_a_driver_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(LocalCloudError, match="no driver 'quemu'") as told:
        registry.named("quemu")
    assert told.value.hint is not None
    assert all(name in told.value.hint for name in registry.PROBLEMS)
