"""Refresh credentials that AWS rejects as expired before their time, once, if their provider can."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from botocore.credentials import RefreshableCredentials

from imagepipe.cloud.errors import EXPIRED

_RENEWED = "imagepipe-renewed"


def renew_when_expired(client: Any, credentials: Any) -> None:
    """Retry a client's call once with fresh credentials if AWS refuses it because they have expired.

    botocore refreshes credentials by their expiry time, but a role's session can be revoked before that. Static
    credentials cannot be refreshed; then the caller gets the error.
    """
    if not isinstance(credentials, RefreshableCredentials):
        return

    def handle(response: Any, request_dict: dict[str, Any], **_: Any) -> float | None:
        code = response[1].get("Error", {}).get("Code") if response else None
        context = request_dict["context"]
        if code not in EXPIRED or context.get(_RENEWED):
            return None
        context[_RENEWED] = True
        credentials._expiry_time = datetime.now(UTC)  # forces a refresh
        return 0.0

    client.meta.events.register_first(f"needs-retry.{client.meta.service_model.service_id.hyphenize()}", handle)


class NoCache(dict[str, Any]):
    """A cache that stores nothing, so that a refresh asks AWS. botocore's would return the rejected credentials."""

    def __contains__(self, key: object) -> bool:
        return False
