"""An agent that is not ours, or not right in its head: what it says raises our own errors, and seals nothing."""

from __future__ import annotations

import base64
import io
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagepipe.bundle.cipher import Secret
from imagepipe.bundle.extents import Extent
from imagepipe.bundle.manifest import Label
from imagepipe.capture.agent.frames import HEAD, LARGEST, MESSAGE, ProtocolError, Wire
from imagepipe.capture.instance_store.agent_messages import PreparedRoot, next_message
from imagepipe.capture.instance_store.on_controller import bundle_here
from imagepipe.capture.instance_store.on_instance import bundle_on_instance
from imagepipe.capture.instance_store.s3_parts import S3Parts
from imagepipe.errors import BundleError, CloudError
from tests.account import Account
from tests.bundle.samples import ACCOUNT, recipients
from tests.fuzzing import NO_CHECKS

BUCKET, FOLDER = "bundles", "web/r1-c1"
ROOT = PreparedRoot("tree", 4096, 0, (Extent(0, 4096),))
SHA1, MD5 = "a" * 40, "b" * 32
PART = {"part": 0, "size": 16, "sha1": SHA1, "md5": MD5}
FIXED = {"method": "tree", "size": 8192, "modified": 0, "extents": [[0, 4096]]}


def _wire(*said: object) -> Wire:
    """Return the connection to an agent that sends these messages: blocks of data for bytes, JSON for all else."""
    out = io.BytesIO()
    for each in said:
        kind, body = (b"D", each) if isinstance(each, bytes) else (b"J", json.dumps(each).encode())
        out.write(HEAD.pack(kind, len(body)) + body)
    out.seek(0)
    return Wire(out.read, lambda _: None)


@pytest.fixture
def parts(account: Account) -> S3Parts:
    account.s3.make_bucket(BUCKET)
    return S3Parts(account.s3, BUCKET, FOLDER)


