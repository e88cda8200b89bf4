"""The cloud's own interface, beside AWS's: health, clock, faults, accounts.

Every request but the health check is signed like any other request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from imagepipe.clock import iso
from imagepipe.local.aws.authentication.signature import Identity, Request
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import product_codes, retention
from imagepipe.local.aws.ec2.images import from_disk
from imagepipe.local.aws.ec2.instances import metadata
from imagepipe.local.aws.faults.catalogue import fault_of
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.paths import OWN_PATHS
from imagepipe.local.aws.protocol.query import Answer

HEALTH = f"{OWN_PATHS}healthz"


def health() -> Answer:
    """Answer that the gateway is up. This request needs no signature."""
    return Answer(200, (("Content-Type", "text/plain"),), b"ok\n")


def answer(backend: Backend, identity: Identity, request: Request) -> Answer:
    """Answer a request to `/_imagepipe/…`.

    - clock: GET returns the cloud's time, POST {"advance": seconds} sets it forward.
    - faults: GET lists them, POST adds one or a list, PUT {"faults": list, "seed": number} replaces all, DELETE.
    - injected: GET counts the injected faults by effect and action.
    - delays: POST {"snapshot": seconds}.
    - calls: GET counts AWS's actions since the process began, or since the last DELETE.
    - evaluations: GET lists the requests that policies decided, since the last DELETE.
    - instances: GET counts them by state. places: GET lists the accounts and regions that have instances.
    - keys: POST {"account": id, "policy": JSON} makes an access key that may do what the policy allows.
    - accounts: GET lists them with their keys, POST {"account": id, "memberships": [ARN of an organization or unit]}
      adds or changes one.
    - licences: POST {"image": id, "product_codes": […], "platform_details": …, "usage_operation": …}.
    - images: POST registers a disk that is in the store (`from_disk.register_disk`).
    """
    name = request.path.removeprefix(OWN_PATHS)
    if name == "accounts":
        backend.accounts.require_first(identity.access_key_id)
    match (request.method, name):
        case ("GET", "clock"):
            return _json({"now": iso(backend.clock.now())})
        case ("POST", "clock"):
            now = backend.clock.advance(_seconds(_body(request).get("advance")))
            metadata.renew_credentials(backend)
            retention.delete_expired(backend)
            return _json({"now": now})
        case ("GET", "faults"):
            return _faults(backend)
        case ("POST", "faults"):
            parsed = _parsed(request)
            for fault in [fault_of(each) for each in (parsed if isinstance(parsed, list) else [parsed])]:
                backend.faults.add(fault)
            return _faults(backend)
        case ("PUT", "faults"):
            body = _body(request)
            seed = body.get("seed", 0)
            if not isinstance(seed, int):
                raise AwsError("InvalidParameterValue", f"{seed!r} is not a seed: a whole number")
            backend.faults.replace([fault_of(each) for each in body.get("faults", ())], seed=seed)
            return _faults(backend)
        case ("GET", "injected"):
            return _json(backend.faults.injected())
        case ("DELETE", "faults"):
            backend.faults.clear()
            return _json([])
        case ("POST", "delays"):
            for kind, seconds in _body(request).items():
                backend.job_queues.set_delay(kind, _seconds(seconds))
            return _json({})
        case ("GET", "calls"):
            return _json(backend.calls.counted())
        case ("DELETE", "calls"):
            backend.calls.clear()
            return _json({})
        case ("GET", "evaluations"):
            return _json(backend.evaluations.listed())
        case ("DELETE", "evaluations"):
            backend.evaluations.clear()
            return _json({})
        case ("POST", "keys"):
            backend.accounts.require_first(identity.access_key_id)
            body = _body(request)
            return _json(backend.accounts.add_key(str(body.get("account", "")), str(body.get("policy", ""))))
        case ("GET", "accounts"):
            return _json(backend.accounts.listed())
        case ("POST", "accounts"):
            body = _body(request)
            return _json(backend.accounts.add(body.get("account"), body.get("memberships", ())))
        case ("POST", "licences"):
            product_codes.assign(backend, _body(request))
            return _json({})
        case ("POST", "images"):
            backend.accounts.require_first(identity.access_key_id)
            return _json(from_disk.register_disk(backend, identity, _body(request)))
        case ("GET", "places"):
            living = [row for row in backend.database.instances if row.state not in ("shutting-down", "terminated")]
            return _json(sorted({(row.account, row.region) for row in living}))
        case ("GET", "instances"):
            counts: dict[str, int] = {}
            for row in backend.database.instances:
                counts[row.state] = counts.get(row.state, 0) + 1
            return _json(counts)
        case (method, name):
            raise AwsError(
                "InvalidAction", f"{method} {name!r} does not exist in the local cloud's own interface", status=404
            )


def _faults(backend: Backend) -> Answer:
    """List the active faults, with the number of times that each was injected and a description."""
    return _json([{**asdict(fault), "hits": hits, "words": fault.words()} for fault, hits in backend.faults.listed()])


def _parsed(request: Request) -> Any:
    try:
        return json.loads(request.body or b"{}")
    except ValueError as error:
        raise AwsError("MalformedInput", f"The body is not JSON: {error}") from error


def _body(request: Request) -> Mapping[str, Any]:
    parsed = _parsed(request)
    if not isinstance(parsed, dict):
        raise AwsError("MalformedInput", "The body is not a JSON object")
    return parsed


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise AwsError("InvalidParameterValue", f"{value!r} is not a number of seconds")
    return float(value)


def _json(value: object) -> Answer:
    return Answer(200, (("Content-Type", "application/json"),), json.dumps(value).encode())
