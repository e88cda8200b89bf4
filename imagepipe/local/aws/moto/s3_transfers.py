"""S3's operations, which moto answers, and the bytes of objects, which bypass moto in both directions."""

from __future__ import annotations

import hashlib
import re
import uuid
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from moto.utilities.utils import get_partition

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.authentication.signature import Identity, Request
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.moto import s3, s3_acls, s3_checksums, s3_settings, s3_xml
from imagepipe.local.aws.moto.adapter import READS, Moto, check_readable
from imagepipe.local.aws.moto.pickling import adopt
from imagepipe.local.aws.moto.s3 import Operation
from imagepipe.local.aws.moto.s3_checksums import Completion
from imagepipe.local.aws.moto.s3_state import Changes, forget_page_tokens
from imagepipe.local.aws.protocol import bodies, checksums, query
from imagepipe.local.aws.protocol.bodies import Content, ObjectFile, Received
from imagepipe.local.aws.protocol.checksums import Stated
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer

UPLOADS = frozenset({"PutObject", "UploadPart"})
"""Operations whose bodies are written to disk as they arrive."""
PARTS = frozenset({"CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"})
PARTS_END = frozenset({"CompleteMultipartUpload", "AbortMultipartUpload"})
WITHOUT_BYTES = frozenset(
    {"GetObject", "GetObjectRetention", "HeadObject", "CompleteMultipartUpload", "CopyObject", "UploadPartCopy"}
)
EMPTY = hashlib.md5(usedforsecurity=False).hexdigest()
"""The ETag that moto gives to an object whose bytes it does not see."""


SDK_ALGORITHM = "HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM"


@dataclass(frozen=True, slots=True)
class Plan:
    """moto's models that a request is about, as they are before moto answers it."""

    bucket: Any
    """None if it does not exist, and so the others."""
    upload: Any
    source: Any = None
    """The object that is copied."""
    algorithm: str | None = None
    """Algorithm of the copy's checksum."""
    completion: Completion | None = None


