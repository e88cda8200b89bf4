"""Bytes of objects: to disk as they come, from disk as they go, and never a copy in memory."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import socket
import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from imagepipe.local.aws.protocol import bodies
from imagepipe.local.aws.protocol.errors import AwsError
from tests.local.aws.harness import KEY_ID, SECRET, Cloud, refused

BUCKET = "bundles"
BODY = bytes(range(256)) * 4096  # 1 MiB
CHUNKED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@pytest.fixture
def s3(cloud: Cloud) -> Any:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    return s3


def files(cloud: Cloud) -> list[Path]:
    return list((cloud.root / "state" / "objects").iterdir())


class Unread(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """Signs a request without its body."""

    def payload(self, request: Any) -> str:
        return str(request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD"))

    def _modify_request_before_signing(self, request: Any) -> None:
        stated = self.payload(request)
        super()._modify_request_before_signing(request)
        del request.headers["X-Amz-Content-SHA256"]
        request.headers["X-Amz-Content-SHA256"] = stated


def head(cloud: Cloud, method: str, path: str, length: int, *, secret: str = SECRET, **more: str) -> bytes:
    """The head of a signed request of so many bytes, whose body is still to come."""
    service = more.pop("service", "s3")
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    request = AWSRequest(method=method, url=f"{cloud.endpoint}{path}", headers=headers)
    signer = Unread if service == "s3" else SigV4Auth
    signer(Credentials(KEY_ID, secret), service, "us-east-1").add_auth(request)
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{cloud.port}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name.lower() != "host"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answered(cloud: Cloud, head: bytes, body: bytes = b"") -> bytes:
    """All that comes back; the body is sent once, whatever the head says of its length."""
    with socket.create_connection(("127.0.0.1", cloud.port), timeout=20) as connection:
        connection.sendall(head + body)
        with suppress(OSError):  # the server may have answered and closed already
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@pytest.mark.parametrize(
    ("stated", "start", "end", "status"),
    [
        ("", 0, len(BODY), 200),
        ("bytes=0-0", 0, 1, 206),
        ("bytes=5-9", 5, 10, 206),
        ("bytes=1000000-", 1_000_000, len(BODY), 206),
        ("bytes=-7", len(BODY) - 7, len(BODY), 206),
        ("bytes=0-99999999", 0, len(BODY), 206),
        ("bytes=9-5", 0, len(BODY), 200),
        ("lines=1-2", 0, len(BODY), 200),
    ],
)
def test_any_range_of_an_object_is_read(s3: Any, stated: str, start: int, end: int, status: int) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=BODY)
    found = s3.get_object(Bucket=BUCKET, Key="k", **({"Range": stated} if stated else {}))
    assert (found["ResponseMetadata"]["HTTPStatusCode"], found["ContentLength"]) == (status, end - start)
    assert found["Body"].read() == BODY[start:end]
    assert found["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'


def test_a_range_beyond_the_end_is_refused(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=BODY)
    s3.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    for key, stated in (("k", f"bytes={len(BODY)}-"), ("k", "bytes=-0"), ("empty", "bytes=0-")):
        with refused("InvalidRange"):
            s3.get_object(Bucket=BUCKET, Key=key, Range=stated)
    assert s3.get_object(Bucket=BUCKET, Key="empty")["Body"].read() == b""


def test_every_way_to_make_an_object_has_its_bytes_etag_and_size(cloud: Cloud, s3: Any) -> None:
    put = s3.put_object(Bucket=BUCKET, Key="put", Body=BODY)
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "put"})
    s3.copy_object(
        Bucket=BUCKET, Key="put", CopySource=f"{BUCKET}/put", MetadataDirective="REPLACE", Metadata={"a": "b"}
    )
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    ids = {"Bucket": BUCKET, "Key": "parts", "UploadId": upload}
    large = BODY * 5
    first = s3.upload_part(**ids, PartNumber=1, Body=large)["ETag"]
    source = {"CopySource": f"{BUCKET}/put", "CopySourceRange": "bytes=10-19"}
    second = s3.upload_part_copy(**ids, PartNumber=2, **source)["CopyPartResult"]["ETag"]
    assert second == f'"{hashlib.md5(BODY[10:20]).hexdigest()}"'
    parts = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]
    for _ in range(2):  # the second time it is done already
        s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts})
    joined = hashlib.md5(hashlib.md5(large).digest() + hashlib.md5(BODY[10:20]).digest()).hexdigest()
    wanted = {
        "put": (BODY, put["ETag"]),
        "copy": (BODY, put["ETag"]),
        "parts": (large + BODY[10:20], f'"{joined}-2"'),
    }
    for _ in range(2):
        for key, (body, tag) in wanted.items():
            found = s3.get_object(Bucket=BUCKET, Key=key)
            assert (found["Body"].read(), found["ETag"], found["ContentLength"]) == (body, tag, len(body)), key
        assert len(files(cloud)) == 3
        cloud.restart()
        s3 = cloud.client("s3")


def test_an_upload_in_parts_tells_the_checksum_of_its_bytes(s3: Any) -> None:
    for kind, wanted in (
        ("COMPOSITE", zlib.crc32(zlib.crc32(BODY).to_bytes(4, "big"))),
        ("FULL_OBJECT", zlib.crc32(BODY)),
    ):
        made = s3.create_multipart_upload(Bucket=BUCKET, Key="k", ChecksumAlgorithm="CRC32", ChecksumType=kind)
        ids = {"Bucket": BUCKET, "Key": "k", "UploadId": made["UploadId"]}
        part = s3.upload_part(**ids, PartNumber=1, Body=BODY, ChecksumAlgorithm="CRC32")
        listed = {"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}
        s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": [listed]})
        found = s3.head_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")["ChecksumCRC32"]
        assert found.partition("-")[0] == base64.b64encode(wanted.to_bytes(4, "big")).decode(), kind


def chunks(body: bytes, size: int, *, trailer: str = "", signature: str = "") -> bytes:
    """The body in aws-chunked encoding."""
    parts = [body[start : start + size] for start in range(0, len(body), size)] + [b""]
    framed = b"".join(
        b"%x%s\r\n%s%s" % (len(part), signature.encode(), part, b"\r\n" if part else b"") for part in parts
    )
    return framed + (f"{trailer}\r\n" if trailer else "").encode() + b"\r\n"


@pytest.mark.parametrize("size", [1, 1000, 1 << 18, 1 << 21])
@pytest.mark.parametrize("signature", ["", ";chunk-signature=" + "0" * 64])
def test_a_body_in_chunks_of_awss_own_is_kept_without_them(cloud: Cloud, s3: Any, size: int, signature: str) -> None:
    body = BODY[:1000] if size == 1 else BODY
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    sent = chunks(body, size, trailer=f"x-amz-checksum-crc32:{crc}", signature=signature)
    how = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" if signature else CHUNKED
    about = {"x_amz_content_sha256": how, "x_amz_decoded_content_length": str(len(body))}
    about |= {"content_encoding": "aws-chunked", "x_amz_trailer": "x-amz-checksum-crc32"}
    assert b" 200 " in answered(cloud, head(cloud, "PUT", f"/{BUCKET}/k", len(sent), **about), sent)
    found = s3.get_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")
    assert (found["Body"].read(), found.get("ContentEncoding"), found["ChecksumCRC32"]) == (body, None, crc)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (chunks(BODY, 1000)[:-2000], b"InvalidRequest"),
        (BODY, b"InvalidRequest"),
        (chunks(BODY[:-1], 1000), b"IncompleteBody"),
        (chunks(BODY, 1000, trailer="x-amz-checksum-crc32:AAAAAA=="), b"BadDigest"),
    ],
    ids=["cut", "none", "short", "another"],
)
def test_chunks_that_are_wrong_leave_nothing(cloud: Cloud, s3: Any, sent: bytes, code: bytes) -> None:
    about = {"x_amz_content_sha256": CHUNKED, "x_amz_decoded_content_length": str(len(BODY))}
    if b"x-amz-checksum" in sent:
        about["x_amz_trailer"] = "x-amz-checksum-crc32"
    assert code in answered(cloud, head(cloud, "PUT", f"/{BUCKET}/k", len(sent), **about), sent)
    assert files(cloud) == []
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"ContentMD5": base64.b64encode(bytes(16)).decode()}, "BadDigest"),
        ({"ChecksumSHA256": base64.b64encode(bytes(32)).decode()}, "BadDigest"),
        ({"Bucket": "none"}, "NoSuchBucket"),
        ({"ACL": "public-read"}, "AccessControlListNotSupported"),
    ],
    ids=lambda more: next(iter(more)) if isinstance(more, dict) else more,
)
def test_a_refused_upload_leaves_the_old_object(cloud: Cloud, s3: Any, more: Any, code: str) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"old")
    with refused(code):
        s3.put_object(**{"Bucket": BUCKET, "Key": "k", "Body": BODY, **more})
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"old"
    assert len(files(cloud)) == 1


def test_a_body_that_ends_early_leaves_the_old_object(cloud: Cloud, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"old")
    answered(cloud, head(cloud, "PUT", f"/{BUCKET}/k", len(BODY)), BODY[:1000])
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"old"
    assert len(files(cloud)) == 1


@pytest.mark.parametrize(
    ("method", "path", "service", "length", "secret", "status"),
    [
        ("PUT", "/bundles/k", "s3", bodies.MAX_OBJECT_BYTES + 1, SECRET, b" 400 "),
        ("PUT", "/bundles/k", "s3", bodies.MAX_OBJECT_BYTES + 1, "wrong", b" 403 "),
        ("PUT", "/bundles/k?tagging", "s3", bodies.MAX_BODY_BYTES + 1, SECRET, b" 413 "),
        ("POST", "/bundles?delete", "s3", bodies.MAX_BODY_BYTES + 1, SECRET, b" 413 "),
        ("POST", "/bundles?delete", "s3", bodies.MAX_BODY_BYTES + 1, "wrong", b" 403 "),
        ("POST", "/", "ec2", bodies.MAX_BODY_BYTES + 1, SECRET, b" 413 "),
        ("POST", "/", "ssm", 64 << 30, SECRET, b" 413 "),
        ("POST", "/_imagepipe/faults", "ec2", 64 << 30, SECRET, b" 413 "),
    ],
)
def test_a_body_that_is_too_long_is_refused_before_it_is_sent(
    cloud: Cloud, s3: Any, method: str, path: str, service: str, length: int, secret: str, status: bytes
) -> None:
    """The client here sends none of it, and is answered all the same."""
    answer = answered(cloud, head(cloud, method, path, length, secret=secret, service=service))
    assert status in answer.partition(b"\r\n")[0]
    assert files(cloud) == []


def test_a_body_of_a_stranger_is_not_read(cloud: Cloud) -> None:
    with socket.create_connection(("127.0.0.1", cloud.port), timeout=20) as connection:
        connection.sendall(f"PUT /b/k HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {64 << 30}\r\n\r\n".encode())
        assert b" 403 " in connection.recv(4096).partition(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", cloud.port), timeout=20) as connection:
        connection.sendall(b"PUT /b/k HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n")
        assert b" 403 " in connection.recv(4096).partition(b"\r\n")[0]


def test_chunks_of_https_are_refused_as_s3_does(cloud: Cloud) -> None:
    said = head(cloud, "PUT", f"/{BUCKET}/k", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    answer = answered(cloud, said, b"5\r\nbytes\r\n0\r\n\r\n")
    assert b" 501 " in answer.partition(b"\r\n")[0]
    assert b"NotImplemented" in answer


def http_chunks(body: bytes, size: int) -> bytes:
    """The body in HTTP's own chunks."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def streamed(cloud: Cloud, body: bytes, size: int) -> tuple[bytes, bytes]:
    """The head and the body of an upload as AWS's SDK for JavaScript sends a stream."""
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    about = {"x_amz_content_sha256": CHUNKED, "x_amz_decoded_content_length": str(len(body))}
    about |= {"content_encoding": "aws-chunked", "x_amz_trailer": "x-amz-checksum-crc32"}
    said = head(cloud, "PUT", f"/{BUCKET}/k", 0, **about).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return said, http_chunks(chunks(body, 1000, trailer=f"x-amz-checksum-crc32:{crc}"), size)


