"""`bundle_on: controller`: the image's data comes over SSH and is bundled here, several times as fast."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from imagepipe.bundle.cipher import Secret
from imagepipe.bundle.manifest import Label, Manifest, Recipients
from imagepipe.bundle.pack import pack
from imagepipe.bundle.parts import Part
from imagepipe.bundle.sparse import Image
from imagepipe.capture.agent.frames import ProtocolError, Wire
from imagepipe.capture.instance_store.agent_messages import PreparedRoot, log_if_text
from imagepipe.capture.instance_store.on_instance import end, progress
from imagepipe.capture.instance_store.s3_parts import S3Parts
from imagepipe.engine.stage import Context
from imagepipe.errors import BundleError
from imagepipe.values import BundlePart

AT_ONCE = 4
"""Number of concurrent uploads. Their parts are in memory, 40 MiB in all."""


def bundle_here(
    ctx: Context,
    wire: Wire,
    root: PreparedRoot,
    parts: S3Parts,
    *,
    label: Label,
    secret: Secret,
    recipients: Recipients,
) -> Manifest:
    """Bundle the agent's stream; return the manifest. Raises ProtocolError, BundleError, CloudError."""
    wire.send(do="stream")
    stream = _Stream(wire, ctx.say)
    image = Image(root.size, root.extents, stream.read, root.modified)
    done = 0

    def count(news: int) -> None:
        nonlocal done
        done += news
        ctx.cancel.check()
        progress(ctx, done, root.data_bytes)

    with _Sink(parts) as sink:
        manifest = pack(image, sink, label=label, recipients=recipients, secret=secret, progress=count)
    end(wire, ctx.say)
    return manifest


class _Stream:
    """The image's data as it arrives, with the interface of a file."""

    def __init__(self, wire: Wire, say: Callable[[str], None]) -> None:
        self._wire = wire
        self._say = say
        self._rest = b""

    def read(self, offset: int, count: int) -> bytes:
        """Return the next bytes; the offset is ignored because both sides have the extents in the same order."""
        pieces, have = [self._rest], len(self._rest)
        while have < count:
            piece = self._block()
            pieces.append(piece)
            have += len(piece)
        whole = b"".join(pieces) if len(pieces) > 1 else pieces[0]
        self._rest = whole[count:]
        return whole[:count] if have > count else whole

    def _block(self) -> bytes:
        while True:
            message = self._wire.receive()
            if message is None:
                raise ProtocolError("the agent ended in the middle of the image")
            if isinstance(message, bytes):
                if not message:  # such blocks could continue forever
                    raise BundleError("the agent on the machine sent an empty block of the image")
                return message
            if not log_if_text(message, self._say):
                raise BundleError("the agent on the machine sent an unexpected message in the middle of the image")


class _Sink:
    """Uploads parts to S3, a few at once, while the next ones are made."""

    def __init__(self, parts: S3Parts) -> None:
        self._parts = parts
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload")
        self._uploads: deque[Future[None]] = deque()

    def put(self, part: Part, content: bytes) -> None:
        if len(self._uploads) >= AT_ONCE:
            self._uploads.popleft().result()
        self._uploads.append(self._pool.submit(self._send, part, content))

    def finish(self, filename: str, manifest: bytes) -> None:
        while self._uploads:
            self._uploads.popleft().result()
        self._parts.finish(filename, manifest)

    def _send(self, part: Part, content: bytes) -> None:
        described = BundlePart(part.filename, len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
        if not self._parts.has(described):
            self._parts.put(described, content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