class Transfers:
    """S3's answers, made by moto, with the bytes of objects added."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto

    def receive(self, request: Request, source: bodies.Source, length: int | None) -> Received:
        """Write an object's bytes to disk. Raises AwsError if digest or length is not the stated one.

        `length` is None for a body that ends where its source ends.
        """
        stated = request.headers.get("x-amz-content-sha256", "")
        is_chunked = stated.startswith("STREAMING-")
        checksum = checksums.stated(request)
        algorithm = checksum.algorithm if checksum else ""
        received = bodies.receive(source, length, self._moto.objects, is_chunked=is_chunked, algorithm=algorithm)
        try:
            if re.fullmatch("[0-9a-f]{64}", stated) and stated != received.sha256:
                raise AwsError("XAmzContentSHA256Mismatch", "The body is not the one that was signed")
            decoded = request.headers.get("x-amz-decoded-content-length", "")
            if is_chunked and decoded.isdigit() and int(decoded) != received.size:
                raise AwsError("IncompleteBody", f"The body has {received.size} bytes; {decoded} were stated")
            checksums.check(checksum, received.checksum, received.trailers)
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
        s3.check_supported(operation)
        s3.check_conditions(request, operation)
        s3.check_md5(request, received.md5 if received else hashlib.md5(request.body, usedforsecurity=False).digest())
        s3.check_signed_headers(request)
        checksum = self._check_checksum(request, operation, received)
        s3_acls.check(identity, request, operation)
        plan = self._plan(identity, request, operation)
        environ = s3_acls.translate(request, operation, context.environ)
        environ = _with_checksum(environ, operation, checksum)
        if received:
            environ["HTTP_X_AMZ_CONTENT_SHA256"] = "UNSIGNED-PAYLOAD"  # moto sees an empty body
        if operation.name == "GetObject":
            environ.pop("HTTP_RANGE", None)  # moto would apply it to an empty body
        if operation.name == "HeadObject" and (version := request.query_value("versionId")) and plan.bucket:
            environ = s3_settings.head_environ(environ, plan.bucket, plan.bucket.keys.get(operation.key), version)
        with bodies.without_bytes() if operation.name in WITHOUT_BYTES else nullcontext():
            answer = self._moto.call("s3", context, environ)
        if answer.status < 300:
            answer = self._with_bytes(context, operation, received, plan, answer)
            answer = self._with_settings(identity, request, operation, plan, answer)
            if not operation.name.startswith(READS):
                self._moto.save_s3(identity.account, identity.region, _changes(operation, request))
        elif answer.status == 404 and operation.name == "GetBucketEncryption" and plan.bucket:
            answer = s3_settings.encryption_answer()
        return check_readable(answer, operation.name, request)

    def _check_checksum(self, request: Request, operation: Operation, received: Received | None) -> Stated | None:
        """Return the checksum of the request's body, with its value. Raises AwsError if it is wrong."""
        if operation.name == "CompleteMultipartUpload":  # its header is the checksum of the object
            return None
        stated = checksums.stated(request)
        if stated is None:
            return None
        if received is None:
            found = checksums.of(stated.algorithm, request.body)
            checksums.check(stated, found, {})
            return replace(stated, value=found)
        return replace(stated, value=received.checksum)

    def _plan(self, identity: Identity, request: Request, operation: Operation) -> Plan:
        """Check the request against the objects that it is about, before moto changes any. Raises AwsError."""
        bucket = s3.bucket_of(identity, operation.bucket)
        upload = bucket.multiparts.get(request.query_value("uploadId")) if bucket is not None else None
        plan = Plan(bucket, upload)
        match operation.name:
            case "CreateMultipartUpload":
                kind = request.headers.get(f"{checksums.PREFIX}type")
                checksums.check_type(s3_checksums.requested_algorithm(request), kind)
            case "UploadPart" if upload is not None:
                s3_checksums.check_part(upload, checksums.stated(request))
            case "UploadPartCopy" if upload is not None:
                source = self._source(identity, request)
                return replace(plan, source=source, algorithm=s3_checksums.algorithm_of(upload))
            case "CopyObject":
                source = self._source(identity, request)
                return replace(plan, source=source, algorithm=s3_checksums.for_copy(request, source))
            case "CompleteMultipartUpload":
                done = s3_checksums.completion(request, upload)
                return replace(plan, completion=done)
        return plan

    def _with_bytes(
        self, context: RequestContext, operation: Operation, received: Received | None, plan: Plan, answer: Answer
    ) -> Answer:
        identity, request, source = context.identity, context.request, plan.source
        match operation.name:
            case "GetObject":
                return _download(request, answer, self._object(identity, request, operation))
            case "PutObject" if received:
                key = self._newest(identity, operation)
                answer = _attach_bytes(key, received.path, received.md5, answer)
                if stated := checksums.stated(request):
                    s3_checksums.put(key, stated.algorithm, received.checksum)
                return s3_checksums.add_headers(answer, s3_checksums.of(key))
            case "UploadPart" if received:
                part = self._part(identity, request, operation)
                answer = _attach_bytes(part, received.path, received.md5, answer)
                s3_checksums.put_part(part, plan.upload, received.checksum, checksums.stated(request))
                return s3_checksums.add_headers(answer, s3_checksums.of(part))
            case "CompleteMultipartUpload" if plan.completion is not None:
                key = self._newest(identity, operation)
                self._complete_upload(key, plan.completion)
                return s3_checksums.add_elements(answer, s3_checksums.of(key))
            case "CopyObject" if source is not None:
                key = self._newest(identity, operation)
                answer = self._copied(key, plan, answer, 0, source.size)
                key.multipart = None  # a copy has no parts
                return s3_checksums.add_elements(answer, s3_checksums.of(key))
            case "UploadPartCopy" if source is not None:
                start, end = _range(request.headers.get("x-amz-copy-source-range", ""), source.size)
                part = self._part(identity, request, operation)
                answer = self._copied(part, plan, answer, start, end)
                return s3_checksums.add_elements(answer, s3_checksums.of(part), has_type=False)
        return answer

    def _with_settings(
        self, identity: Identity, request: Request, operation: Operation, plan: Plan, answer: Answer
    ) -> Answer:
        """Add what moto leaves out, to its state and to its answer."""
        bucket = s3.bucket_of(identity, operation.bucket)
        match operation.name:
            case "CreateBucket" if plan.bucket is None:
                s3_settings.block_public_access(bucket)
            case "PutObject" | "CopyObject" | "CompleteMultipartUpload":
                key = self._newest(identity, operation)
                s3_acls.make_private(key, request)
                key.encryption = key.encryption or s3_settings.SSE_S3
            case "CreateMultipartUpload":
                upload = bucket.multiparts[s3_xml.text(s3_xml.parsed(answer.body), "UploadId")]
                upload.sse_encryption = upload.sse_encryption or s3_settings.default_encryption(bucket)
            case "HeadObject":
                key = self._object(identity, request, operation)
                is_wanted = request.headers.get("x-amz-checksum-mode") == "ENABLED" and answer.status == 200
                answer = s3_checksums.add_headers(answer, s3_checksums.of_object(key) if is_wanted else None)
                return s3_settings.without_body(answer, key) if request.query_value("versionId") else answer
            case "GetObjectAttributes":
                return s3_checksums.attributes(request, answer, self._object(identity, request, operation))
            case "GetObjectRetention":
                return s3_settings.retention_answer(bucket, self._object(identity, request, operation))
            case "GetBucketRequestPayment":
                return s3_settings.request_payment_answer()
            case "ListParts":
                return s3_checksums.add_to_parts(answer, plan.upload)
            case "ListObjects" | "ListObjectsV2" | "ListObjectVersions":
                forget_page_tokens(self._backend(identity))
                return s3_checksums.add_to_list(answer, lambda name: bucket.keys.getlist(name, []))
        if operation.name in s3_settings.ENCRYPTED:
            answer = s3_settings.add_encryption(answer, s3_settings.default_encryption(bucket))
        return answer

    def _backend(self, identity: Identity) -> Any:
        return self._moto.model("s3", identity.account, get_partition(identity.region))

    def _object(self, identity: Identity, request: Request, operation: Operation) -> Any:
        version = request.query_value("versionId")
        return self._backend(identity).get_object(operation.bucket, operation.key, version_id=version)

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

    def _copied(self, key: Any, plan: Plan, answer: Answer, start: int, end: int) -> Answer:
        path = self._new_path()
        ranges = [(_path(plan.source), start, end - start)] if end > start else []
        md5, checksum = bodies.concatenate(ranges, path, plan.algorithm or "")
        s3_checksums.put(key, plan.algorithm, checksum)
        return _attach_bytes(key, path, md5, answer)

    def _complete_upload(self, key: Any, completion: Completion) -> None:
        """Make an object's file from its parts' files. Do nothing if an earlier request has done so."""
        if not isinstance(key._value_buffer, ObjectFile):
            path = self._new_path()
            parts = [key.multipart.parts[number] for number in completion.numbers]
            bodies.concatenate([(_path(part), 0, part.size) for part in parts], path)
            adopt(key, path)
            for part in key.multipart.parts.values():
                adopt(part, None)
            s3_checksums.put_completed(key, completion)

    def _new_path(self) -> Path:
        return self._moto.objects / uuid.uuid4().hex


