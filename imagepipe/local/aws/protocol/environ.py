"""Keys of the WSGI environment that the gateway and its servers share."""

from __future__ import annotations

HAS_TOKEN = "imagepipe.has-token"  # noqa: S105 - a key
"""Whether a request from another machine has the cloud's token; absent from requests over loopback."""
SEVER = "imagepipe.sever"
"""A function that closes the connection without an answer; provided by the server."""
CLOSE = "imagepipe.close"
"""A function that closes the connection after the answer; provided by the server."""
