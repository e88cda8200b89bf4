"""Measure the local cloud's endpoint alone: the cost of a call by the number of objects, the memory over many rounds.

    .venv/bin/python benchmarks/gateway.py [--rounds 2000]

Starts a gateway without machines in a process of its own, fills a bucket, and prints two tables: milliseconds of a
PutObject, a GetObject and a DescribeKeyPairs, alone and beside a client that keeps putting objects; and the memory
of the process over rounds of put, get and delete of one object of 10 MB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed wheel comes first

from endpoint import table  # noqa: E402

from tests.local.aws.harness import Cloud  # noqa: E402

SIZES = (10, 1_000, 10_000)
CALLS = 100
BODY = 10_000_000
BUCKET = "bench"
MOST_MEGABYTES = 250


def main() -> int:
    parser = argparse.ArgumentParser(description="measures the local cloud's endpoint")
    parser.add_argument("--rounds", type=int, default=2000, help="rounds of put, get and delete (2000)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve)
    print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; the median of {CALLS} calls, and the 95th percentile"
    )
    with gateway() as (cloud, process):
        rows = [["objects", "PutObject", "GetObject", "DescribeKeyPairs", "DescribeKeyPairs beside PUTs", "memory"]]
        for size in SIZES:
            fill(cloud, size)
            rows.append([f"{size:,}", *calls(cloud), f"{megabytes(process):.0f} MB"])
    table(rows)
    print(f"\nput, get and delete of {BODY // 1_000_000} MB, {given.rounds} rounds")
    with gateway() as (cloud, process):
        rows = [["rounds", "memory", "seconds"], *rounds(cloud, process, given.rounds)]
        most = peak(process)
    table(rows)
    print(f"at most {most:.0f} MB; {MOST_MEGABYTES} MB are allowed")
    return 0 if most < MOST_MEGABYTES else 1


def serve(folder: Path) -> int:
    """Serve the endpoint until standard input ends."""
    from imagepipe.local.host.processes import return_memory

    return_memory()
    cloud = Cloud(root=folder)
    cloud.start()
    print(cloud.port, flush=True)
    sys.stdin.read()
    cloud.stop()
    return 0


@contextmanager
def gateway() -> Iterator[tuple[Cloud, int]]:
    """Start an endpoint for the block; return its client and its process's id."""
    with tempfile.TemporaryDirectory(prefix="imagepipe-bench-") as folder:
        command = [sys.executable, __file__, "--serve", folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as served:
            assert served.stdin
            assert served.stdout
            cloud = Cloud(root=Path(folder), port=int(served.stdout.readline()))
            cloud.client("s3").create_bucket(Bucket=BUCKET)
            cloud.client().describe_key_pairs()  # the first call makes the default VPC
            yield cloud, served.pid
            served.stdin.close()


def fill(cloud: Cloud, size: int) -> None:
    """Fill the bucket up to so many objects."""
    pages = cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    present = sum(page["KeyCount"] for page in pages)
    s3 = cloud.client("s3")
    with ThreadPoolExecutor(4) as side:
        list(side.map(lambda n: s3.put_object(Bucket=BUCKET, Key=f"part.{n}", Body=b"x"), range(present, size)))


def calls(cloud: Cloud) -> list[str]:
    s3, ec2 = cloud.client("s3"), cloud.client()

    def put() -> None:
        s3.put_object(Bucket=BUCKET, Key="part.0", Body=b"x" * 1000)

    alone = [measured(put), measured(lambda: s3.get_object(Bucket=BUCKET, Key="part.0")["Body"].read())]
    alone.append(measured(ec2.describe_key_pairs))
    done = threading.Event()

    def keep_putting() -> None:
        other = cloud.client("s3")
        while not done.is_set():
            other.put_object(Bucket=BUCKET, Key="part.1", Body=b"x" * BODY)

    beside = threading.Thread(target=keep_putting)
    beside.start()
    try:
        return [*alone, measured(ec2.describe_key_pairs)]
    finally:
        done.set()
        beside.join()


def measured(call: Callable[[], Any]) -> str:
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1000)
    return f"{statistics.median(taken):.1f} ms ({statistics.quantiles(taken, n=20)[-1]:.1f})"


def rounds(cloud: Cloud, process: int, count: int) -> list[list[str]]:
    s3, body = cloud.client("s3"), os.urandom(BODY)
    rows = [["0", f"{megabytes(process):.0f} MB", "0"]]
    began = time.perf_counter()
    for number in range(1, count + 1):
        s3.put_object(Bucket=BUCKET, Key="part", Body=body)
        assert len(s3.get_object(Bucket=BUCKET, Key="part")["Body"].read()) == BODY
        s3.delete_object(Bucket=BUCKET, Key="part")
        if number in (count // 20, count // 4, count // 2, count):
            rows.append([f"{number:,}", f"{megabytes(process):.0f} MB", f"{time.perf_counter() - began:.0f}"])
    return rows


def megabytes(process: int, field: str = "VmRSS") -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {process} has no {field}")


def peak(process: int) -> float:
    return megabytes(process, "VmHWM")


if __name__ == "__main__":
    sys.exit(main())
