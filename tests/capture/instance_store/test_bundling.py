"""Agent and controller in one talk, over a pipe in place of SSH: what they make is a bundle that anybody reads."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from imagepipe.bundle.cipher import Secret
from imagepipe.bundle.extents import Extent
from imagepipe.bundle.manifest import Label, Manifest, find_secret, read_manifest
from imagepipe.bundle.unpack import unpack
from imagepipe.capture.agent import main as agent
from imagepipe.capture.agent.frames import ProtocolError, Wire
from imagepipe.capture.agent.root_image import RootImage
from imagepipe.capture.instance_store.agent_messages import PreparedRoot
from imagepipe.capture.instance_store.on_controller import bundle_here
from imagepipe.capture.instance_store.on_instance import bundle_on_instance
from imagepipe.capture.instance_store.s3_parts import S3Parts
from imagepipe.errors import BundleError
from tests.account import Account
from tests.bundle.samples import ACCOUNT, ec2_key, recipients
from tests.local.aws.harness import SECRET

MIB = 1 << 20
BUCKET, FOLDER = "bundles", "web/r1-c1"
LABEL = Label("image", ACCOUNT)
Bundler = Callable[..., Manifest]


@pytest.fixture
def parts(account: Account) -> S3Parts:
    account.s3.make_bucket(BUCKET)
    return S3Parts(account.s3, BUCKET, FOLDER)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> RootImage:
    """An image of 80 MiB with 25 MiB of noise, and what is not in an extent is not zeros: it must not travel."""
    path = tmp_path_factory.mktemp("root") / "disk"
    path.write_bytes(b"FREE" * (20 * MIB))
    extents = [Extent(0, 4096), Extent(MIB, 15 * MIB), Extent(40 * MIB + 512, 10 * MIB)]
    with path.open("r+b") as file:
        for number, extent in enumerate(extents):
            file.seek(extent.offset)
            file.write(random.Random(number).randbytes(extent.length))
    return RootImage("block", str(path), 80 * MIB, extents, 1_700_000_000)


class Talk:
    """An agent in a thread, and our end of the wire to it; `tap` sees what the agent is told and may cut the wire."""

    def __init__(self, fixed: RootImage, tap: Callable[[bytes], bool] = lambda _: True) -> None:
        self.problem: BaseException | None = None
        self.heard = b""
        ours, theirs = os.pipe(), os.pipe()
        self._fds = [*ours, *theirs]

        def write(block: bytes) -> None:
            self.heard += block
            if not tap(block):
                self.cut()
            agent._write_all(theirs[1], block)

        self.wire = Wire(lambda count: os.read(ours[0], count), write)
        self._agent = Wire(lambda count: os.read(theirs[0], count), lambda block: agent._write_all(ours[1], block))
        self._fixed = fixed
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ours_end = ours[1]

    def _run(self) -> None:
        try:
            order = agent._message(self._agent)
            (agent.stream if order["do"] == "stream" else lambda w, f: agent.bundle(w, f, order))(
                self._agent, self._fixed
            )
            self._agent.send(ended=True)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.problem = error
            with suppress(OSError):
                os.close(self._ours_end)

    def cut(self) -> None:
        with suppress(OSError):
            os.close(self._ours_end)
        raise ProtocolError("cut")

    @contextmanager
    def going(self) -> Iterator[Wire]:
        self._thread.start()
        yield self.wire
        self._thread.join(10)
        for fd in self._fds:
            with suppress(OSError):
                os.close(fd)


def _root(fixed: RootImage) -> PreparedRoot:
    return PreparedRoot(fixed.method, fixed.size, fixed.modified, tuple(fixed.extents))


def _bundled(
    account: Account, fixed: RootImage, parts: S3Parts, bundler: Bundler, secret: Secret | None = None
) -> Talk:
    talk = Talk(fixed)
    context = account.context()
    secret = secret or Secret.new()
    with talk.going() as wire:
        bundler(context, wire, _root(fixed), parts, label=LABEL, secret=secret, recipients=recipients())
    return talk


def _unpacked(account: Account, folder: Path) -> str:
    """The digest of what EC2 makes of the bundle, with its own key."""
    read = account.s3.read
    manifest = read_manifest(read(BUCKET, f"{FOLDER}/image.manifest.xml", limit_bytes=MIB))
    target = folder / "unpacked"
    source: Any = lambda name: [read(BUCKET, f"{FOLDER}/{name}", limit_bytes=11 * MIB)]  # noqa: E731
    unpack(manifest, source, find_secret(manifest, ec2_key()), target)
    return hashlib.sha1(target.read_bytes()).hexdigest()


def _expected(fixed: RootImage) -> str:
    content = bytearray(fixed.size)
    disk = Path(fixed.path).read_bytes()
    for extent in fixed.extents:
        content[extent.offset : extent.end] = disk[extent.offset : extent.end]
    return hashlib.sha1(content).hexdigest()


both = pytest.mark.parametrize("bundler", [bundle_on_instance, bundle_here], ids=["instance", "controller"])


@both
def test_the_bundle_is_the_image_without_what_is_free(
    bundler: Bundler, account: Account, parts: S3Parts, fixed: RootImage, tmp_path: Path
) -> None:
    talk = _bundled(account, fixed, parts, bundler)
    assert talk.problem is None
    assert _unpacked(account, tmp_path) == _expected(fixed)
    keys = account.s3.keys(BUCKET, "")
    assert keys == [f"{FOLDER}/image.manifest.xml", *(f"{FOLDER}/image.part.0{n}" for n in range(3))]


@both
def test_a_second_agent_sends_what_is_not_there(
    bundler: Bundler, account: Account, parts: S3Parts, fixed: RootImage, tmp_path: Path
) -> None:
    secret = Secret.new()
    _bundled(account, fixed, parts, bundler, secret)
    account.s3.delete(BUCKET, [f"{FOLDER}/image.manifest.xml", f"{FOLDER}/image.part.01"])
    before = _puts(account)
    _bundled(account, fixed, parts, bundler, secret)
    assert _puts(account) - before == 2, "one part, and the manifest"
    assert _unpacked(account, tmp_path) == _expected(fixed)


def _puts(account: Account) -> int:
    return account.cloud.gateway.backend.calls.counted()["s3:PutObject"]


def test_a_part_that_is_not_what_was_sent_is_noticed_before_the_bundle_is_sealed(
    account: Account, parts: S3Parts, fixed: RootImage
) -> None:
    class Meddled(S3Parts):
        def confirm(self, part: Any) -> None:
            if part.filename.endswith("01"):
                account.s3.put(BUCKET, f"{FOLDER}/{part.filename}", b"something else")
            super().confirm(part)

    meddled = Meddled(account.s3, BUCKET, FOLDER)
    with pytest.raises(BundleError, match=r"web/r1-c1/image\.part\.01 in bucket bundles differs from the upload"):
        _meddled(account, fixed, meddled)
    assert f"{FOLDER}/image.manifest.xml" not in account.s3.keys(BUCKET, "")


def _meddled(account: Account, fixed: RootImage, parts: S3Parts) -> None:
    talk = Talk(fixed)
    talk._thread.start()
    bundle_on_instance(
        account.context(), talk.wire, _root(fixed), parts, label=LABEL, secret=Secret.new(), recipients=recipients()
    )


@both
def test_s3_that_is_slow_is_waited_for(
    bundler: Bundler, account: Account, parts: S3Parts, fixed: RootImage, tmp_path: Path
) -> None:
    account.fault("refuse", "s3:PutObject", code="SlowDown", times=2)
    _bundled(account, fixed, parts, bundler)
    assert _unpacked(account, tmp_path) == _expected(fixed)


def test_the_agent_is_told_key_and_iv_once_the_image_is_fixed_and_nothing_else_that_is_secret(
    account: Account, parts: S3Parts, fixed: RootImage
) -> None:
    secret = Secret.new()
    talk = _bundled(account, fixed, parts, bundle_on_instance, secret)
    assert talk.heard.count(secret.key.hex().encode()) == 1
    private = recipients().owner.private_key.private_numbers()
    for number in (private.d, private.p, private.q):
        assert str(number).encode() not in talk.heard
        assert f"{number:x}".encode() not in talk.heard
    assert b"PRIVATE KEY" not in talk.heard
    assert SECRET.encode() not in talk.heard
