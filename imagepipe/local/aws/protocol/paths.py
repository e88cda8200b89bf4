"""Paths of the endpoint, and names in its requests, that the gateway and its process share."""

from __future__ import annotations

OWN_PATHS = "/_imagepipe/"
"""What paths of the endpoint begin with that are no cloud's."""
PREFIX = f"{OWN_PATHS}process/"
"""Paths of the endpoint that are the process's own, and not the gateway's."""
SECRET_HEADER = "X-Imagepipe-Secret"  # noqa: S105 the header's name
