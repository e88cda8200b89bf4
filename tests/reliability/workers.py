"""Kill workers, clients and the Temporal server at random moments of builds of twelve specs.

    .venv/bin/python -m tests.reliability.workers --kills 50 --seed 7

Each build must end with the images of an undisturbed one. No instance is launched twice, and nothing is left. The
server is a real one; the machines are the local cloud's `sshd` driver, a real sshd on the instance's own tree.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.machine.bakery import Bakery, without_boot
from tests.reliability.bench import alike, differences, inventory, own_images, retire
from tests.temporal.server import Server, server

BUCKET = "our-state"
WORKERS = 3
IMAGES = 1 + 11 * 2
"""The root in one region, and its layers in two."""
MOST_SECONDS = 900
"""Longest time of a build, its kills included."""
Victim = Literal["worker", "client", "server"]
VICTIMS: Sequence[Victim] = ("worker", "worker", "worker", "client", "server")
SPEC = """\
imagepipe: 1
name: {name}
source: {source}
launch: {{region: us-east-1}}
provision:
  - {{shell: echo {name} | sudo tee -a /etc/layers, idempotent: true}}
  - {{file: {{src: hello.txt, dest: /tmp/hello.txt}}, idempotent: true}}
output: {{name: "{name}-{{{{ build.id }}}}"}}
publish: {{regions: [{region}]}}
"""
DEBIAN = '{ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}'


def tree() -> dict[str, str | None]:
    """Return twelve specs, each with its base: one root, three layers on it, eight on those."""
    middle = [f"middle-{number}" for number in range(3)]
    return {
        "root": None,
        **dict.fromkeys(middle, "root"),
        **{f"leaf-{number}": middle[number % 3] for number in range(8)},
    }


@dataclass
class Found:
    """The results of builds under kills."""

    builds: int = 0
    kills: Counter[Victim] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.leaks and not self.wrong

    def words(self) -> str:
        kills = ", ".join(f"{count} of {victim}s" for victim, count in sorted(self.kills.items()))
        ends = f"{len(self.leaks)} leaks, {len(self.wrong)} wrong"
        said = f"{self.builds} builds, {self.kills.total()} kills ({kills}), {ends}"
        return "\n".join([said, *self.leaks, *self.wrong])


class Lab:
    """A cloud, a Temporal server, and workers."""

    def __init__(self, bakery: Bakery, temporal: Server) -> None:
        self.bakery, self.temporal = bakery, temporal
        self.env = {"IMAGEPIPE_STATE": f"s3://{BUCKET}/team"}
        self.workers: list[subprocess.Popen[str]] = []
        self._logs = 0
        bakery.client("s3").create_bucket(Bucket=BUCKET)
        (bakery.folder / "hello.txt").write_text("hello\n", encoding="utf-8")
        self.specs = [
            bakery.write(
                f"{name}.yaml",
                SPEC.format(
                    name=name,
                    source=f"{{image: {base}}}" if base else DEBIAN,
                    region="" if base is None else "us-west-2",
                ),
            )
            for name, base in tree().items()
        ]

    def start_worker(self, *options: str, queue: str = "imagepipe", **env: str) -> subprocess.Popen[str]:
        """Start a worker; its log is in a file."""
        self._logs += 1
        with (self.bakery.folder / f"worker-{self._logs}.log").open("w") as log:
            process = subprocess.Popen(
                [*PROGRAM, "worker", "--temporal", self.temporal.address, "--queue", queue, *options],
                cwd="/",
                env={**self.bakery.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.workers.append(process)
        self.bakery.started.append(process)
        return process

    def worker_logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.bakery.folder.glob("worker-*.log")))

    def client(self, build_id: str, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start a build, or follow it if it exists."""
        engine = ("--engine", f"temporal://{self.temporal.address}", "--build-id", build_id)
        return self.bakery.start("build", *words, "--local", *engine, "--format", "json", **{**self.env, **env})

    def end(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.workers:
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)


PROGRAM = (sys.executable, "-m", "imagepipe.cli.main")


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """Start a cloud and a Temporal server for the block."""
    with without_boot(folder) as bakery, server(folder) as temporal:
        own = Lab(bakery, temporal)
        try:
            yield own
        finally:
            own.end()


