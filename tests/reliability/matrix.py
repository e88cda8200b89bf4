"""The crash matrix: kill a build at every line of its journal, then clean up after it; kill another, and resume it.

    .venv/bin/python -m tests.reliability.matrix                 all points of every scenario
    .venv/bin/python -m tests.reliability.matrix --sample 6      six points of each, from a printed seed

At each point, `clean` must leave the account as it was. From the same point, `resume` must make images like those of an
undisturbed build, and repeat no call that creates something. The builds run on the local cloud's `sshd` driver, whose
machines are a real sshd on the instance's own tree. --state keeps the results, which are not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tests.machine.bakery import Bakery, without_boot
from tests.reliability.bench import SCENARIOS, Scenario, alike, differences, inventory, own_images, retire, tags_of
from tests.reliability.kept_runs import KeptRuns, LocalRuns, SharedRuns

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 180
MAKING = ("ImportKeyPair", "CreateSecurityGroup", "RunInstances", "CreateSnapshots", "RegisterImage", "CopyImage")
"""Calls that create something each time: a resume must repeat none of them."""
When = Literal["before", "after"]


@dataclass(frozen=True)
class Point:
    """A moment at which a build is killed."""

    kind: Scenario
    line: int
    when: When

    def __str__(self) -> str:
        return f"{self.kind} {self.when} line {self.line}"


@dataclass
class Finding:
    """The result of one point."""

    point: str
    leaks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Failures of the resumed run."""


@dataclass
class Undisturbed:
    """The journal, images and calls of an undisturbed build."""

    records: list[dict[str, Any]]
    """Its journal."""
    images: list[dict[str, Any]]
    calls: Mapping[str, int]


