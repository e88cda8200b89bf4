"""The agent's talk with the controller: it fixes the image, says what it is, and then bundles it or streams it."""

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
"""Exit code when the controller is gone: what is fixed stays so, for the next agent."""


def main() -> int:
    """Talk over standard input and output until all is done."""
    out = os.dup(1)
    os.dup2(2, 1)  # whatever prints must not get between the frames
    wire = Wire(lambda count: os.read(0, count), lambda block: _write_all(out, block))
    try:
        wire.handshake()
        threading.Thread(target=_beat, args=(wire,), daemon=True).start()
        _run(wire)
    except AgentError as trouble:
        wire.send(error=str(trouble), hint=trouble.hint)
        return 1
    except (ProtocolError, BrokenPipeError):
        return GONE
    except Exception as error:  # noqa: BLE001 - the controller is told whatever it is, and the user sees no traceback
        wire.send(error=f"the agent on the machine failed: {type(error).__name__}: {error}", hint="")
        return 1
    return 0


def _run(wire: Wire) -> None:
    order = _message(wire)
    folder = memory_folder()
    _end_agent_before(folder)

    def say(text: str) -> None:
        wire.send(say=text)

    fixed = known(folder)
    if fixed is None:
        order["exclude"] = tuple(order["exclude"])
        fixed = prepare(BundleRequest(**order), folder, say)
    wire.send(
        method=fixed.method,
        size=fixed.size,
        modified=fixed.modified,
        extents=fixed.extents,
        hygiene=reported(folder),
    )
    order = _message(wire)
    if order["do"] == "stream":
        stream(wire, fixed)
    else:
        bundle(wire, fixed, order)
    # The image stays until the machine ends: a controller that dies before it has noted the end comes again.
    wire.send(ended=True)


def stream(wire: Wire, fixed: RootImage) -> None:
    """Give the controller the image's data, and wait until it has all. Raises AgentError, ProtocolError."""
    for block in ahead(fixed.blocks(), depth=4):
        wire.send_data(block)
    if _message(wire).get("do") != "end":
        raise ProtocolError("the controller did not say that it has all")


def bundle(wire: Wire, fixed: RootImage, order: dict[str, Any]) -> None:
    """Bundle the image and send its parts; return when the controller has sealed them. Raises AgentError.

    Head and tail of the tar come from the controller, and are no secret; key and IV are.
    """
    answers = Answers()
    ended = threading.Event()
    threading.Thread(target=_listen, args=(wire, answers, ended), daemon=True).start()
    sender = Sender(wire, answers)
    digest = hashlib.sha1()  # noqa: S324 - the format's
    meter = _Meter(wire, fixed.data_bytes)

    def tar() -> Iterator[bytes]:
        pieces = chain([base64.b64decode(order["head"])], fixed.blocks(), [bytes(order["tail"])])
        for block in in_sizes(pieces, BLOCK_BYTES):  # what is deflated must not depend on how the disk was read
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
    """Hand answers to who waits for them. A controller that is gone ends this process at once."""
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
    """Tells now and then how much of the data has been read."""

    def __init__(self, wire: Wire, total: int) -> None:
        self._wire = wire
        self._total = total
        self._done = 0
        self._told = time.monotonic()

    def count(self, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._told > PROGRESS_SECONDS:
            self._told = now
            self._wire.send(done=min(self._done, self._total), of=self._total)


def _beat(wire: Wire) -> None:
    """Say now and then that we live, however long something takes: who says nothing is taken for stuck."""
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
    """Of a connection that broke: it may not have noticed yet."""
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
