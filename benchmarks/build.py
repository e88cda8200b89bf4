"""Time a whole build against Debian's packer, on the same local cloud: a booting instance, one shell step, one copy.

    .venv/bin/python benchmarks/build.py

As root, on the machine that `make setup` prepared. Builds alternate; wall and CPU seconds (children included) and the
largest resident set are those of the client alone, by wait4(2). The cloud adds no delays of its own. Both figures
include the boot of the instance and the copy of the disk; the time that a client sleeps past an event is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [str(Path(sys.executable).with_name("imagepipe"))]
SPEC = """\
imagepipe: 1
name: bench
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}}
provision: [{shell: echo baked >/etc/motd, sudo: true}]
output: {name: "bench-{{ build.id }}"}
publish: {regions: [us-west-2]}
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """The resources that one build used on its client."""

    wall: float
    cpu: float
    megabytes: float


def main() -> int:
    parser = argparse.ArgumentParser(description="times a whole build against packer's")
    parser.add_argument("--runs", type=int, default=3, help="alternating builds of each (3)")
    runs = parser.parse_args().runs
    packer = shutil.which("packer")
    if packer is None:
        print("there is no packer on this machine: apt-get install packer", file=sys.stderr)
        return 2
    version = subprocess.run([packer, "version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    print(f"{os.cpu_count()} cores, {system}; {version}")
    with tempfile.TemporaryDirectory(prefix="imagepipe-bench-") as name:
        folder = Path(name)
        env = {**os.environ, "XDG_STATE_HOME": f"{folder}/state", "IMAGEPIPE_LOCAL_STORE": f"{folder}/store"}
        env |= {"CHECKPOINT_DISABLE": "1", "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(folder)}
        cloud = subprocess.Popen(
            [*COMMAND, "local", "serve", "--env"], env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        try:
            _measure(folder, env | _exports(cloud), packer, runs)
        finally:
            subprocess.run([*COMMAND, "local", "stop", "--force"], env=env, cwd=ROOT, capture_output=True, check=False)
            cloud.wait(60)
    return 0


def _exports(cloud: subprocess.Popen[str]) -> dict[str, str]:
    """Return the variables that `local serve --env` prints when it serves."""
    assert cloud.stdout is not None
    found: dict[str, str] = {}
    for line in cloud.stdout:
        name, _, value = line.removeprefix("export ").strip().partition("=")
        found[name] = value.strip("'\"")
        if len(found) == 4:
            return found
    raise SystemExit("the local cloud did not start")


def _measure(folder: Path, env: dict[str, str], packer: str, runs: int) -> None:
    spec, template = folder / "bench.yaml", folder / "bench.json"
    spec.write_text(SPEC)
    template.write_text(json.dumps(_template(env["AWS_ENDPOINT_URL"])))
    commands = {
        "imagepipe": [*COMMAND, "build", str(spec), "--endpoint-url", env["AWS_ENDPOINT_URL"]],
        "packer": [packer, "build", str(template)],
    }
    costs: dict[str, list[Cost]] = {by: [] for by in commands}
    for count in range(runs + 1):
        for by, command in commands.items():
            cost = _run(command, env)
            if count:  # the first of each warms the caches
                costs[by].append(cost)
    print("| a build | wall | CPU | memory | wall, ours / theirs |")
    print("| --- | --- | --- | --- | --- |")
    ratio = statistics.median(a.wall / b.wall for a, b in zip(costs["imagepipe"], costs["packer"], strict=True))
    for by, each in costs.items():
        wall, cpu, size = (statistics.median(getattr(c, f) for c in each) for f in ("wall", "cpu", "megabytes"))
        print(f"| {by} | {wall:.1f} s | {cpu:.2f} s | {size:.0f} MB | {f'{ratio:.2f}' if by == 'packer' else ''} |")


def _template(endpoint: str) -> dict[str, object]:
    builder = {
        "type": "amazon-ebs",
        "custom_endpoint_ec2": endpoint,
        "region": "us-east-1",
        "source_ami_filter": {
            "filters": {"name": "debian-12-amd64-*"},
            "owners": ["136693071363"],
            "most_recent": True,
        },
        "instance_type": "t3.small",
        "ssh_username": "admin",
        "ami_name": "packer-{{timestamp}}",
        "ami_regions": ["us-west-2"],
    }
    return {"builders": [builder], "provisioners": [{"type": "shell", "inline": ["echo baked | sudo tee /etc/motd"]}]}


def _run(command: list[str], env: dict[str, str]) -> Cost:
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    sys.exit(main())
