"""Shared parts of the benchmarks of builds: a separate local cloud, both tools on it, and their costs.

The store is on an XFS file system in a file, where a copy of a disk is a reflink, so that the benchmarks measure the
tools and not the computer's disk. It is mounted in a mount namespace of the benchmark's own, and ends with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [str(Path(sys.executable).with_name("imagepipe"))]
STORE_BYTES = 40 << 30  # sparse
FAST = {"AWS_POLL_DELAY_SECONDS": "0", "AWS_MAX_ATTEMPTS": "100000"}
"""Packer's own settings for its polling (its amazon-ebs documentation); by default it polls every 15 s."""
SPEC = """\
imagepipe: 1
name: {name}
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch: {{region: us-east-1, ssh: {{user: admin}}}}
provision: [{{shell: {shell}, sudo: true}}]
output: {{name: "{name}-{{{{ build.id }}}}"}}
"""
COPY = "publish: {regions: [us-west-2]}\n"
_INSIDE = "IMAGEPIPE_BENCH_NAMESPACE"


@dataclass(frozen=True, slots=True)
class Cost:
    """The resources that one run used on its client and in the cloud."""

    wall: float
    cpu: float
    megabytes: float
    """The largest resident set of one process."""
    calls: int


@dataclass
class Endpoint:
    """A local cloud that serves, and the environment in which both tools find it."""

    folder: Path
    env: dict[str, str]
    packer: str
    output: str = field(default="", init=False)
    """Standard output of the last run."""
    calls: dict[str, int] = field(default_factory=dict, init=False)
    """Calls of the last run, by action."""

    @property
    def url(self) -> str:
        return self.env["AWS_ENDPOINT_URL"]

    def admin(self, method: str, name: str, body: object = None) -> Any:
        """Call the cloud's own interface."""
        data = b"" if body is None else json.dumps(body).encode()
        request = AWSRequest(method=method, url=f"{self.url}/_imagepipe/{name}", data=data)
        SigV4Auth(
            Credentials(self.env["AWS_ACCESS_KEY_ID"], self.env["AWS_SECRET_ACCESS_KEY"]), "ec2", "us-east-1"
        ).add_auth(request)
        prepared = urllib.request.Request(request.url, data=data, headers=dict(request.headers), method=method)
        with urllib.request.urlopen(prepared, timeout=10) as answer:
            return json.loads(answer.read())

    def imagepipe(self, *specs: Path) -> list[str]:
        """Return the command that builds these specs."""
        return [*COMMAND, "build", *map(str, specs), "--endpoint-url", self.url]

    def spec(self, name: str = "bench", shell: str = "echo baked >/etc/motd", *, has_copy: bool = True) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(SPEC.format(name=name, shell=json.dumps(shell)) + (COPY if has_copy else ""))
        return path

    def template(self, *names: str, shell: str = "echo baked | sudo tee /etc/motd") -> Path:
        """Write a template for packer with the work of the spec, and a builder for each name."""
        builders = [
            {
                "type": "amazon-ebs",
                "name": name,
                "custom_endpoint_ec2": self.url,
                "region": "us-east-1",
                "source_ami_filter": {
                    "filters": {"name": "debian-12-amd64-*"},
                    "owners": ["136693071363"],
                    "most_recent": True,
                },
                "instance_type": "t3.small",
                "ssh_username": "admin",
                "ami_name": f"{name}-packer-{{{{timestamp}}}}",
                "ami_regions": ["us-west-2"],
            }
            for name in names
        ]
        path = self.folder / f"{names[0]}-{len(names)}.json"
        path.write_text(json.dumps({"builders": builders, "provisioners": [{"type": "shell", "inline": [shell]}]}))
        return path

    def run(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> Cost:
        """Run one command to its end, and return its cost. It must succeed, and leave no instance."""
        return self.run_all([command], env)

    def run_all(self, commands: Sequence[Sequence[str]], env: Mapping[str, str] | None = None) -> Cost:
        """Run these commands at once, and return CPU, calls and memory of all of them together."""
        self.admin("DELETE", "calls")
        log = self.folder / "output"
        began = time.perf_counter()
        with log.open("wb") as out:
            started = [
                subprocess.Popen(command, env=self.env | dict(env or {}), cwd=ROOT, stdout=out, stderr=out)
                for command in commands
            ]
        cpu = megabytes = 0.0
        for process in started:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu += usage.ru_utime + usage.ru_stime
            megabytes += usage.ru_maxrss / 1024
        wall = time.perf_counter() - began
        self.output = log.read_text(errors="replace")
        if any(process.returncode for process in started):
            raise SystemExit(f"{commands[0][0]} failed:\n{self.output[-3000:]}")
        self.calls = self.admin("GET", "calls")
        self._sweep()
        return Cost(wall, cpu, megabytes, sum(self.calls.values()))

    def _sweep(self) -> None:
        """Wait until the cloud is idle: work that one tool left running must not slow down the next one."""
        while any(count for state, count in self.admin("GET", "instances").items() if state != "terminated"):
            time.sleep(0.1)


def arguments(description: str, runs: int) -> argparse.Namespace:
    """Parse `--runs`. First enter a mount namespace for the store; exit with 2 if something is missing."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=runs, help=f"alternating runs of each ({runs})")
    given = parser.parse_args()
    missing = [name for name in ("packer", "mkfs.xfs", "unshare") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        print(f"needs root, and {', '.join(missing) or 'nothing else'}: make setup .setup/system-test", file=sys.stderr)
        sys.exit(2)
    if _INSIDE not in os.environ:
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    return given


@contextmanager
def cloud(*, driver: str) -> Iterator[Endpoint]:
    """Run a cloud with this driver for the block; SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    packer = shutil.which("packer")
    assert packer
    version = subprocess.run([packer, "version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    print(f"{os.cpu_count()} cores, {system}; {version}; driver {driver}")
    with tempfile.TemporaryDirectory(prefix="imagepipe-bench-") as name, _store(Path(name)) as store:
        folder = Path(name)
        env = {**os.environ, "XDG_STATE_HOME": f"{folder}/state", "IMAGEPIPE_LOCAL_STORE": str(store)}
        env |= {"IMAGEPIPE_LOCAL_BASE_CACHE": _base_cache(), "IMAGEPIPE_LOCAL_DRIVER": driver}
        env |= {"CHECKPOINT_DISABLE": "1", "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(folder)}
        serving = subprocess.Popen(
            [*COMMAND, "local", "serve", "--env"], env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        try:
            yield Endpoint(folder, env | _exports(serving), packer)
        finally:
            subprocess.run([*COMMAND, "local", "stop", "--force"], env=env, cwd=ROOT, capture_output=True, check=False)
            serving.send_signal(signal.SIGTERM)
            serving.wait(60)


def _base_cache() -> str:
    """Return the folder that keeps the base image between runs: the user's own, before HOME changes."""
    sys.path.append(str(ROOT))  # last: an installed wheel comes first
    from imagepipe.local.store import default_base_cache, default_root

    return str(default_base_cache(os.environ) or default_root(os.environ) / "base")


@contextmanager
def _store(folder: Path) -> Iterator[Path]:
    disk, place = folder / "store.xfs", folder / "store"
    disk.touch()
    os.truncate(disk, STORE_BYTES)
    place.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(place)], check=True)
    try:
        yield place / "store"
    finally:
        subprocess.run(["umount", str(place)], check=False)


def _exports(serving: subprocess.Popen[str]) -> dict[str, str]:
    """Return the variables that `local serve --env` prints when it serves."""
    assert serving.stdout is not None
    found: dict[str, str] = {}
    for line in serving.stdout:
        name, _, value = line.removeprefix("export ").strip().partition("=")
        found[name] = value.strip("'\"")
        if len(found) == 4:
            return found
    raise SystemExit("the local cloud did not start")


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print a table as Markdown has it; the first row is its head."""
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        print(f"| {' | '.join(row)} |")
