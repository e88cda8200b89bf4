"""Time the publication of one image to 17 regions, with 20 s for each copy, against the slowest copy.

    .venv/bin/python benchmarks/publish.py

As root, on the machine that `make setup .setup/system-test` prepared. Machines consist of an sshd; the cloud delays
each copy and nothing else. The image is baked once. Then `imagepipe publish` copies it to 16 further regions, and
shares it, sets its deprecation, protects it and writes an SSM parameter in all 17. Each run publishes a new image.
The slowest copy is measured in the same run, from the request until imagepipe knows that the image is available.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from endpoint import COMMAND, Endpoint, arguments, cloud, table

COPY_SECONDS = 20.0
MOST = 1.2
"""The most that a publication may take, as a multiple of its slowest copy."""
REGIONS = (
    "us-east-2", "us-west-1", "us-west-2", "ap-south-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3",
    "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1", "eu-west-1", "eu-west-2", "eu-west-3",
    "eu-north-1", "sa-east-1",
)  # fmt: skip
"""The regions that every account has, besides us-east-1 (EC2 user guide, "Regions and Zones")."""
PUBLISH = f"""\
publish:
  regions: [{", ".join(REGIONS)}]
  share: {{accounts: ["210987654321"]}}
  deprecate_after: 90d
  deregistration_protection: true
  ssm_parameter: /images/{{{{ spec.name }}}}
"""


def main() -> int:
    runs = arguments("times the publication to 17 regions against its slowest copy", 3).runs
    walls, slowest, calls = [], [], []
    with cloud(driver="sshd") as end:
        for number in range(runs):
            spec = end.spec(f"bench-{number}")
            alone = spec.read_text().partition("publish:")[0]
            spec.write_text(alone)
            end.run(end.imagepipe(spec))
            spec.write_text(alone + PUBLISH)
            end.admin("POST", "delays", {"copy": COPY_SECONDS})
            cost = end.run([*COMMAND, "publish", str(spec), "--yes", "--endpoint-url", end.url])
            end.admin("POST", "delays", {"copy": 0})
            walls.append(cost.wall)
            slowest.append(max(_copies(end)))
            calls.append(cost.calls)
    ratio = statistics.median(wall / copy for wall, copy in zip(walls, slowest, strict=True))
    wall, copy = statistics.median(walls), statistics.median(slowest)
    table(
        [
            ("17 regions", "wall", "slowest copy", "calls", "wall / slowest copy"),
            ("imagepipe publish", f"{wall:.1f} s", f"{copy:.1f} s", f"{max(calls)}", f"{ratio:.2f} (at most {MOST})"),
        ]
    )
    print("within its target" if ratio <= MOST else "NOT within its target")
    return 0 if ratio <= MOST else 1


def _copies(end: Endpoint) -> list[float]:
    """Return the seconds that each copy of the newest run took, from its events."""
    newest = max(
        (Path(end.env["XDG_STATE_HOME"]) / "imagepipe" / "runs").iterdir(), key=lambda run: run.stat().st_mtime
    )
    events = [json.loads(line) for line in (newest / "events.jsonl").read_text().splitlines()]
    copies = [
        float(event["seconds"])
        for event in events
        if event["event"] == "StageFinished" and event["stage"].startswith("copy-")
    ]
    assert len(copies) == len(REGIONS), f"{len(copies)} copies in {newest}"
    return copies


if __name__ == "__main__":
    sys.exit(main())
