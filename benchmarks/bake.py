"""Measure a bake on the local cloud: time from nothing, a second bake and imagepipe's own share, disk of copies.

    .venv/bin/python benchmarks/bake.py

As root, on the machine that `make setup` prepared. Uses a store of its own, which it deletes. Takes some two minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [str(Path(sys.executable).with_name("imagepipe"))]
SPEC = str(ROOT / "specs" / "web-server.yaml")
LABELS = ("boot", "command", "bytes")
BAKES = 3

FOUR_REGIONS = """\
imagepipe: 1
name: regions
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch: {{region: us-east-1, ssh: {{user: admin}}}}
provision: [{{shell: "head -c 50M /dev/urandom >/var/tmp-data", sudo: true}}]
output: {{name: "regions-{{{{ build.id }}}}"}}
publish: {{regions: [{regions}]}}
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="imagepipe-bench-") as folder:
        env = {**os.environ, "XDG_STATE_HOME": f"{folder}/state", "IMAGEPIPE_LOCAL_STORE": f"{folder}/store"}
        env.pop("IMAGEPIPE_LOCAL_BASE_CACHE", None)
        try:
            _measure(Path(folder), env)
        finally:
            subprocess.run([*COMMAND, "local", "stop", "--force"], env=env, capture_output=True, check=False)


def _measure(folder: Path, env: dict[str, str]) -> None:
    rows = [("figure", "seconds", "target")]
    began = time.monotonic()
    _run(env, "demo", SPEC)
    rows.append(
        ("demo with an empty store, base image included", f"{time.monotonic() - began:.1f}", "< 360 with set-up")
    )
    walls, owns = [], []
    for _ in range(BAKES):
        began = time.monotonic()
        baked = json.loads(_run(env, "build", SPEC, "--local", "--format", "json"))
        wall = time.monotonic() - began
        walls.append(wall)
        owns.append(wall - _spent(folder / "state" / "imagepipe" / "runs" / baked["run"] / "events.jsonl"))
    rows.append(
        (f"a further bake of web-server.yaml, wall, median of {BAKES}", f"{statistics.median(walls):.1f}", "< 60")
    )
    rows.append(("  of it imagepipe's own: less boot, command and bytes", f"{statistics.median(owns):.1f}", "< 5"))
    rows += _disk(folder, env)
    for name, value, target in rows:
        print(f"{name:<58} {value:>10}   {target}")


def _disk(folder: Path, env: dict[str, str]) -> list[tuple[str, str, str]]:
    used = []
    for regions in ("", "us-west-2, eu-west-1, eu-central-1, ap-south-1"):
        spec = folder / "regions.yaml"
        spec.write_text(FOUR_REGIONS.format(regions=regions))
        before = _allocated(folder / "store")
        _run(env, "build", str(spec), "--local", "--format", "json")
        used.append((_allocated(folder / "store") - before) / 2**20)
    one, five = used
    return [
        ("disk of an image in one region, MiB", f"{one:.0f}", ""),
        ("disk of an image with copies in four more, MiB", f"{five:.0f}", "no more"),
    ]


def _run(env: dict[str, str], *words: str) -> str:
    done = subprocess.run([*COMMAND, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"imagepipe {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def _spent(events: Path) -> float:
    """Return the seconds in which at least one span with one of the labels was open."""
    spans = []
    for line in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "Span" and event["label"] in LABELS:
            end = datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()
            spans.append((end - event["seconds"], end))
    return _union(spans)


def _union(spans: Iterable[tuple[float, float]]) -> float:
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _allocated(folder: Path) -> int:
    """Count the bytes on disk; files that share a hard link count once."""
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            seen[(status.st_dev, status.st_ino)] = status.st_blocks * 512
    return sum(seen.values())


if __name__ == "__main__":
    main()
