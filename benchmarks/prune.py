"""Time `images prune` over 2,000 images in 17 regions, at EC2's request rates, and count its calls.

    .venv/bin/python benchmarks/prune.py [--bakes 118]

A gateway in this process has the bakes of one spec, each with an image in every region. The client waits for EC2's
token buckets (`cloud/rate_limit.py`), as it does on AWS. The dry run examines all of them; then `--yes` does the first
step of all that are superfluous. A second, smaller account shows how the number of calls grows.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed wheel comes first

from endpoint import table  # noqa: E402

from imagepipe.clock import SystemClock  # noqa: E402
from imagepipe.cloud import tags  # noqa: E402
from imagepipe.cloud.ec2 import Regions  # noqa: E402
from imagepipe.cloud.rate_limit import Pace  # noqa: E402
from imagepipe.cloud.session import Access, Session  # noqa: E402
from imagepipe.engine.cancel import Cancel  # noqa: E402
from imagepipe.local.aws.state.records import Image  # noqa: E402
from imagepipe.retention.decide import decide  # noqa: E402
from imagepipe.retention.record import RetirementRecord  # noqa: E402
from imagepipe.retention.retire import Retirer  # noqa: E402
from imagepipe.retention.rules import RuleBook, Rules  # noqa: E402
from imagepipe.retention.survey import survey  # noqa: E402
from tests.local.aws.harness import KEY_ID, SECRET, Cloud, bake, image  # noqa: E402

REGIONS = 17
MOST_SECONDS = 60.0
KEPT = 5
PLACES = (
    "us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1", "eu-west-1", "eu-west-2",
    "eu-west-3", "eu-central-1", "eu-north-1", "ap-south-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3",
    "ap-southeast-1", "ap-southeast-2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement."""

    images: int
    superfluous: int
    seconds: float
    calls: int


def main() -> int:
    parser = argparse.ArgumentParser(description="times images prune")
    parser.add_argument("--bakes", type=int, default=118, help="bakes, each in 17 regions (118: 2,006 images)")
    count = parser.parse_args().bakes
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    small, large, step = measure(count // 10, steps=False), measure(count, steps=False), measure(count, steps=True)
    rows = [["prune", "images", "superfluous", "wall", "calls", "target"]]
    names = ("dry run, a tenth", "dry run", "first step of all (--yes)")
    for name, each in zip(names, (small, large, step), strict=True):
        wanted = f"under {MOST_SECONDS:.0f} s" if each is large else "for comparison"
        rows.append([name, str(each.images), str(each.superfluous), f"{each.seconds:.1f} s", str(each.calls), wanted])
    table(rows)
    is_good = large.seconds < MOST_SECONDS
    print("within the target" if is_good else "NOT within the target")
    return 0 if is_good else 1


def measure(bakes: int, *, steps: bool) -> Measured:
    """Fill an account, and examine it; with `steps`, also do the first step of every superfluous bake."""
    with tempfile.TemporaryDirectory() as folder:
        cloud = Cloud(root=Path(folder))
        cloud.start()
        try:
            _fill(cloud, bakes)
            return _measure(cloud, bakes, Path(folder), steps=steps)
        finally:
            cloud.stop()


def _measure(cloud: Cloud, bakes: int, folder: Path, *, steps: bool) -> Measured:
    clock = SystemClock()
    access = Access(endpoint_url=cloud.endpoint, region=PLACES[0], access_key_id=KEY_ID, secret_access_key=SECRET)
    regions = Regions(Session(access, Pace(clock)), clock)
    book = RuleBook({("web", ""): Rules(KEPT, regions=PLACES)})
    before = _calls(cloud)
    start = time.perf_counter()
    decisions = decide(regions, survey(regions, PLACES), book, clock.now())
    superfluous = [each for each in decisions if each.verdict == "retire"]
    assert len(superfluous) == bakes - KEPT, [each.problem for each in decisions]
    if steps:
        record = RetirementRecord(folder / "retired.jsonl", {}, clock)
        done = Retirer(regions, Cancel(clock), clock, record).retire_all(decisions)
        assert sum(len(each.images) for each in done) == len(superfluous) * REGIONS, [each.problem for each in done]
    seconds = time.perf_counter() - start
    return Measured(bakes * REGIONS, len(superfluous) * REGIONS, seconds, _calls(cloud) - before)


def _calls(cloud: Cloud) -> int:
    return sum(cloud.admin("GET", "calls").values())


def _fill(cloud: Cloud, bakes: int) -> None:
    """Write the records of images, all of one snapshot: to make them one by one would take minutes."""
    from dataclasses import replace

    ec2 = cloud.client()
    first = bake(ec2, "web-0")
    snapshot = str(image(ec2, first)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])
    database = cloud.gateway.backend.database
    with database.change():
        original = database.images.get(first)
        disk = database.snapshots.get(snapshot)
        assert isinstance(original, Image)
        assert disk is not None
        for place, region in enumerate(PLACES):
            for number in range(bakes):
                ending = f"{place:04x}{number:04x}".rjust(17, "0")
                own = {tags.SPEC: "web", tags.RUN: f"run{number}", tags.STATE: tags.KEPT}
                database.put(
                    replace(
                        original,
                        id=f"ami-{ending}",
                        region=region,
                        name=f"web-{number}",
                        tags=own,
                        created=original.created - timedelta(hours=bakes - number),
                    )
                )
        database.remove(original)


if __name__ == "__main__":
    sys.exit(main())