def _bundle(account: Account, parts: S3Parts, wire: Wire, bundler: Any = bundle_on_instance) -> None:
    label = Label("image", ACCOUNT)
    bundler(account.context(), wire, ROOT, parts, label=label, secret=Secret.new(), recipients=recipients())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extents": [[0, 9000]]}, "sent Extent.*in an image of 8192 bytes"),
        ({"extents": [[0, 4096], [0, 4096]]}, "after 4096"),
        ({"extents": [[-1, 5]]}, "after 0"),
        ({"extents": [[0, -5]]}, "after 0"),
        ({"extents": [[0]]}, "an invalid value for extents"),
        ({"extents": [[0, 1.5]]}, "an invalid value for extents"),
        ({"extents": 7}, "an invalid value for extents: 7"),
        ({"extents": [[0, 1]] * ((1 << 19) + 1)}, "an invalid value for extents"),
        ({"size": "8192"}, "an invalid value for size: '8192'"),
        ({"size": 1 << 200}, "an invalid value for size"),
        ({"size": True}, "an invalid value for size: True"),
        ({"modified": -1}, "an invalid value for modified: -1"),
        ({"method": None}, "an invalid value for method: None"),
        ({"hygiene": 'imagepipe-hygiene: {"findings": 1}'}, "an invalid value for hygiene"),
        ({"hygiene": "imagepipe-hygiene: ["}, "an invalid value for hygiene"),
        (
            {"hygiene": 'imagepipe-hygiene: {"findings": [["no-such", "/", ""]], "files": 0, "size": 0, "notes": []}'},
            "an invalid value for hygiene",
        ),
    ],
    ids=[
        "beyond the end", "overlapping", "before the start", "backwards", "half an extent", "no whole number",
        "no list", "endless", "text for a number", "too large", "a boolean", "before 1970", "no method",
        "no findings", "no report", "no rule of ours",
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        PreparedRoot.receive(_wire({**FIXED, **change}), print)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([{**PART, "part": -1}], "an invalid value for part: -1"),
        ([{**PART, "part": 10**9}], "an invalid value for part: 1000000000"),
        ([{**PART, "part": "../../other/part"}], "an invalid value for part: '../../other"),
        ([{**PART, "size": 5 << 30}], "an invalid value for size"),
        ([{**PART, "md5": "?"}], r"an invalid value for md5: '\?'"),
        ([{**PART, "sha1": 5}], "an invalid value for sha1: 5"),
        ([PART, {**PART, "md5": "c" * 32}], "part 0 of image was made twice, with different content"),
        ([{"sent": 0}], "part 0 of image was reported as uploaded, but was never made"),
        ([PART, {"sent": 0}], "differs from the upload"),
        ([PART, {"sha1": SHA1}], r"image\.part\.00 was never confirmed in bucket bundles"),
        ([{"sha1": SHA1}], "no part of image was reported"),
        ([{"done": "all", "of": 1}], "an invalid value for done: 'all'"),
        ([{}], "an invalid value for sha1: None"),
        ([{"error": ["no", "text"]}], r"\['no', 'text'\]"),
    ],
    ids=[
        "number below", "number above", "another key", "too large", "no MD5", "no SHA-1", "another one", "never made",
        "never sent", "never confirmed", "nothing", "no progress", "no meaning", "an error without a hint",
    ],
)  # fmt: skip
def test_parts_that_cannot_be_are_refused_and_nothing_is_sealed(
    account: Account, parts: S3Parts, said: list[object], words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        _bundle(account, parts, _wire(*said))
    assert account.s3.keys(BUCKET, "") == []


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ([b""], BundleError),
        ([{"part": 0}], BundleError),
        ([b"short"], ProtocolError),
        ([{"say": "on the way"}, [1, 2]], ProtocolError),
        ([{"error": "the disk cannot be read", "hint": ""}], BundleError),
    ],
    ids=["nothing in it", "a message", "the end", "no object", "an error"],
)
def test_a_stream_that_is_not_the_image_is_refused(
    account: Account, parts: S3Parts, said: list[object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        _bundle(account, parts, _wire(*said), bundle_here)
    assert account.s3.keys(BUCKET, "") == []


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"7" * 5000, b"\xff", b'{"a":', b"[1]"],
    ids=["deep", "long number", "no UTF-8", "cut", "a list"],
)
def test_what_is_no_message_is_a_broken_stream(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a message"):
        Wire(io.BytesIO(HEAD.pack(MESSAGE, len(body)) + body).read, lambda _: None).receive()


def test_no_more_is_read_of_a_frame_than_an_image_can_need() -> None:
    with pytest.raises(ProtocolError, match="not a frame"):
        Wire(io.BytesIO(HEAD.pack(MESSAGE, LARGEST[MESSAGE] + 1)).read, lambda _: None).receive()


def test_lines_for_the_log_drive_no_terminal_and_can_be_written() -> None:
    """Names of files are in them, which may be any bytes."""
    said: list[str] = []
    next_message(_wire({"say": "\x1b]0;owned\x07 \udcff\n" + "x" * 5000}, {"part": 0}), said.append)
    [line] = said
    assert line.isprintable()
    assert line.encode()
    assert len(line) == 2000


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | st.just(SHA1) | st.just(MD5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_WORDS = (
    "part",
    "size",
    "sha1",
    "md5",
    "sent",
    "done",
    "of",
    "say",
    "error",
    "hint",
    "extents",
    "method",
    "modified",
    "hygiene",
)
_MESSAGES = st.dictionaries(st.sampled_from(_WORDS), _VALUES, max_size=6) | _VALUES | st.binary(max_size=5000)


@settings(max_examples=150, deadline=None, suppress_health_check=NO_CHECKS)
@given(st.lists(_MESSAGES | st.just(PART) | st.just({"sent": 0}) | st.just({"sha1": SHA1}), max_size=6))
def test_whatever_an_agent_says_our_own_errors_come_of_it(account: Account, said: list[Any]) -> None:
    parts = S3Parts(account.s3, BUCKET, FOLDER)
    for talk in (
        lambda: PreparedRoot.receive(_wire(*said), lambda _: None),
        lambda: _bundle(account, parts, _wire(*said)),
        lambda: _bundle(account, parts, _wire(*said), bundle_here),
    ):
        with suppress(BundleError, ProtocolError, CloudError):
            talk()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_bytes_come_they_are_a_broken_stream_or_a_message(content: bytes) -> None:
    wire = Wire(io.BytesIO(content).read, lambda _: None)
    with suppress(ProtocolError):
        while (heard := wire.receive()) is not None:
            assert isinstance(heard, dict | bytes)


def test_leave_is_given_for_what_is_asked_within_the_bundles_own_folder(account: Account, parts: S3Parts) -> None:
    told: list[dict[str, Any]] = []

    def write(block: bytes) -> None:
        if block[:1] == b"{":
            told.append(json.loads(block))

    wire = _wire(PART)
    with pytest.raises(ProtocolError):
        _bundle(account, parts, Wire(wire._read, write))
    leave = told[-1]
    assert f"/{FOLDER}/image.part.00?" in leave["url"] or f"/{BUCKET}/{FOLDER}/image.part.00?" in leave["url"]
    assert base64.b64decode(leave["headers"]["Content-MD5"]).hex() == MD5
