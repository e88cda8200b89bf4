"""Time builds with shared state against builds with local state, when each write to the state takes 20 ms.

    .venv/bin/python benchmarks/shared_state.py

As root, on the machine that `make setup .setup/system-test` prepared. Machines consist of an sshd, so nothing boots.
The cloud answers at once, which is the worst case: a build on EC2 makes the same writes in minutes. A second table has
a tenth of EC2's delays. The state is in the same cloud's S3, where a fault holds each PutObject back. Runs alternate,
and ratios are taken pair by pair.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import boto3
from endpoint import Endpoint, arguments, cloud, table
from waits import DELAYS

WRITE_SECONDS = 0.02
MOST = 1.1
BUCKET = "bench-state"
LOCAL, SHARED = "local state", "shared state"
SHARE_OF_DELAYS = 0.1


def main() -> int:
    runs = arguments("times builds with shared state against local state", 7).runs
    ratios = []
    with cloud(driver="sshd") as end:
        _client(end).create_bucket(Bucket=BUCKET)
        end.admin("POST", "faults", {"effect": "delay", "action": "s3:PutObject", "seconds": WRITE_SECONDS})
        for title, delays, count in (
            ("a cloud that answers at once", {}, runs),
            ("a tenth of EC2's delays", DELAYS[0], max(3, runs // 2)),
        ):
            if delays:
                end.admin("POST", "delays", {kind: seconds * SHARE_OF_DELAYS for kind, seconds in delays.items()})
            walls = _walls(end, count)
            ratios.append(statistics.median(b / a for a, b in zip(walls[LOCAL], walls[SHARED], strict=True)))
            table(_rows(title, walls, ratios[-1]))
            print()
    is_good = ratios[-1] <= MOST
    print("within its target" if is_good else "NOT within its target")
    return 0 if is_good else 1


def _walls(end: Endpoint, runs: int) -> dict[str, list[float]]:
    """Alternate both kinds of build, after one that is not counted."""
    walls: dict[str, list[float]] = {LOCAL: [], SHARED: []}
    command = end.imagepipe(end.spec("state"))
    for number in range(runs + 1):
        for kind, env in _settings(number).items():
            wall = end.run(command, env).wall
            if number:
                walls[kind].append(wall)
    return walls


def _settings(number: int) -> Mapping[str, Mapping[str, str]]:
    return {LOCAL: {}, SHARED: {"IMAGEPIPE_STATE": f"s3://{BUCKET}/{number}"}}


def _client(end: Endpoint) -> Any:
    return boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=end.url,
        aws_access_key_id=end.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=end.env["AWS_SECRET_ACCESS_KEY"],
    )


def _rows(title: str, walls: Mapping[str, list[float]], ratio: float) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [(title, "wall, median", "all", "shared / local")]
    for kind, each in walls.items():
        shown = ", ".join(f"{seconds:.2f}" for seconds in each)
        note = f"{ratio:.2f} (at most {MOST})" if kind == SHARED else ""
        rows.append((kind, f"{statistics.median(each):.2f} s", f"{shown} s", note))
    return rows


if __name__ == "__main__":
    sys.exit(main())
