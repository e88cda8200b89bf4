"""Remove secrets by value from all output."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

MASK = "***"
MIN_LENGTH = 4
"""Length of the shortest secret: masking shorter values would hide half of every line."""


class Masker:
    """Replaces every registered secret; thread-safe."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = Lock()
        self._secrets: tuple[str, ...] = ()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Mask these secrets from now on, and each line of a longer one, because output comes line by line."""
        new = {part for secret in secrets for part in (secret, *secret.splitlines()) if len(part) >= MIN_LENGTH}
        with self._lock:
            # Longest first, or the ends of a secret that contains another one would remain.
            self._secrets = tuple(sorted({*self._secrets, *new}, key=len, reverse=True))

    def mask(self, text: str) -> str:
        """Return the text without the secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return text
