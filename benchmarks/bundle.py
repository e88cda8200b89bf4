"""Time instance-store bundles: ours against the classic pipe of tar, gzip, openssl and split, on the same image.

    .venv/bin/python benchmarks/bundle.py --runs 3

Each round runs every way once, so that other work on the machine affects all of them. Figures are medians; ratios are
taken round by round. Each way is a whole process or pipe, and its CPU time is that of all cores. The files are in
memory (/dev/shm) if there is room, because the disk is not to be measured. The image is a mix of the files of /usr, in
an order that is always the same.
Needs openssl, GNU tar, gzip.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from isal import igzip_lib, isal_zlib

ROOT = Path(__file__).resolve().parent.parent
KEYS = ROOT / "tests/cases/bundle"
MIB = 1 << 20
DENSE_BYTES, SPARSE_BYTES, DATA_BYTES = 1 << 30, 9 << 30, 130 * MIB
AES_WORDS = "-aes-128-cbc -K 000102030405060708090a0b0c0d0e0f -iv 000102030405060708090a0b0c0d0e0f"


class Bench:
    """The images, and the ways to pack and unpack them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dense, self.data, self.sparse = (folder / name for name in ("dense", "data", "sparse"))
        _mix(self.dense, DENSE_BYTES)
        with self.dense.open("rb") as source, self.data.open("wb") as data, self.sparse.open("wb") as sparse:
            for number in range(13):  # thirteen runs of 10 MiB, spread over 9 GiB
                content = source.read(DATA_BYTES // 13)
                data.write(content)
                sparse.seek(number * (SPARSE_BYTES // 13))
                sparse.write(content)
            sparse.truncate(SPARSE_BYTES)

    def pack(self, image: Path) -> None:
        words = ["--certificate", KEYS / "user-cert.pem", "--private-key", KEYS / "user-key.pem", "--account", "0" * 12]
        words += ["--ec2-certificate", KEYS / "ec2-cert.pem", "--name", image.name, "--output", self._ours(image)]
        _imagepipe("pack", image, *words, "--force")

    def unpack(self, image: Path) -> None:
        manifest = self._ours(image) / f"{image.name}.manifest.xml"
        words = ["--private-key", KEYS / "user-key.pem", "--output", self.folder / "unpacked", "--force"]
        _imagepipe("unpack", manifest, *words)

    def classic_pack(self) -> None:
        theirs = self.folder / "classic"
        shutil.rmtree(theirs, ignore_errors=True)
        theirs.mkdir()
        _pipe(
            f"tar -c dense | tee >(sha1sum >classic/image.sha1) | gzip -6 | openssl enc {AES_WORDS} "
            "| split -b 10485760 -d -a 3 - classic/part. && sha1sum classic/part.* >classic/parts.sha1",
            self.folder,
        )

    def classic_unpack(self) -> None:
        (self.folder / "classic-out").mkdir(exist_ok=True)
        _pipe(f"cat classic/part.* | openssl enc -d {AES_WORDS} | gzip -d | tar -x -C classic-out", self.folder)

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of our bundle of the dense image, and of the pipe's."""
        ours, theirs = self._ours(self.dense).glob("*.part.*"), (self.folder / "classic").glob("part.*")
        return sum(path.stat().st_size for path in ours), sum(path.stat().st_size for path in theirs)

    def check(self) -> None:
        """Check that the unpacked files equal the images."""
        for image in (self.dense, self.data):
            subprocess.run(["cmp", image, self.folder / "unpacked" / image.name], check=True)

    def _ours(self, image: Path) -> Path:
        return self.folder / f"bundle-{image.name}"


def _mix(path: Path, size: int) -> None:
    """Write so many bytes of the files of /usr, shuffled by a fixed seed."""
    found = sorted(each for each in Path("/usr").rglob("*") if each.is_file() and not each.is_symlink())
    random.Random(1).shuffle(found)
    with path.open("wb") as mix:
        for each in found:
            mix.write(each.read_bytes()[: size - mix.tell()])
            if mix.tell() == size:
                return
    raise SystemExit(f"/usr has less than {size >> 20} MiB")


def _imagepipe(*words: object) -> None:
    command = [str(Path(sys.executable).with_name("imagepipe")), "bundle", *map(str, words)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True, timeout=600)


def _pipe(command: str, folder: Path) -> None:
    subprocess.run(["bash", "-c", f"set -eo pipefail; {command}"], cwd=folder, check=True, timeout=900)


class Times(NamedTuple):
    """The seconds that one way took, round by round."""

    wall: list[float]
    cpu: list[float]

    def __str__(self) -> str:
        return f"{statistics.median(self.wall):.2f} s (CPU {statistics.median(self.cpu):.1f} s)"


def _rounds(ways: dict[str, Callable[[], None]], runs: int) -> dict[str, Times]:
    """Run all ways, round by round, and return their times."""
    times = {way: Times([], []) for way in ways}
    for number in range(runs):
        for way, go in ways.items():
            began, used = time.perf_counter(), _children()
            go()
            times[way].wall.append(time.perf_counter() - began)
            times[way].cpu.append(_children() - used)
        print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return times


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _limits(image: Path) -> Iterator[tuple[str, float]]:
    """Measure the MiB/s of each step alone, on one core, over 256 MiB."""
    with image.open("rb") as file:
        blocks = [file.read(MIB) for _ in range(256)]
    packed = igzip_lib.compress(b"".join(blocks), 3, flag=igzip_lib.COMP_GZIP)
    encryptor = Cipher(AES(bytes(16)), CBC(bytes(16))).encryptor()
    decryptor = Cipher(AES(bytes(16)), CBC(bytes(16))).decryptor()
    digest = hashlib.sha1(usedforsecurity=False)
    steps: dict[str, Callable[[], object]] = {
        "SHA-1": lambda: [digest.update(block) for block in blocks],
        "AES-128-CBC, encrypting": lambda: [encryptor.update(block) for block in blocks],
        "AES-128-CBC, decrypting": lambda: [decryptor.update(block) for block in blocks],
        "deflate, isal 2": lambda: [isal_zlib.compress(block, 2) for block in blocks],
        "deflate, isal 3 (taken)": lambda: [isal_zlib.compress(block, 3) for block in blocks],
        "deflate, zlib 6": lambda: [zlib.compress(block, 6) for block in blocks[::8]],
        "inflate, isal": lambda: igzip_lib.decompress(packed, flag=igzip_lib.DECOMP_GZIP),
        "inflate, zlib": lambda: zlib.decompress(packed, 31),
    }
    for name, step in steps.items():
        began = time.process_time()
        step()
        yield name, (32 if name == "deflate, zlib 6" else 256) / (time.process_time() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description="times instance-store bundles")
    parser.add_argument("--runs", type=int, default=3, help="rounds (3)")
    parser.add_argument("--folder", type=Path, help="where the images and bundles are, some 5 GB")
    words = parser.parse_args()
    memory = Path("/dev/shm")
    folder = words.folder or (memory if shutil.disk_usage(memory).free > 8 << 30 else None)
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        bench = Bench(Path(name))
        pack, unpack = "pack, dense 1 GiB", "unpack, dense 1 GiB"
        data, sparse = "130 MiB alone", "9 GiB with these 130 MiB"
        ways = {
            pack: lambda: bench.pack(bench.dense),
            f"{pack}: classic": bench.classic_pack,
            unpack: lambda: bench.unpack(bench.dense),
            f"{unpack}: classic": bench.classic_unpack,
            f"pack, {data}": lambda: bench.pack(bench.data),
            f"pack, {sparse}": lambda: bench.pack(bench.sparse),
            f"unpack, {data}": lambda: bench.unpack(bench.data),
            f"unpack, {sparse}": lambda: bench.unpack(bench.sparse),
        }
        times = _rounds(ways, words.runs)
        bench.check()
        ours, theirs = bench.sizes()
        limits = list(_limits(bench.dense))

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[one].wall, times[other].wall, strict=True))

    rows = [("what", "imagepipe", "beside it", "ratio, median of pairs", "target")]
    is_good = ours <= 1.08 * theirs
    for what, least in ((pack, 10.0), (unpack, 2.0)):
        beside = f"{what}: classic"
        found = ratio(beside, what)
        is_good &= found >= least
        row = (
            what,
            str(times[what]),
            f"classic pipe {times[beside]}",
            f"{found:.1f} times as fast",
            f"at least {least}",
        )
        rows.append(row)
    size = (f"{ours / MIB:.0f} MiB", f"gzip -6 {theirs / MIB:.0f} MiB", f"{ours / theirs:.3f}", "at most 1.08")
    rows.append(("size of that bundle", *size))
    for verb in ("pack", "unpack"):
        what, beside = f"{verb}, {sparse}", f"{verb}, {data}"
        found = ratio(what, beside)
        is_good &= found <= 1.5
        rows.append((what, str(times[what]), f"{data} {times[beside]}", f"{found:.2f}", "at most 1.50"))
    _print(rows)
    print()
    _print([("one step alone, one core", "MiB/s"), *((step, f"{speed:.0f}") for step, speed in limits)])
    print("all within their targets" if is_good else "NOT within the targets")
    return 0 if is_good else 1


def _print(rows: list[tuple[str, ...]]) -> None:
    for row in (rows[0], tuple("---" for _ in rows[0]), *rows[1:]):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    sys.exit(main())
