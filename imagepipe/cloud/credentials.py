"""Credentials that AWS calls expired before their time: asked for anew, once, where their provider can."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from botocore.credentials import RefreshableCredentials

from imagepipe.cloud.errors import EXPIRED

_RENEWED = "imagepipe-renewed"


def renew_when_expired(client: Any, credentials: Any) -> None:
    """Let a call of the client that is refused for expired credentials be signed once more, with new ones.

    botocore renews by the time that it was told, which a role's session may not live to see: it can be revoked. Static
    credentials cannot be renewed; then the refusal is the caller's.
    """
    if not isinstance(credentials, RefreshableCredentials):
        return

    def handle(response: Any, request_dict: dict[str, Any], **_: Any) -> float | None:
        code = response[1].get("Error", {}).get("Code") if response else None
        context = request_dict["context"]
        if code not in EXPIRED or context.get(_RENEWED):
            return None
        context[_RENEWED] = True
        credentials._expiry_time = datetime.now(UTC)  # its time is over, whatever it was
        return 0.0

    client.meta.events.register_first(f"needs-retry.{client.meta.service_model.service_id.hyphenize()}", handle)


class NoCache(dict[str, Any]):
    """A cache of botocore's that keeps nothing: what it is asked for a second time has expired."""

    def __contains__(self, key: object) -> bool:
        return False
