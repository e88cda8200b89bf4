"""Parse HTTP requests, and refuse those of web pages and of other machines."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.protocol import bodies
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.disks.files import StoreFull
from imagepipe.local.machines.guest.imds import ADDRESS

HOSTS = ("127.0.0.1", "localhost", ADDRESS)


def request(environ: Mapping[str, Any]) -> Request:
    """Parse the request; its body is read later."""
    headers = {
        name[5:].replace("_", "-").lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = str(environ["CONTENT_TYPE"])
    if environ.get("CONTENT_LENGTH"):
        headers["content-length"] = str(environ["CONTENT_LENGTH"])
    path, _, query = str(environ["REQUEST_URI"]).partition("?")
    return Request(str(environ["REQUEST_METHOD"]), path, query, headers, b"")


def is_chunked_upload(request: Request) -> bool:
    """Tell if the body comes in HTTP's own chunks and states its length, as S3 accepts it with aws-chunked inside.

    AWS's SDK for JavaScript sends streams so.
    """
    headers = request.headers
    return (
        headers.get("transfer-encoding", "").lower() == "chunked"
        and headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
        and headers.get("x-amz-decoded-content-length", "").isdecimal()
    )


def length(request: Request) -> int:
    """Return the length of the body. Raises AwsError for a chunked body, as S3 does."""
    if "transfer-encoding" in request.headers:
        text = "A header you provided implies functionality that is not implemented: Transfer-Encoding"
        raise AwsError("NotImplemented", text, status=501)
    stated = request.headers.get("content-length", "0")
    return int(stated) if stated.isdecimal() else 0


def with_body(request: Request, environ: Mapping[str, Any]) -> Request:
    """Return the request with its body, which is read once. Raises AwsError for one that is too long."""
    if request.body:
        return request
    return replace(request, body=bodies.read(environ["wsgi.input"], length(request)))


def store_full_error(problem: Exception) -> AwsError | None:
    """Return the error for a full store; None for another problem."""
    is_full = (
        isinstance(problem, StoreFull)
        or (isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT))
        or (isinstance(problem, sqlite3.OperationalError) and "full" in str(problem))
    )
    if not is_full:
        return None
    # 400, as botocore tries a 500 again and again.
    return AwsError("InsufficientVolumeCapacity", f"The local cloud's store is full: {problem}", status=400)


def check_origin(request: Request, *, has_token: bool | None) -> None:
    """Raise AwsError for a request that a web page could have sent: browsers send Origin, or a rebound name in Host.

    Refuse other machines without the token, too; `has_token` is None for a request over loopback.
    """
    if has_token is False:
        text = "Requests from other machines need the token in AWS_SESSION_TOKEN"
        raise AwsError("AccessDenied", text, status=403)
    host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
    if "origin" in request.headers:
        raise AwsError("AccessDenied", "Requests from web pages are not answered (Origin header)", status=403)
    if not has_token and host not in HOSTS and not host.endswith(".localhost"):
        raise AwsError("AccessDenied", f"Requests for host {host!r} are not answered", status=403)
