"""Paths of the endpoint, and names in requests and in the WSGI environment, which the gateway and its servers share."""

from __future__ import annotations

OWN_PATHS = "/_imagepipe/"
"""Prefix of the paths that are the local cloud's own."""
PREFIX = f"{OWN_PATHS}process/"
"""Paths of the endpoint that are the process's own, and not the gateway's."""
SECRET_HEADER = "X-Imagepipe-Secret"  # noqa: S105 the header's name
HAS_TOKEN = "imagepipe.has-token"  # noqa: S105 - a key
"""True if a request from another machine has the cloud's token; absent from requests over loopback."""
SEVER = "imagepipe.sever"
"""A function that closes the connection without an answer; provided by the server."""
CLOSE = "imagepipe.close"
"""A function that closes the connection after the answer; provided by the server."""
