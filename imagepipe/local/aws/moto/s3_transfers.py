"""S3's operations, which moto answers, and the bytes of objects, which bypass moto in both directions."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse
from xml.etree import ElementTree

from moto.utilities.utils import get_partition

from imagepipe.local.aws.authentication.signature import Identity, Request
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.moto import s3
from imagepipe.local.aws.moto.adapter import READS, Moto, check_readable
from imagepipe.local.aws.moto.pickling import adopt
from imagepipe.local.aws.moto.s3 import Operation
from imagepipe.local.aws.moto.s3_state import Changes, forget_page_tokens
from imagepipe.local.aws.protocol import bodies, query
from imagepipe.local.aws.protocol.bodies import Content, ObjectFile, Received
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer

UPLOADS = frozenset({"PutObject", "UploadPart"})
"""Operations whose bodies are written to disk as they arrive."""
PARTS = frozenset({"CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"})
PARTS_END = frozenset({"CompleteMultipartUpload", "AbortMultipartUpload"})
WITHOUT_BYTES = frozenset({"GetObject", "CompleteMultipartUpload", "CopyObject", "UploadPartCopy"})
EMPTY = hashlib.md5(usedforsecurity=False).hexdigest()
"""The ETag that moto gives to an object whose bytes it does not see."""


class Transfers:
    """S3's answers, made by moto, with the bytes of objects added."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto

    def receive(self, request: Request, source: bodies.Source, length: int) -> Received:
        """Write an object's bytes to disk. Raises AwsError if digest or length is not the stated one."""
        stated = request.headers.get("x-amz-content-sha256", "")
        is_chunked = stated.startswith("STREAMING-")
        received = bodies.receive(source, length, self._moto.objects, is_chunked=is_chunked)
        try:
            if re.fullmatch("[0-9a-f]{64}", stated) and stated != received.sha256:
                raise AwsError("XAmzContentSHA256Mismatch", "The body is not the one that was signed")
            decoded = request.headers.get("x-amz-decoded-content-length", "")
            if is_chunked and decoded.isdigit() and int(decoded) != received.size:
                raise AwsError("IncompleteBody", f"The body has {received.size} bytes; {decoded} were stated")
            _check_sums(request, received)
        except BaseException:
            received.discard()
            raise
        return received

    def release(self, received: Received) -> None:
        """Delete what was received, unless it has become an object's."""
        if not self._moto.s3.has_file(received.path.name):
            received.discard()

    def answer(self, context: RequestContext, operation: Operation, received: Received | None) -> Answer:
        """Have moto answer, and save its changes. Call it under S3's lock. Raises AwsError.

        If moto accepts the request, the received file becomes the object's.
        """
        identity, request = context.identity, context.request
        if redirect := s3.redirect(identity, operation):
            return redirect
        s3.check_md5(request, received.md5 if received else hashlib.md5(request.body, usedforsecurity=False).digest())
        s3.check_signed_headers(request)
        environ = s3.translate_acl(identity, request, operation, context.environ)
        environ |= _headers_for_empty_body(request, received) if received else {}
        if operation.name == "GetObject":
            environ.pop("HTTP_RANGE", None)  # moto would apply it to an empty body
        source = self._source(identity, request) if operation.name in ("CopyObject", "UploadPartCopy") else None
        if source is not None:
            environ.pop("HTTP_X_AMZ_CHECKSUM_ALGORITHM", None)  # moto would compute it from an empty body
        with bodies.without_bytes() if operation.name in WITHOUT_BYTES else nullcontext():
            answer = self._moto.call("s3", context, environ)
        if answer.status < 300:
            answer = self._with_bytes(context, operation, received, source, answer)
            if not operation.name.startswith(READS):
                self._moto.save_s3(identity.account, identity.region, _changes(operation, request))
        return check_readable(answer, operation.name, request)

    def _with_bytes(
        self, context: RequestContext, operation: Operation, received: Received | None, source: Any, answer: Answer
    ) -> Answer:
        identity, request = context.identity, context.request
        match operation.name:
            case "GetObject":
                version = request.query_value("versionId")
                key = self._backend(identity).get_object(operation.bucket, operation.key, version_id=version)
                return _download(request, answer, key)
            case "ListObjects" | "ListObjectsV2" | "ListObjectVersions":
                forget_page_tokens(self._backend(identity))
            case "PutObject" if received:
                return _attach_bytes(self._newest(identity, operation), received.path, received.md5, answer)
            case "UploadPart" if received:
                return _attach_bytes(self._part(identity, request, operation), received.path, received.md5, answer)
            case "CompleteMultipartUpload":
                self._complete_upload(request, self._newest(identity, operation))
            case "CopyObject" if source is not None:
                return self._copied(self._newest(identity, operation), source, answer, 0, source.size)
            case "UploadPartCopy" if source is not None:
                start, end = _range(request.headers.get("x-amz-copy-source-range", ""), source.size)
                return self._copied(self._part(identity, request, operation), source, answer, start, end)
        return answer

    def _backend(self, identity: Identity) -> Any:
        return self._moto.model("s3", identity.account, get_partition(identity.region))

    def _newest(self, identity: Identity, operation: Operation) -> Any:
        return self._backend(identity).get_bucket(operation.bucket).keys[operation.key]

    def _part(self, identity: Identity, request: Request, operation: Operation) -> Any:
        upload = self._backend(identity).get_bucket(operation.bucket).multiparts[request.query_value("uploadId")]
        return upload.parts[int(request.query_value("partNumber") or "0")]

    def _source(self, identity: Identity, request: Request) -> Any:
        """Find the object that is copied; moto's own answer refuses a missing one."""
        parsed = urlparse(request.headers.get("x-amz-copy-source", ""))
        bucket, _, key = unquote(parsed.path).lstrip("/").partition("/")
        version = parse_qs(parsed.query).get("versionId", [None])[0]
        try:
            return self._backend(identity).get_object(bucket, key, version_id=version)
        except Exception:  # noqa: BLE001 - moto's answer to this request reports the problem
            return None

    def _copied(self, key: Any, source: Any, answer: Answer, start: int, end: int) -> Answer:
        path = self._new_path()
        md5 = bodies.concatenate([(_path(source), start, end - start)] if end > start else [], path)
        return _attach_bytes(key, path, md5, answer)

    def _complete_upload(self, request: Request, key: Any) -> None:
        """Make an object's file from its parts' files. Do nothing if an earlier request has done so."""
        numbers = [
            int(str(each.text))
            for each in ElementTree.fromstring(request.body).iterfind(  # noqa: S314
                "{*}Part/{*}PartNumber"
            )
        ]
        parts = [key.multipart.parts[number] for number in numbers]
        if not isinstance(key._value_buffer, ObjectFile):
            path = self._new_path()
            bodies.concatenate([(_path(part), 0, part.size) for part in parts], path)
            adopt(key, path)
            _set_checksum(key, parts)
            for part in key.multipart.parts.values():
                adopt(part, None)

    def _new_path(self) -> Path:
        return self._moto.objects / uuid.uuid4().hex


