"""Secrets taken out of everything that is written, by their value."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

MASK = "***"
MIN_LENGTH = 4
"""A shorter value would mask half of every line, and is no secret."""


class Masker:
    """Replaces every secret that it was told of. Safe from any thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = Lock()
        self._secrets: tuple[str, ...] = ()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Mask these from now on; of a text of several lines also each line, as output comes line by line."""
        new = {part for secret in secrets for part in (secret, *secret.splitlines()) if len(part) >= MIN_LENGTH}
        with self._lock:
            # Longest first: a secret that contains another must not leave its ends.
            self._secrets = tuple(sorted({*self._secrets, *new}, key=len, reverse=True))

    def mask(self, text: str) -> str:
        """The text without the secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return text
