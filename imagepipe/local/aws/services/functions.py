"""Lambda, of which the local cloud has nothing: its list of functions is empty.

Tools that look for the users of an image ask for it.
"""

from __future__ import annotations

import json

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.protocol.query import Answer

FUNCTIONS = "/2015-03-31/functions"
"""Path of lambda's ListFunctions, with or without a slash at its end."""


def answer(backend: Backend, context: RequestContext, action: str) -> Answer | None:
    """Answer a request for the list of functions; None for any other request."""
    request = context.request
    if request.method == "GET" and request.path.rstrip("/") == FUNCTIONS:
        return Answer(200, (("Content-Type", "application/json"),), json.dumps({"Functions": []}).encode())
    return None
