"""However large the image is, packing and unpacking it take less than 200 MB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundle.samples import CASES

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 200_000_000
# Not ru_maxrss, which a process has from the one that started it: pytest's own size.
CHILD = """
import re, sys
from pathlib import Path
from imagepipe.cli.main import _exit_code
sys.argv[0] = "imagepipe"
code = _exit_code()
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024, code)
"""


def _most_memory(*words: str | Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "bundle", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    memory, code = done.stdout.split()[-2:]
    assert code == "0", done.stderr
    return int(memory)


@pytest.mark.parametrize("kind", ["few large extents", "many small extents"])
def test_packing_and_unpacking_gigabytes_takes_little_memory(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "image"
    noise = (CASES / "euca/image.part.00").read_bytes()
    with image.open("wb") as file:
        if kind == "few large extents":
            for number in range(6):
                file.seek(number << 30)
                file.write(noise + bytes(1 << 20))
        else:
            for number in range(10_000):
                file.seek(number * (256 << 10))
                file.write(noise[number * 512 : number * 512 + 4096])
        file.truncate((6 << 30) + 12345)
    out = tmp_path / "out"
    pack = _most_memory(
        *("pack", image, "--certificate", CASES / "user-cert.pem", "--private-key", CASES / "user-key.pem"),
        *("--account", "123456789012", "--ec2-certificate", CASES / "ec2-cert.pem", "--output", out),
    )
    unpack = _most_memory("unpack", out / "image.manifest.xml", "--private-key", CASES / "ec2-key.pem", "--output", out)
    print(f"{kind}: pack {pack / 1e6:.0f} MB, unpack {unpack / 1e6:.0f} MB")  # noqa: T201 - pytest -s shows it
    assert (pack < MOST_BYTES, unpack < MOST_BYTES) == (True, True), (pack, unpack)
    again = (out / "image").stat()
    assert again.st_size == (6 << 30) + 12345
    assert again.st_blocks <= image.stat().st_blocks
