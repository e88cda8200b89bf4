"""Client tokens: a repeated request creates nothing twice (EC2 user guide, "Ensuring idempotency")."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Token

MAX_LENGTH = 64
MAX_TOKENS = 10_000
REMEMBERED = timedelta(hours=24)  # the same guide: "at least 24 hours" after the instance terminated


def earlier_result(backend: Backend, call: Call, *, max_length: int = MAX_LENGTH) -> Sequence[str] | None:
    """Return the ids that an earlier request with this token made; None for the first one.

    Raises AwsError if the token was used in a different request, with another parameter or tag.
    """
    token = str(call.params.get("ClientToken") or "")
    if not token:
        return None
    if len(token) > max_length or not token.isascii():
        raise invalid(f"Client token must be at most {max_length} ASCII characters")
    kept = backend.database.tokens.get(_key(call, token))
    if kept is None:
        return None
    if kept.digest != _digest(call):
        raise AwsError(
            "IdempotentParameterMismatch",
            "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
        )
    return kept.made


def remember(backend: Backend, call: Call, made: Sequence[str]) -> None:
    """Record the ids that the request made, in the same change of the database."""
    token = str(call.params.get("ClientToken") or "")
    if token:
        _forget(backend)
        backend.database.put(
            Token(
                id=_key(call, token),
                account=call.account,
                region=call.region,
                digest=_digest(call),
                made=tuple(made),
                used=backend.clock.now(),
            )
        )


def _forget(backend: Backend) -> None:
    """Delete expired tokens, and the oldest of too many."""
    kept = list(backend.database.tokens)  # in the order in which they were used
    horizon = backend.clock.now() - REMEMBERED
    for number, token in enumerate(kept):
        if token.used >= horizon and len(kept) - number < MAX_TOKENS:
            break
        backend.database.remove(token)


def _key(call: Call, token: str) -> str:
    return f"{call.account}/{call.region}/{call.action}/{token}"


def _digest(call: Call) -> str:
    """Hash the request: user data may hold keys, so it is not stored a second time."""
    meant = {key: value for key, value in call.params.items() if key not in ("ClientToken", "DryRun")}
    return hashlib.sha256(json.dumps(meant, sort_keys=True, default=str).encode()).hexdigest()
