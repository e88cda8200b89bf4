"""Time builds with shared state against builds with local state, when each write to the state takes 20 ms.

    .venv/bin/python benchmarks/shared_state.py

As root, on the machine that `make setup .setup/system-test` prepared. Machines consist of an sshd, so nothing boots.
The state is in the same cloud's S3, where a fault holds each PutObject back. A pair of builds runs at the same time, so
that other work on the machine affects both. First the cloud is as slow as EC2, and all pairs run at once, because they
wait nearly all of the time. Then, for comparison, it answers at once, and the pairs run one after the other.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import boto3
from endpoint import Endpoint, arguments, cloud, table
from waits import DELAYS

WRITE_SECONDS = 0.02
MOST = 1.1
BUCKET = "bench-state"
LOCAL, SHARED = "local state", "shared state"
PAIRS = 3
Walls = Mapping[str, list[float]]


def main() -> int:
    runs = arguments("times builds with shared state against local state", 5).runs
    with cloud(driver="sshd") as end:
        _client(end).create_bucket(Bucket=BUCKET)
        end.admin("POST", "faults", {"effect": "delay", "action": "s3:PutObject", "seconds": WRITE_SECONDS})
        _pair(end, "first")  # fills caches, and is not counted
        end.admin("POST", "delays", DELAYS[0])
        with ThreadPoolExecutor(PAIRS) as pool:
            slow = _walls(list(pool.map(lambda number: _pair(end, f"slow-{number}"), range(PAIRS))))
        end.admin("POST", "delays", dict.fromkeys(DELAYS[0], 0))
        quick = _walls([_pair(end, f"quick-{number}") for number in range(runs)])
    ratio = _ratio(slow)
    table([*_rows("a cloud as slow as EC2", slow, f"{ratio:.2f} (at most {MOST})")])
    print()
    table([*_rows("a cloud that answers at once", quick, f"{_ratio(quick):.2f} (for comparison)")])
    print("within its target" if ratio <= MOST else "NOT within its target")
    return 0 if ratio <= MOST else 1


def _pair(end: Endpoint, name: str) -> dict[str, float]:
    """Run one build of each kind at the same time; return their wall seconds."""
    settings = {LOCAL: {}, SHARED: {"IMAGEPIPE_STATE": f"s3://{BUCKET}/{name}"}}

    def build(kind: str) -> float:
        own = f"{name}-{kind.partition(' ')[0]}"
        command = end.imagepipe(end.spec(own))
        folder = end.folder / f"of-{own}"
        folder.mkdir()
        return replace(end, folder=folder).run(command, settings[kind]).wall

    with ThreadPoolExecutor(len(settings)) as pool:
        return dict(zip(settings, pool.map(build, settings), strict=True))


def _walls(pairs: Sequence[Mapping[str, float]]) -> Walls:
    return {kind: [pair[kind] for pair in pairs] for kind in (LOCAL, SHARED)}


def _ratio(walls: Walls) -> float:
    return statistics.median(b / a for a, b in zip(walls[LOCAL], walls[SHARED], strict=True))


def _client(end: Endpoint) -> Any:
    return boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=end.url,
        aws_access_key_id=end.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=end.env["AWS_SECRET_ACCESS_KEY"],
    )


def _rows(title: str, walls: Walls, ratio: str) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [(title, "wall, median", "all", "shared / local")]
    for kind, each in walls.items():
        shown = ", ".join(f"{seconds:.1f}" for seconds in each)
        rows.append((kind, f"{statistics.median(each):.1f} s", f"{shown} s", ratio if kind == SHARED else ""))
    return rows


if __name__ == "__main__":
    sys.exit(main())
