"""A driver's name, and what becomes of one that is none."""

from __future__ import annotations

import pytest

from imagepipe.errors import LocalCloudError
from imagepipe.local.machines import registry


def test_without_a_name_the_default_driver_is_used() -> None:
    assert registry.named(None) == registry.named("") == registry.DEFAULT


def test_an_unknown_driver_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LocalCloudError, match="no driver 'quemu'") as told:
        registry.named("quemu")
    assert told.value.hint is not None
    assert all(name in told.value.hint for name in registry.PROBLEMS)
