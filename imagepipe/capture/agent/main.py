"""The agent's dialogue with the controller: prepare the image, describe it, then bundle or stream it."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from imagepipe.bundle.flow import BLOCK_BYTES, ahead, in_sizes
from imagepipe.capture.agent.aes import encrypted
from imagepipe.capture.agent.errors import AgentError
from imagepipe.capture.agent.frames import ProtocolError, Wire
from imagepipe.capture.agent.gzip import gzipped
from imagepipe.capture.agent.root_image import BundleRequest, RootImage, known, memory_folder, prepare, reported
from imagepipe.capture.agent.send import Answers, Part, Sender

PROGRESS_SECONDS = 1.0
BEAT_SECONDS = 15.0
GONE = 3
"""Exit code when the controller is gone; the prepared image stays for the next agent."""


def main() -> int:
    """Follow the controller's orders over standard input and output until all is done."""
    out = os.dup(1)
    os.dup2(2, 1)  # other output must not end up between the frames
    wire = Wire(lambda count: os.read(0, count), lambda block: _write_all(out, block))
    try:
        wire.handshake()
        threading.Thread(target=_beat, args=(wire,), daemon=True).start()
        _run(wire)
    except AgentError as error:
        wire.send(error=str(error), hint=error.hint)
        return 1
    except (ProtocolError, BrokenPipeError):
        return GONE
    except Exception as error:  # noqa: BLE001 - every error is reported to the controller; the user sees no traceback
        wire.send(error=f"the agent on the machine failed: {type(error).__name__}: {error}", hint="")
        return 1
    return 0


def _run(wire: Wire) -> None:
    order = _message(wire)
    folder = memory_folder()
    _end_agent_before(folder)

    def say(text: str) -> None:
        wire.send(say=text)

    image = known(folder)
    if image is None:
        order["exclude"] = tuple(order["exclude"])
        image = prepare(BundleRequest(**order), folder, say)
    wire.send(
        method=image.method,
        size=image.size,
        modified=image.modified,
        extents=image.extents,
        hygiene=reported(folder),
    )
    order = _message(wire)
    if order["do"] == "stream":
        stream(wire, image)
    else:
        bundle(wire, image, order)
    # Keep the image on the machine: a controller that dies before it has recorded the end asks for it again.
    wire.send(ended=True)


def stream(wire: Wire, image: RootImage) -> None:
    """Send the image's data to the controller and wait until it has all of it. Raises AgentError, ProtocolError."""
    for block in ahead(image.blocks(), depth=4):
        wire.send_data(block)
    if _message(wire).get("do") != "end":
        raise ProtocolError("the controller did not confirm that it received everything")


def bundle(wire: Wire, image: RootImage, order: dict[str, Any]) -> None:
    """Bundle the image and upload its parts; return when the controller has sealed the bundle. Raises AgentError.

    The order contains the head of the tar, the length of its tail, and the key and IV. Only key and IV are secret.
    """
    answers = Answers()
    ended = threading.Event()
    threading.Thread(target=_listen, args=(wire, answers, ended), daemon=True).start()
    sender = Sender(wire, answers)
    digest = hashlib.sha1()  # noqa: S324 - the format's
    meter = _Meter(wire, image.data_bytes)

    def tar() -> Iterator[bytes]:
        pieces = chain([base64.b64decode(order["head"])], image.blocks(), [bytes(order["tail"])])
        for block in in_sizes(pieces, BLOCK_BYTES):  # the compressed bytes must not depend on the sizes of reads
            digest.update(block)
            meter.count(len(block))
            yield block

    secret = bytes.fromhex(order["key"]), bytes.fromhex(order["iv"])
    stream = encrypted(gzipped(ahead(tar(), depth=4)), *secret)
    for number, content in enumerate(in_sizes(stream, order["part_bytes"])):
        sender.put(_part(number, content))
    sender.finish()
    wire.send(sha1=digest.hexdigest())
    ended.wait()


def _listen(wire: Wire, answers: Answers, ended: threading.Event) -> None:
    """Pass answers to the threads that wait for them. If the controller is gone, end this process at once."""
    with suppress(ProtocolError, OSError):
        while True:
            message = wire.receive()
            if not isinstance(message, dict):
                break
            if message.get("do") == "end":
                ended.set()
                return
            answers.put(message["part"], message)
    os._exit(GONE)


def _part(index: int, content: bytes) -> Part:
    return Part(index, content, hashlib.sha1(content).hexdigest(), hashlib.md5(content).hexdigest())  # noqa: S324


class _Meter:
    """Reports the progress of reading the data, at intervals."""

    def __init__(self, wire: Wire, total: int) -> None:
        self._wire = wire
        self._total = total
        self._done = 0
        self._reported = time.monotonic()

    def count(self, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._reported > PROGRESS_SECONDS:
            self._reported = now
            self._wire.send(done=min(self._done, self._total), of=self._total)


def _beat(wire: Wire) -> None:
    """Send heartbeats, because a silent agent is treated as stuck."""
    with suppress(OSError):
        while True:
            time.sleep(BEAT_SECONDS)
            wire.send(beat=True)


def _message(wire: Wire) -> dict[str, Any]:
    message = wire.receive()
    if not isinstance(message, dict):
        raise ProtocolError("the controller is gone")
    return message


def _end_agent_before(folder: Path) -> None:
    """End the agent of a broken connection, which may not have noticed that it broke."""
    file = folder / "agent"
    with suppress(OSError, ValueError):
        pid, started = file.read_text().split()
        if _started(int(pid)) == started:
            os.kill(int(pid), signal.SIGKILL)
    file.write_text(f"{os.getpid()} {_started(os.getpid())}")


def _started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _write_all(fd: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    sys.exit(main())