@pytest.mark.parametrize("size", [1, 7, 1 << 16, 1 << 22])
def test_awss_chunks_may_come_in_chunks_of_https(cloud: Cloud, s3: Any, size: int) -> None:
    body = BODY[:1000] if size == 1 else BODY
    said, sent = streamed(cloud, body, size)
    assert b" 200 " in answered(cloud, said, sent).partition(b"\r\n")[0]
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == body


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda sent: sent[:-2000], b"IncompleteBody"),
        (lambda sent: b"zz\r\n" + sent, b"InvalidRequest"),
        (lambda sent: b"fffffffffff\r\n" + sent, b"IncompleteBody"),
        (lambda sent: b"-5\r\n" + sent, b"InvalidRequest"),
        (lambda sent: http_chunks(b"5\r\nbytes\r\n0\r\n\r\n", 3), b"IncompleteBody"),
    ],
    ids=["cut", "no number", "too long", "negative", "short"],
)
def test_wrong_chunks_of_https_leave_nothing(
    cloud: Cloud, s3: Any, wrong: Callable[[bytes], bytes], code: bytes
) -> None:
    said, sent = streamed(cloud, BODY, 1000)
    assert code in answered(cloud, said, wrong(sent))
    assert files(cloud) == []
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0


def test_a_refused_upload_is_read_away_so_that_its_client_sees_why(cloud: Cloud, s3: Any) -> None:
    signing = cloud.client("s3", signature_version="s3v4")
    url = signing.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "k"}).replace("/k?", "/other?")
    request = urllib.request.Request(url, data=BODY * 10, method="PUT")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=20)
    with caught.value as answer:
        assert answer.code == 403


