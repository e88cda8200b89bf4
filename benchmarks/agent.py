"""Time the bundling agent: against the classic pipe on the same image, and with an S3 of limited bandwidth.

    .venv/bin/python benchmarks/agent.py --runs 3

The agent is the program that instances get, run over SSH by an OpenSSH server on loopback, without the steps
that fix the image (scrub, read-only root): its image is a file in memory. S3 is a small server in a process of its own,
which checks digests and keeps nothing. The classic pipe is that of benchmarks/bundle.py, with its parts in memory.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import multiprocessing
import os
import platform
import random
import shlex
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Event
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed wheel comes first

from benchmarks.bundle import AES_WORDS, KEYS, _mix, _pipe, _print  # noqa: E402
from imagepipe.bundle.certificates import load_certificate, load_owner  # noqa: E402
from imagepipe.bundle.cipher import Secret  # noqa: E402
from imagepipe.bundle.extents import Extent  # noqa: E402
from imagepipe.bundle.manifest import Label, Manifest, Recipients  # noqa: E402
from imagepipe.capture import agent_loader  # noqa: E402
from imagepipe.capture.agent.frames import Wire  # noqa: E402
from imagepipe.capture.instance_store.agent_messages import PreparedRoot  # noqa: E402
from imagepipe.capture.instance_store.on_controller import bundle_here  # noqa: E402
from imagepipe.capture.instance_store.on_instance import bundle_on_instance  # noqa: E402
from imagepipe.capture.instance_store.s3_parts import S3Parts  # noqa: E402
from imagepipe.clock import Deadline, SystemClock  # noqa: E402
from imagepipe.cloud.s3 import S3  # noqa: E402
from imagepipe.cloud.session import Access, Session  # noqa: E402
from imagepipe.communicator.dialogue import open_dialogue  # noqa: E402
from imagepipe.communicator.ssh import Connection, Watch, connect  # noqa: E402
from imagepipe.engine.cancel import Cancel  # noqa: E402
from imagepipe.engine.events import Events  # noqa: E402
from imagepipe.engine.journal import RunRecord  # noqa: E402
from imagepipe.engine.stage import Context  # noqa: E402
from imagepipe.masking import Masker  # noqa: E402
from tests import run_folders  # noqa: E402
from tests.communicator.sshd import sshd  # noqa: E402

MIB = 1 << 20
DENSE_BYTES = 1 << 30
PIECE_BYTES = 256 << 10
MEMORY_MIB = 200
INSTANCE_LIMIT, CONTROLLER_LIMIT = 15, 50  # MB/s

# Replaces the agent's `main`: the image is fixed already. It reports its memory at the end.
_MAIN = """
import os, resource, sys
from imagepipe.bundle.extents import Extent
from imagepipe.capture.agent import main as agent
from imagepipe.capture.agent.root_image import RootImage
from imagepipe.capture.agent.frames import Wire
def main():
    out = os.dup(1)
    os.dup2(2, 1)
    wire = Wire(lambda count: os.read(0, count), lambda block: agent._write_all(out, block))
    order = wire.receive()
    fixed = RootImage("block", order["path"], order["size"], [Extent(0, order["size"])], 0)
    order = wire.receive()
    agent.stream(wire, fixed) if order["do"] == "stream" else agent.bundle(wire, fixed, order)
    wire.send(say="peak %d" % resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    wire.send(ended=True)
    return 0
"""


class Bucket:
    """A limit of bytes a second, shared by all uploads."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free_at = time.monotonic()
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + count / self._rate
            pause = self._free_at - time.monotonic()
        if pause > 0:
            time.sleep(pause)


def _serve(port: int, bytes_per_second: float | None, ready: Event) -> None:
    """Serve the part of S3 that a bundle needs."""
    bucket = Bucket(bytes_per_second) if bytes_per_second else None
    kept: dict[str, tuple[int, str]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            if self.headers.get("Expect") == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            left, digest = int(self.headers["Content-Length"]), hashlib.md5(usedforsecurity=False)
            size = left
            while left:
                piece = self.rfile.read(min(PIECE_BYTES, left))
                if bucket:
                    bucket.take(len(piece))
                digest.update(piece)
                left -= len(piece)
            is_right = base64.b64encode(digest.digest()).decode() == self.headers["Content-MD5"]
            if is_right:
                kept[self.path.partition("?")[0]] = (size, digest.hexdigest())
            self._answer(200 if is_right else 400, {"ETag": f'"{digest.hexdigest()}"'})

        def do_GET(self) -> None:  # a listing, always empty
            body = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
            self._answer(200, {"Content-Type": "application/xml"}, len(body))
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            found = kept.get(self.path)
            self._answer(200 if found else 404, {"ETag": f'"{found[1]}"'} if found else {}, found[0] if found else 0)

        def _answer(self, status: int, headers: dict[str, str], size: int = 0) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(size)}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    ready.set()
    server.serve_forever()


@contextmanager
def s3_server(megabytes_per_second: float | None = None) -> Iterator[S3]:
    """Start such a server in a process of its own, and return a client for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    rate = megabytes_per_second * 1e6 if megabytes_per_second else None
    process = fork.Process(target=_serve, args=(port, rate, ready), daemon=True)
    process.start()
    ready.wait(10)
    access = Access(
        endpoint_url=f"http://127.0.0.1:{port}", region="us-east-1", access_key_id="bench", secret_access_key="bench"
    )
    try:
        yield S3(Session(access), "us-east-1", SystemClock())
    finally:
        process.terminate()
        process.join()


class Bench:
    """An image, and the ways to bundle it."""

    def __init__(self, folder: Path, connection: Connection) -> None:
        self.folder = folder
        self.connection = connection
        self.peak_mib = 0
        clock = SystemClock()
        self._cancel = Cancel(clock)
        self._watch = Watch(lambda _, text: print(text, file=sys.stderr), Deadline.after(3600, clock), self._cancel)
        journal = run_folders.create(folder / "r1", RunRecord("r1", "2026-11-23T00:00:00Z", (), {}, {}), clock)
        events = Events("r1", clock, Masker(), [])
        self.context = Context("bundle", {}, journal, events, self._cancel, clock)
        self.recipients = Recipients(
            load_owner(KEYS / "user-cert.pem", KEYS / "user-key.pem"), load_certificate(KEYS / "ec2-cert.pem")
        )

    def bundle(self, image: Path, s3: S3, *, bundler: Callable[..., Manifest] = bundle_on_instance) -> int:
        """Bundle the image, and return the size of the bundle in bytes."""
        size = image.stat().st_size
        with open_dialogue(self.connection, _command(), self._watch) as dialogue:
            dialogue.write(_program())
            wire = _Noted(dialogue.read, dialogue.write)
            wire.send(path=str(image), size=size)
            manifest = bundler(
                self.context,
                wire,
                PreparedRoot("block", size, 0, (Extent(0, size),)),
                S3Parts(s3, "bucket", "folder"),
                label=Label("image", "0" * 12),
                secret=Secret.new(),
                recipients=self.recipients,
            )
        self.peak_mib = max(self.peak_mib, wire.peak_kib >> 10)
        return manifest.bundled_size

    def classic(self, image: Path) -> None:
        shutil.rmtree(self.folder / "classic", ignore_errors=True)
        (self.folder / "classic").mkdir()
        _pipe(
            f"tar -c {image.name} | tee >(sha1sum >classic/image.sha1) | gzip -6 | openssl enc {AES_WORDS} "
            "| split -b 10485760 -d -a 3 - classic/part. && sha1sum classic/part.* >classic/parts.sha1",
            self.folder,
        )

    def classic_size(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "classic").glob("part.*"))


class _Noted(Wire):
    """Records the memory that the agent reports."""

    peak_kib = 0

    def receive(self) -> dict[str, object] | bytes | None:
        heard = super().receive()
        if isinstance(heard, dict) and str(heard.get("say", "")).startswith("peak "):
            self.peak_kib = int(str(heard["say"]).split()[1])
            return {"say": ""}
        return heard


def _command() -> str:
    """Return the agent's command, without sudo: the SSH user is the one who runs this benchmark."""
    return shlex.join(["sh", "-c", agent_loader._FIND, "imagepipe-agent", agent_loader._LOADER])


def _program() -> bytes:
    modules = [(name, agent_loader._source(name)) for name in agent_loader.MODULES]
    content = json.dumps([*modules, ("imagepipe.bench", _MAIN)]).encode()
    return struct.pack(">I", len(content)) + content


def _noise(path: Path, size: int) -> None:
    generator = random.Random(2)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(generator.randbytes(MIB))


def _timed(go: Callable[[], int | None]) -> tuple[float, int]:
    began = time.perf_counter()
    size = go()
    return time.perf_counter() - began, size or 0


def main() -> int:
    parser = argparse.ArgumentParser(description="times the bundling agent")
    parser.add_argument("--runs", type=int, default=3, help="rounds (3)")
    words = parser.parse_args()
    memory = Path("/dev/shm")
    folder = memory if shutil.disk_usage(memory).free > 4 << 30 else None
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=folder) as name, sshd(Path(name) / "sshd") as server:
        connection = connect(server.endpoint)
        bench = Bench(Path(name), connection)
        dense, noise, more_noise = (Path(name) / each for each in ("dense", "noise", "more-noise"))
        _mix(dense, DENSE_BYTES)
        _noise(noise, 256 * MIB)
        _noise(more_noise, 768 * MIB)
        ours: list[float] = []
        theirs: list[float] = []
        size = 0
        with s3_server() as s3:
            for number in range(words.runs):
                seconds, size = _timed(lambda: bench.bundle(dense, s3))
                ours.append(seconds)
                theirs.append(_timed(lambda: bench.classic(dense))[0])
                print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        classic_size = bench.classic_size()
        with s3_server(INSTANCE_LIMIT) as s3:
            seconds, sent = _timed(lambda: bench.bundle(noise, s3))
            from_instance = sent / seconds / 1e6
        with s3_server(CONTROLLER_LIMIT) as s3:
            seconds, sent = _timed(lambda: bench.bundle(more_noise, s3, bundler=bundle_here))
            from_controller = sent / seconds / 1e6
        connection.close()

    faster = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    rows = [("what", "imagepipe", "beside it", "ratio", "target")]
    rows.append(
        (
            "bundle a dense 1 GiB image, agent",
            f"{statistics.median(ours):.1f} s",
            f"classic pipe {statistics.median(theirs):.1f} s",
            f"{faster:.1f} times as fast (median of pairs)",
            "at least 3",
        )
    )
    rows.append(
        (
            "size of that bundle",
            f"{size / MIB:.0f} MiB",
            f"gzip -6 {classic_size / MIB:.0f} MiB",
            f"{size / classic_size:.3f}",
            "at most 1.08",
        )
    )
    for what, found, limit in (
        ("256 MiB of noise from the agent", from_instance, INSTANCE_LIMIT),
        ("768 MiB of noise, bundle_on: controller", from_controller, CONTROLLER_LIMIT),
    ):
        rows.append(
            (what, f"{found:.1f} MB/s", f"S3 takes {limit} MB/s", f"{found / limit:.0%}", "at least 90 %"),
        )
    rows.append(("memory of the agent, at its peak", f"{bench.peak_mib} MiB", "", "", f"at most {MEMORY_MIB} MiB"))
    _print(rows)
    is_good = (
        faster >= 3
        and size <= 1.08 * classic_size
        and from_instance >= 0.9 * INSTANCE_LIMIT
        and from_controller >= 0.9 * CONTROLLER_LIMIT
        and bench.peak_mib <= MEMORY_MIB
    )
    print("all within their targets" if is_good else "NOT within the targets")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
