"""What this computer lacks for the local cloud (stub; grows below)."""

from __future__ import annotations

from collections.abc import Sequence


def container_problems() -> Sequence[str]:
    return ()