def test_an_object_that_is_deleted_while_it_is_sent_arrives_whole(cloud: Cloud, s3: Any) -> None:
    large = BODY * 32  # more than lies between server and client
    s3.put_object(Bucket=BUCKET, Key="k", Body=large)
    body = s3.get_object(Bucket=BUCKET, Key="k")["Body"]
    first = body.read(10)
    s3.delete_object(Bucket=BUCKET, Key="k")
    assert files(cloud) == []
    assert first + body.read() == large


def test_lines_of_chunks_are_not_kept_without_end() -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"0" * size

    with pytest.raises(AwsError, match="aws-chunked"):
        bodies.receive(Endless(), 64 << 20, Path("/tmp"), is_chunked=True)


SERVE = """
import sys, threading
from pathlib import Path
from imagepipe.local.host.processes import return_memory
from tests.local.aws.harness import Cloud
return_memory()
cloud = Cloud(root=Path(sys.argv[1]))
cloud.start()
print(cloud.port, flush=True)
threading.Event().wait()
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Cloud, int]]:
    """A cloud in a process of its own."""
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()) as process:
        assert process.stdout is not None
        yield Cloud(root=tmp_path, port=int(process.stdout.readline())), process.pid
        process.kill()


def resident(pid: int, field: str) -> int:
    """Megabytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) // 1024