def _changes(operation: Operation, request: Request) -> Changes:
    """List the objects that a request may have changed."""
    keys = frozenset({operation.key}) if operation.key else frozenset()
    if operation.name == "DeleteObjects":
        body = s3_xml.parsed(request.body)
        keys = frozenset(str(key.text) for key in body.iterfind("{*}Object/{*}Key"))
    return Changes(
        operation.bucket,
        keys,
        uploads=operation.name in PARTS | PARTS_END,
        upload_id=request.query_value("uploadId") or "",
        deletes=operation.name.startswith("Delete") or operation.name in PARTS_END,
    )


def _with_checksum(environ: dict[str, Any], operation: Operation, stated: Stated | None) -> dict[str, Any]:
    """Return the environment with the checksum that was found right, which moto takes as it is, and no other."""
    prefix = "HTTP_X_AMZ_CHECKSUM_"
    if operation.name == "CreateMultipartUpload":
        kind = checksums.check_type(environ.get(f"{prefix}ALGORITHM"), environ.get(f"{prefix}TYPE"))
        return {**environ, f"{prefix}TYPE": kind} if f"{prefix}ALGORITHM" in environ else environ
    passed = {name: value for name, value in environ.items() if not name.startswith((prefix, SDK_ALGORITHM))}
    if stated is not None:
        passed |= {SDK_ALGORITHM: stated.algorithm, f"{prefix}{stated.algorithm}": stated.value}
    return passed


def _attach_bytes(key: Any, path: Path, md5: bytes, answer: Answer) -> Answer:
    """Make moto's object read its bytes from this file, and return the answer with the right ETag."""
    adopt(key, path)
    key._etag = md5.hex()
    headers = tuple((name, value.replace(EMPTY, key._etag)) for name, value in answer.headers)
    return replace(answer, headers=headers, body=answer.body.replace(EMPTY.encode(), key._etag.encode()))


def _path(key: Any) -> Path:
    return Path(key._value_buffer.path)


def _download(request: Request, answer: Answer, key: Any) -> Answer:
    """Add an object's bytes to the answer, or the requested range of them."""
    stated, size = request.headers.get("range", ""), int(key.size)
    is_wanted = request.headers.get("x-amz-checksum-mode") == "ENABLED"
    answer = s3_checksums.add_headers(answer, s3_checksums.of_object(key) if is_wanted and not stated else None)
    if answer.status == 200 and re.fullmatch(r"bytes=(\d+-\d*|-\d+)", stated):
        start, end = _range(stated, size)
        if start < size and start >= end and not stated.startswith("bytes=-"):  # backwards: S3 ignores it
            return replace(answer, content=Content.of(_path(key), 0, size))
        if start >= end:
            text = "The requested range is not satisfiable"
            return query.error_answer(AwsError("InvalidRange", text, status=416), "", "s3")
        if (start, end) != (0, size):
            headers = (*answer.headers, ("Content-Range", f"bytes {start}-{end - 1}/{size}"))
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