class Lab:
    """A cloud of its own, and the builds on it."""

    def __init__(self, bakery: Bakery, runs: KeptRuns) -> None:
        self._bakery, self._runs = bakery, runs
        self._specs = {kind: bakery.write(f"{kind}.yaml", text) for kind, text in SCENARIOS.items()}
        self._known: dict[Scenario, Undisturbed] = {}

    def undisturbed(self, kind: Scenario) -> Undisturbed:
        """Build an image of this kind, only once."""
        if kind not in self._known:
            self._bakery(
                "build", str(self._specs[kind]), "--local", "--format", "json"
            )  # makes what the cloud lacks: buckets
            self._retire(kind)
            self._bakery.admin("DELETE", "calls")
            run = self._bakery.build(self._specs[kind], **self._runs.env).run
            calls = self._calls()
            self._known[kind] = Undisturbed(self._runs.records(run), self._images(kind), calls)
            self._retire(kind)
        return self._known[kind]

    def points(self, kind: Scenario) -> list[Point]:
        lines = len(self.undisturbed(kind).records)
        return [Point(kind, line, when) for line in range(1, lines + 1) for when in ("before", "after")]

    def before_output(self, kind: Scenario, stage: str) -> Point:
        """Return the point at which a stage is done, but not recorded yet. Parallel stages may swap."""
        records = self.undisturbed(kind).records
        line = next(n for n, each in enumerate(records, 1) if (each["type"], each.get("stage")) == ("output", stage))
        return Point(kind, line, "before")

    def try_out(self, point: Point) -> Finding:
        """Kill a build at the point, and clean up after it; kill another, and resume it."""
        finding = Finding(str(point))
        wanted = self.undisturbed(point.kind)
        before = inventory(self._bakery)
        if run := self._killed(point):
            cleaned = self._bakery("clean", run, *self._runs.access, **self._runs.env)
            if cleaned.code != 0:
                finding.leaks.append(f"clean: exit {cleaned.code}: {cleaned.err[-500:]}")
            self._retire_finished(point.kind, wanted)
        finding.leaks += differences(before, inventory(self._bakery))
        self._bakery.admin("DELETE", "calls")
        if run := self._killed(point):
            self._go_on(point, run, wanted, finding)
            self._retire(point.kind)
        finding.leaks += [f"after resume: {each}" for each in differences(before, inventory(self._bakery))]
        return finding

    def _retire_finished(self, kind: Scenario, wanted: Undisturbed) -> None:
        """Retire the images of specs that are kept in every region: they are no leak, because those specs were done."""
        for spec in {image["imagepipe:spec"] for image in wanted.images}:
            of_spec = [image for image in self._images(kind) if image.get("imagepipe:spec") == spec]
            if of_spec == [image for image in wanted.images if image["imagepipe:spec"] == spec]:
                self._retire(kind, spec)

    def _go_on(self, point: Point, run: str, wanted: Undisturbed, finding: Finding) -> None:
        resumed = self._bakery("resume", run, "--format", "json", *self._runs.access, **self._runs.env)
        if resumed.code == 2 and ("nothing is left to do" in resumed.err or "is empty" in resumed.err):
            return  # the run had ended already
        if resumed.code != 0:
            finding.wrong.append(f"resume: exit {resumed.code}: {resumed.err[-800:]}")
            return
        if (images := self._images(point.kind)) != wanted.images:
            finding.wrong.append(f"{len(images)} images, and not the {len(wanted.images)} wanted: {images}")
        anew = " runs again, because " in resumed.err
        for call, count in self._calls().items():
            most = wanted.calls.get(call, 0) + (1 if anew and call == "RunInstances" else 0)
            if count > most:
                finding.wrong.append(f"{call} was made {count} times, and {most} are enough")

    def _killed(self, point: Point) -> str | None:
        """Kill a build at the point, and return the run's id; None if it died before it had one."""
        known = self._runs.ids()
        words = [str(point.line), point.when, "build", str(self._specs[point.kind]), "--local"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.reliability.crash", *words],
            cwd=ROOT,
            env={**self._bakery.env, "PYTHONPATH": str(ROOT), **self._runs.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode not in (-9, 0):
            raise SystemExit(f"{point}: exit {done.returncode}: {done.stderr.decode()[-2000:]}")
        for run in self._runs.ids() - known:
            self._runs.await_death(run)
            return run
        return None

    def _calls(self) -> dict[str, int]:
        counted = Counter[str]()
        for name, count in self._bakery.admin("GET", "calls").items():
            action = name.partition(":")[2]
            if action in MAKING:
                counted[action] += count
        return dict(counted)

    def _images(self, kind: Scenario) -> list[dict[str, Any]]:
        """List the images of a kind, with the values that are the same in every build."""
        return [alike(region, image) for region, image in own_images(self._bakery, f"{kind}-")]

    def _retire(self, kind: Scenario, spec: str | None = None) -> None:
        """Retire the images of a scenario, or of one of its specs."""
        own = own_images(self._bakery, f"{kind}-")
        retire(self._bakery, [each for each in own if spec in (None, tags_of(each[1]).get("imagepipe:spec"))])


@contextmanager
def lab(folder: Path, runs: Callable[[Bakery], KeptRuns] = LocalRuns) -> Iterator[Lab]:
    """Start a cloud of machines without a boot, for the block, and end it with its machines."""
    with without_boot(folder) as bakery:
        yield Lab(bakery, runs(bakery))


def chosen(lab: Lab, kinds: Sequence[Scenario], sample: int | None, seed: int) -> list[Point]:
    """Return all points, or a sample of each kind."""
    draw = random.Random(seed)
    points: list[Point] = []
    for kind in kinds:
        every = lab.points(kind)
        points += sorted(draw.sample(every, min(sample, len(every))), key=str) if sample else every
    return points


def table(findings: Sequence[Finding]) -> str:
    """Format the numbers of tried points, leaks and wrong resumes, by kind of image."""
    rows: list[tuple[str, ...]] = [("scenario", "kill points", "leaks", "wrong resumes"), ("---",) * 4]
    rows += [(kind, *map(str, counted(findings, kind))) for kind in SCENARIOS]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def counted(findings: Sequence[Finding], kind: Scenario) -> tuple[int, int, int]:
    """Count the tried points of a kind of image, those with leaks, and those with a wrong resume."""
    of = [each for each in findings if each.point.startswith(f"{kind} ")]
    return len(of), sum(bool(each.leaks) for each in of), sum(bool(each.wrong) for each in of)


def main() -> int:
    parser = argparse.ArgumentParser(description="kills builds at every line of their journals")
    parser.add_argument("--sample", type=int, help="so many points of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the sample (now)")
    parser.add_argument("--kind", choices=list(SCENARIOS), action="append", help="scenario (all)")
    parser.add_argument("--state", type=Path, help="where to keep what was tried, to go on another time")
    parser.add_argument(
        "--part", type=part, default=(1, 1), metavar="K/N", help="part K of N of the points, such as 1/2"
    )
    parser.add_argument("--shared", action="store_true", help="keep the runs in a bucket of the cloud")
    words = parser.parse_args()
    runs = SharedRuns if words.shared else LocalRuns
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the cloud is ended too
    tried = read_tried(words.state)
    with tempfile.TemporaryDirectory(prefix="imagepipe-matrix-") as name, lab(Path(name), runs) as bench:
        kinds = words.kind or list(SCENARIOS)
        points = chosen(bench, kinds, words.sample, words.seed)
        every = sum(len(bench.points(kind)) for kind in kinds)
        _keep(words.state, tried, every)
        if words.sample:
            print(f"seed {words.seed}: --sample {words.sample} --seed {words.seed} tries these again")
        for number, point in enumerate(points, start=1):
            if str(point) in tried or number % words.part[1] != words.part[0] % words.part[1]:
                continue
            began = time.monotonic()
            found = bench.try_out(point)
            tried[str(point)] = found
            _keep(words.state, tried, every)
            said = "; ".join([*found.leaks, *found.wrong]) or "nothing left, images alike"
            print(f"{number} of {len(points)}, {point}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    findings = [tried[str(point)] for point in points if str(point) in tried]
    print(table(findings))
    return 1 if any(each.leaks or each.wrong for each in findings) else 0


def part(word: str) -> tuple[int, int]:
    """Read `1/2`. Raises ValueError."""
    number, of = map(int, word.split("/"))
    if not 1 <= number <= of:
        raise ValueError(word)
    return number, of


def read_tried(path: Path | None) -> dict[str, Finding]:
    """Return the results of this code; results of other code do not count."""
    return {row["point"]: Finding(**row) for row in _kept(path).get("findings", ())}


def points_of(path: Path) -> int:
    """Return the number of all points; 0 if this code has no results."""
    return int(_kept(path).get("points", 0))


def _kept(path: Path | None) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(path.read_text()) if path is not None and path.exists() else {}
    return kept if kept.get("code") == code_digest() else {}


def _keep(path: Path | None, tried: Mapping[str, Finding], points: int) -> None:
    if path is not None:
        half = path.with_suffix(".half")
        found = [vars(each) for each in tried.values()]
        half.write_text(json.dumps({"code": code_digest(), "points": points, "findings": found}))
        half.rename(path)


@cache
def code_digest() -> str:
    """Return the digest of the program and of these tests: results of other code do not count."""
    sum = hashlib.sha256()
    for folder in ("imagepipe", "tests/reliability", "tests/machine"):
        for file in sorted((ROOT / folder).rglob("*.*")):
            if file.suffix in (".py", ".sh"):
                sum.update(file.read_bytes())
    return sum.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