def test_the_memory_of_the_process_is_bounded(served: tuple[Cloud, int]) -> None:
    cloud, pid = served
    s3, body = cloud.client("s3"), os.urandom(10_000_000)
    s3.create_bucket(Bucket=BUCKET)
    for number in range(30):
        s3.put_object(Bucket=BUCKET, Key="k", Body=body)
        assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == body
        s3.delete_object(Bucket=BUCKET, Key="k")
        if number == 4:
            before = resident(pid, "VmRSS")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="large")["UploadId"]
    ids = {"Bucket": BUCKET, "Key": "large", "UploadId": upload}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**ids, PartNumber=number, Body=body * 3)["ETag"]}
        for number in range(1, 6)
    ]
    s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts})
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/large")
    read = s3.get_object(Bucket=BUCKET, Key="copy")["Body"]
    assert sum(len(block) for block in iter(lambda: read.read(1 << 20), b"")) == 150_000_000
    assert resident(pid, "VmHWM") < 250
    assert resident(pid, "VmHWM") < before + 50, "less than half of the largest object"


def test_an_upload_that_does_not_state_its_digest_is_kept_too(cloud: Cloud, s3: Any) -> None:
    request = AWSRequest(method="PUT", url=f"{cloud.endpoint}/{BUCKET}/k", data=BODY)
    SigV4Auth(Credentials(KEY_ID, SECRET), "s3", "us-east-1").add_auth(request)
    assert "x-amz-content-sha256" not in {name.lower() for name in request.headers}
    sent = urllib.request.Request(request.url, data=BODY, headers=dict(request.headers), method="PUT")
    with urllib.request.urlopen(sent, timeout=20) as answer:
        assert answer.status == 200
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == BODY