class Chaos:
    """Builds of twelve specs, with kills."""

    def __init__(self, lab: Lab, seed: int, say: Callable[[str], None]) -> None:
        self._lab, self._say, self._draw = lab, say, random.Random(seed)
        self.found = Found()
        self._wanted: list[dict[str, Any]] = []
        """Images of an undisturbed build; empty if there was none."""
        self._names = [str(path) for path in lab.specs]

    def start(self) -> None:
        """Start the workers."""
        for _ in range(WORKERS):
            self._lab.start_worker()

    def undisturbed(self) -> None:
        """Build once without kills, to know the images."""
        client = self._lab.client("undisturbed", *self._names)
        out, err = client.communicate(timeout=MOST_SECONDS)
        assert client.returncode == 0, err + self._lab.worker_logs()
        assert len(json.loads(out)["images"]) == IMAGES
        self._wanted = self._images()
        self._retire()

    def build(self, kills: int) -> None:
        """Build, with so many kills if the build takes long enough."""
        build_id = f"chaos-{self.found.builds}"
        before = inventory(self._lab.bakery)
        self._lab.bakery.admin("DELETE", "calls")
        began = time.monotonic()
        client = self._lab.client(build_id, *self._names)
        left = kills
        while True:
            if client.poll() is not None:
                out, err = client.communicate()
                if "connecting to the Temporal server" not in err:  # it began while the server was away
                    break
                client = self._lab.client(build_id, *self._names)
            assert time.monotonic() - began < MOST_SECONDS, f"{build_id} does not end\n{self._lab.worker_logs()}"
            if left and self._wait(client, self._draw.uniform(1.0, 12.0)):
                client = self._kill(self._draw.choice(VICTIMS), client, build_id)
                left -= 1
            else:
                time.sleep(0.2)
        self.found.builds += 1
        self._judge(build_id, client.returncode, out, err)
        self._retire()
        self.found.leaks += [f"{build_id}: {each}" for each in differences(before, inventory(self._lab.bakery))]
        self._say(f"{build_id}: {kills - left} kills, {time.monotonic() - began:.0f} s")

    def _wait(self, client: subprocess.Popen[str], seconds: float) -> bool:
        """Wait; return False if the build ends before."""
        try:
            client.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _kill(self, victim: Victim, client: subprocess.Popen[str], build_id: str) -> subprocess.Popen[str]:
        """Kill a process by SIGKILL, and start another one a little later; return the client."""
        self.found.kills[victim] += 1
        pause = self._draw.uniform(0.0, 3.0)
        match victim:
            case "client":
                client.kill()
                client.communicate()
                time.sleep(pause)
                return self._lab.client(build_id, *self._names)
            case "server":
                self._lab.temporal.kill()
                time.sleep(pause)
                self._lab.temporal.start()
            case "worker":
                alive = [each for each in self._lab.workers if each.poll() is None]
                one = self._draw.choice(alive)
                one.kill()
                one.wait()
                time.sleep(pause)
                self._lab.start_worker()
        return client

    def _judge(self, build_id: str, code: int, out: str, err: str) -> None:
        if code != 0:
            self.found.wrong.append(f"{build_id}: exit {code}: {err[-1500:]}")
            return
        images = self._images()
        if len(images) != IMAGES or (self._wanted and images != self._wanted):
            self.found.wrong.append(f"{build_id}: {len(images)} images, and not the {IMAGES} of an undisturbed build")
        runs = json.loads(out)["runs"].values()
        launched, anew = self._launched_of(runs), self._launched_anew(runs)
        if len(launched) != len(self._names) + anew:
            calls = self._lab.bakery.admin("GET", "calls").get("ec2:RunInstances", 0)
            self.found.wrong.append(
                f"{build_id}: {len(launched)} instances in {calls} calls for {len(self._names)} specs, of which {anew}"
                f" were launched anew: {launched}"
            )
        listed = json.loads(self._lab.bakery("runs", "--local", "--format", "json", **self._lab.env).out)
        states = {row["run"]: row["state"] for row in listed if row["run"] in runs}
        if set(states.values()) != {"succeeded"}:
            self.found.wrong.append(f"{build_id}: {states}")

    def _launched_of(self, runs: Iterable[str]) -> dict[str, str]:
        """Return the runs of all instances, those that have ended among them.

        A call that is repeated with its token launches nothing: EC2 returns the instance of the first one.
        """
        tagged = [{"Name": "tag:imagepipe:run", "Values": list(runs)}]
        pages = self._lab.bakery.client().get_paginator("describe_instances").paginate(Filters=tagged)
        instances = [each for page in pages for group in page["Reservations"] for each in group["Instances"]]
        return {
            each["InstanceId"]: next(tag["Value"] for tag in each["Tags"] if tag["Key"] == "imagepipe:run")
            for each in instances
        }

    def _launched_anew(self, runs: Iterable[str]) -> int:
        """Count the launches that a resumed run has repeated, by its journal: its machine could not go on.

        A scrub cannot: what was killed in the middle of one may have deleted the key of the login.
        """
        s3, count = self._lab.bakery.client("s3"), 0
        for run in runs:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"team/runs/{run}/journal/0")
            for key in (each["Key"] for page in pages for each in page.get("Contents", ())):
                record = json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
                count += record["type"] == "dropped" and any(stage.endswith("launch") for stage in record["stages"])
        return count

    def _images(self) -> list[dict[str, Any]]:
        found = [alike(region, image) for region, image in own_images(self._lab.bakery)]
        return sorted(found, key=lambda image: (image["imagepipe:spec"], image["region"]))

    def _retire(self) -> None:
        retire(self._lab.bakery, own_images(self._lab.bakery))


def run_chaos(kills: int, seed: int, *, folder: Path, say: Callable[[str], None], kills_of_one: int = 8) -> Found:
    """Build until so many kills were made; return the results."""
    with lab(folder) as own:
        chaos = Chaos(own, seed, say)
        chaos.start()
        chaos.undisturbed()
        while chaos.found.kills.total() < kills:
            chaos.build(min(kills_of_one, kills - chaos.found.kills.total()))
        return chaos.found


def main() -> int:
    parser = argparse.ArgumentParser(description="kills workers, clients and the Temporal server")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments and victims (now)")
    words = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"seed {words.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="imagepipe-workers-") as name:
        found = run_chaos(words.kills, words.seed, folder=Path(name), say=lambda line: print(line, flush=True))
    print(found.words())
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
