"""Check before a run that a bucket can keep shared state, so that a missing ability is an error at the start."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from imagepipe.cloud.errors import DENIED
from imagepipe.errors import CloudError
from imagepipe.state.bucket import Conflict, StateBucket

KEY = "probe.json"
CONTENT = b'{"imagepipe": "can this bucket keep shared state?"}\n'
NO_ETAG = f'"{"0" * 32}"'
"""An ETag that the probe object never has."""


def probe(bucket: StateBucket) -> None:
    """Write the probe object. Raises CloudError if we may not write, or if a condition on a write is ignored."""
    try:
        ignored = _ignored_conditions(bucket)
    except CloudError as error:
        if error.code not in DENIED:
            raise
        raise CloudError(
            f"the state {bucket.location} is read-only for these credentials: {error}",
            code=error.code,
            iam_action=error.iam_action,
            hint=error.hint,
        ) from error
    if ignored:
        raise CloudError(
            f"the state {bucket.location} cannot be shared: its server ignores {' and '.join(ignored)} on writes, so"
            " two processes could own a run at once",
            code="NoConditionalWrites",
            hint="use a bucket on AWS, or a server with conditional writes (PutObject with If-None-Match and If-Match)",
        )


def _ignored_conditions(bucket: StateBucket) -> list[str]:
    """Write the probe object; return the conditions that were not met, and yet the write succeeded."""
    with suppress(Conflict):  # an earlier process wrote it
        bucket.create(KEY, CONTENT)
    writes: dict[str, Callable[[], str]] = {
        "If-None-Match": lambda: bucket.create(KEY, CONTENT),
        "If-Match": lambda: bucket.replace(KEY, CONTENT, NO_ETAG),
    }
    ignored = []
    for header, write in writes.items():
        with suppress(Conflict):
            write()
            ignored.append(header)
    return ignored