def _changes(operation: Operation, request: Request) -> Changes:
    """List the objects that a request may have changed."""
    keys = frozenset({operation.key}) if operation.key else frozenset()
    if operation.name == "DeleteObjects":
        body = ElementTree.fromstring(request.body)  # noqa: S314 - only callers with this store's keys send it
        keys = frozenset(str(key.text) for key in body.iterfind("{*}Object/{*}Key"))
    return Changes(
        operation.bucket,
        keys,
        uploads=operation.name in PARTS | PARTS_END,
        upload_id=request.query_value("uploadId") or "",
        deletes=operation.name.startswith("Delete") or operation.name in PARTS_END,
    )


def _check_sums(request: Request, received: Received) -> None:
    """Raise AwsError if the bytes do not match a checksum that came with them."""
    for name, found in received.checksums.items():
        header = f"x-amz-checksum-{name.lower()}"
        stated = received.trailers.get(header) or request.headers.get(header) or request.query_value(header)
        if stated and stated != found:
            raise AwsError("BadDigest", f"The {name} you specified did not match the calculated checksum.")


def _headers_for_empty_body(request: Request, received: Received) -> dict[str, str]:
    """Return the headers with which moto accepts an empty body in place of the received one."""
    given = {"HTTP_X_AMZ_CONTENT_SHA256": "UNSIGNED-PAYLOAD"}
    for name, value in received.trailers.items():
        if name.startswith("x-amz-checksum-"):
            given["HTTP_" + name.upper().replace("-", "_")] = value
            given["HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM"] = name.removeprefix("x-amz-checksum-").upper()
    algorithm_header = request.headers.get("x-amz-sdk-checksum-algorithm", "").upper()
    header = f"HTTP_X_AMZ_CHECKSUM_{algorithm_header}"
    if algorithm_header and f"x-amz-checksum-{algorithm_header.lower()}" not in request.headers and header not in given:
        # Without a value, moto would compute one from an empty body.
        given |= {header: received.checksums[algorithm_header]} if algorithm_header in received.checksums else {}
        given |= {} if algorithm_header in received.checksums else {"HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM": ""}
    return given


