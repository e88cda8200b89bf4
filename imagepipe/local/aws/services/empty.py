"""Services of which the local cloud has nothing, so that their lists are empty.

Tools that look for the users of an image ask them: is it in a launch configuration, an Auto Scaling group, a function?
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.protocol import query
from imagepipe.local.aws.protocol.query import Answer

AUTO_SCALING: Mapping[str, Mapping[str, Any]] = {
    "DescribeAutoScalingGroups": {"AutoScalingGroups": []},
    "DescribeAutoScalingInstances": {"AutoScalingInstances": []},
    "DescribeLaunchConfigurations": {"LaunchConfigurations": []},
}
FUNCTIONS = "/2015-03-31/functions"
"""Path of lambda's ListFunctions, with or without a slash at its end."""


def answer(context: RequestContext, action: str) -> Answer | None:
    """Answer a request for a list of such a service; None for any other request."""
    request, service = context.request, context.identity.service
    if service == "autoscaling" and action in AUTO_SCALING:
        return query.result(action, AUTO_SCALING[action], context.request_id, "autoscaling")
    if service == "lambda" and request.method == "GET" and request.path.rstrip("/") == FUNCTIONS:
        return Answer(200, (("Content-Type", "application/json"),), json.dumps({"Functions": []}).encode())
    return None