def _attach_bytes(key: Any, path: Path, md5: bytes, answer: Answer) -> Answer:
    """Make moto's object read its bytes from this file, and return the answer with the right ETag."""
    adopt(key, path)
    key._etag = md5.hex()
    headers = tuple((name, value.replace(EMPTY, key._etag)) for name, value in answer.headers)
    return replace(answer, headers=headers, body=answer.body.replace(EMPTY.encode(), key._etag.encode()))


def _set_checksum(key: Any, parts: list[Any]) -> None:
    """Set the checksum of an object from parts, because moto computed it from empty parts."""
    algorithm = key.checksum_algorithm or ""
    paths = [_path(part) for part in parts]
    if key.checksum_type == "COMPOSITE" and algorithm in bodies.CHECKSUMS:
        made = bodies.CHECKSUMS[algorithm]()
        for path in paths:
            made.update(bodies.checksum(algorithm, [path]) or b"")
        found: bytes | None = made.digest()
    else:
        found = bodies.checksum(algorithm, paths)
    key.checksum_value = base64.b64encode(found).decode() if found is not None else None
    key.checksum_algorithm = algorithm if found is not None else None


def _path(key: Any) -> Path:
    return Path(key._value_buffer.path)


def _download(request: Request, answer: Answer, key: Any) -> Answer:
    """Add an object's bytes to the answer, or the requested range of them."""
    stated, size = request.headers.get("range", ""), int(key.size)
    if answer.status == 200 and re.fullmatch(r"bytes=(\d+-\d*|-\d+)", stated):
        start, end = _range(stated, size)
        if start < size and start >= end and not stated.startswith("bytes=-"):  # backwards: S3 ignores it
            return replace(answer, content=Content.of(_path(key), 0, size))
        if start >= end:
            text = "The requested range is not satisfiable"
            return query.error_answer(AwsError("InvalidRange", text, status=416), "", "s3")
        if (start, end) != (0, size):
            kept = [(name, value) for name, value in answer.headers if not name.lower().startswith("x-amz-checksum-")]
            headers = (*kept, ("Content-Range", f"bytes {start}-{end - 1}/{size}"))
            return replace(answer, status=206, headers=headers, content=Content.of(_path(key), start, end - start))
        answer = replace(answer, status=206, headers=(*answer.headers, ("Content-Range", f"bytes 0-{size - 1}/{size}")))
    return replace(answer, content=Content.of(_path(key), 0, size))


def _range(stated: str, size: int) -> tuple[int, int]:
    """Return the start and the end of a range of `bytes=`; the whole object without one."""
    first, _, last = stated.removeprefix("bytes=").partition("-")
    if not first.isdigit() and not last.isdigit():
        return 0, size
    if not first.isdigit():
        return max(0, size - int(last)), size if int(last) else 0
    return int(first), min(size, int(last) + 1) if last.isdigit() else size
