"""The storm: many builds, several at once, while the cloud fails in every way it can, drawn from a seed.

    .venv/bin/python -m tests.reliability.storm --builds 50 --seed 7

Each build must end in time, with success or with a clear error, without a traceback or a secret. It must leave nothing
behind; if it asks for `imagepipe clean`, then nothing after that. No image of a failed build may be published; the
images of a successful one must be right, and in both regions. The builds run on the local cloud's `sshd` driver, in
rounds, each with its own faults. Between two rounds there are no faults, and the account is checked.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagepipe.cli.main import BUG
from tests.machine.bakery import Bakery, without_boot
from tests.reliability.bench import (
    BUCKETS,
    OUTPUTS,
    Kind,
    differences,
    inventory,
    own_images,
    retire,
    tags_of,
)
from tests.reliability.weather import as_body, rounds

AT_ONCE = 4
SECONDS = 900
"""Time limit of one build. A build takes 30 s alone; the limit only tells a slow machine from a build that hangs."""
SECRET = "tr0ub4dor-and-3-more"
FRIEND = "111122223333"
CLEAR_CODES = frozenset({3, 4, 6, 7, 8, 10})
"""Exit codes of a build that failed for a reason outside of imagepipe (docs/reference/exit-codes.md)."""
INSTANCE_STORE_SHARE = 0.15
FAMILY_SHARE = 0.2
LAYER = """\
---
imagepipe: 1
name: layer
source: {image: ebs}
launch: {region: us-east-1, instance_types: [t3.small, t3a.small, m3.medium], ssh: {timeout: 30s}}
provision:
  - shell: grep baked /etc/baked
output: {name: "layer-{{ build.id }}", timeout: 20s}
publish: {regions: [us-west-2], timeout: 20s, share: {accounts: ["FRIEND"]}}
"""
"""A second spec, built on the first: such a build has two images in each region."""
SPEC = """\
imagepipe: 1
name: {kind}
variables: {{token: {{env: STORM_TOKEN, sensitive: true}}}}
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch: {{region: us-east-1, instance_types: [{types}], ssh: {{timeout: 30s}}}}
provision:
  - shell: sudo sh -c 'echo baked >/etc/baked'
  - {{shell: "echo with $TOKEN; sleep 1", env: {{TOKEN: "{{{{ var.token }}}}"}}}}
  - {{shell: "sleep 1", idempotent: true}}
test:
  - {{shell: grep baked /etc/baked, idempotent: true}}
publish: {{regions: [us-west-2], timeout: 20s, share: {{accounts: ["{friend}"]}}}}
"""
MORE: dict[Kind, str] = {
    "ebs": 'output: {name: "ebs-{{ build.id }}", timeout: 20s}\n',
    "instance-store": OUTPUTS["instance-store"] + "  timeout: 20s\n",
}
TYPES: dict[Kind, str] = {"ebs": "t3.small, t3a.small, m3.medium", "instance-store": "m3.medium"}
ERROR = re.compile(r"^error: (?P<stage>[\w./-]+): (?P<what>.{20,})", re.MULTILINE)


@dataclass
class Build:
    """One build of the storm, and its result."""

    number: int
    kind: Kind
    is_family: bool = False
    """True if a layer is built on the image."""
    code: int | None = None
    """Exit code; None if it did not end."""
    run: str = ""
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    unclear: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """The folder of its state, within the bench's folder."""
        return f"state-{self.number}"

    @property
    def succeeded(self) -> bool:
        return self.code in (0, 5)

    def words(self) -> str:
        """Describe the build in one line."""
        if self.succeeded:
            how = "succeeded" if self.code == 0 else "succeeded, with something held"
        elif self.code is None:
            how = "did not end"
        else:
            said = ERROR.search(self.err)
            how = f"exit {self.code}: {said[0].removeprefix('error: ')[:150] if said else self.err[:150]}"
        problems = "".join(f"\n  UNCLEAR: {each}" for each in self.unclear)
        kind = "family" if self.is_family else self.kind
        return f"{self.number:>3} {kind:<14} {self.seconds:>5.1f} s  {how}{problems}"


@dataclass
class Storm:
    """The results of all builds."""

    seed: int
    builds: int = 0
    faults_injected: int = 0
    succeeded: int = 0
    failed: int = 0
    """Number of failed builds, with clear errors or unclear ones."""
    unclear: list[str] = field(default_factory=list)
    """Builds that did not end, or whose error lacks the action, the resource or the response."""
    leaks: list[str] = field(default_factory=list)
    """Leftovers of a round in the account, after `clean` of the builds that reported held resources."""
    published_by_failed: list[str] = field(default_factory=list)
    """Kept images of failed builds."""
    by_effect: dict[str, int] = field(default_factory=dict)
    """Number of injected faults by effect."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not (self.unclear or self.leaks or self.published_by_failed)

    def words(self) -> str:
        """Describe the counts, and then everything that is wrong."""
        lines = [
            f"storm {self.seed}: {self.builds} builds, {self.faults_injected} faults, {self.succeeded} succeeded, "
            f"{self.failed} failed, {len(self.unclear)} unclear, {len(self.leaks)} leaks, "
            f"{len(self.published_by_failed)} published by a failed build, {self.seconds:.0f} s",
            "faults: " + ", ".join(f"{effect} {count}" for effect, count in sorted(self.by_effect.items())),
        ]
        for what in ("unclear", "leaks", "published_by_failed"):
            lines += [f"{what}: {each}" for each in getattr(self, what)]
        return "\n".join(lines)


def run_storm(
    builds: int,
    seed: int,
    *,
    at_once: int = AT_ONCE,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Storm:
    """Run so many builds under faults that the seed draws. A failure of a build raises nothing.

    `say` gets a line for each build. Without a folder, a temporary one is used.
    """
    with tempfile.TemporaryDirectory(prefix="imagepipe-storm-") as name, without_boot(folder or Path(name)) as bakery:
        return _Storming(bakery, seed, say).run(builds, at_once)


class _Storming:
    def __init__(self, bakery: Bakery, seed: int, say: Callable[[str], None]) -> None:
        self._bakery = bakery
        self._say = say
        self._draw = random.Random(f"{seed}/builds")
        self._weather = rounds(seed)
        self._result = Storm(seed)
        self._specs = {
            kind: bakery.write(f"{kind}.yaml", SPEC.format(kind=kind, types=TYPES[kind], friend=FRIEND) + MORE[kind])
            for kind in MORE
        }
        layer = LAYER.replace("FRIEND", FRIEND)
        self._family = bakery.write("family.yaml", self._specs["ebs"].read_text(encoding="utf-8") + layer)

    def run(self, builds: int, at_once: int) -> Storm:
        began = time.monotonic()
        bakery = self._bakery
        for bucket, region in BUCKETS.items():
            more = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            bakery.client("s3", region).create_bucket(Bucket=bucket, ObjectOwnership="BucketOwnerPreferred", **more)
        before = inventory(bakery)
        for first in range(1, builds + 1, at_once):
            numbers = range(first, min(first + at_once, builds + 1))
            self._round([self._drawn(number) for number in numbers], before)
        self._result.seconds = time.monotonic() - began
        return self._result

    def _drawn(self, number: int) -> Build:
        """Return a build. Of the EBS-backed ones, build 3 is a family, and so is a random share of the others."""
        kind = self._kind(number)
        return Build(number, kind, kind == "ebs" and (number == 3 or self._draw.random() < FAMILY_SHARE))

    def _kind(self, number: int) -> Kind:
        """Return the kind of a build: build 2 is instance-store, and so is a random share of the others."""
        return "instance-store" if number == 2 or self._draw.random() < INSTANCE_STORE_SHARE else "ebs"

    def _round(self, round_: Sequence[Build], before: Mapping[str, list[str]]) -> None:
        faults = next(self._weather)
        self._say("; ".join(fault.words() for fault in faults))
        self._bakery.admin("PUT", "faults", as_body(faults, self._result.seed))
        counted = self._bakery.admin("GET", "injected")
        with ThreadPoolExecutor(len(round_)) as pool:
            list(pool.map(self._build, round_))
        self._count(counted, self._bakery.admin("GET", "injected"))
        self._bakery.admin("DELETE", "faults")
        self._judge(round_)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._clean, round_))
        left = [f"round of build {round_[0].number}: {each}" for each in differences(before, self._after(round_))]
        self._result.leaks += left
        for build in round_:
            self._say(build.words())
        for line in left:
            self._say(f"  LEAK: {line}")

    def _build(self, build: Build) -> None:
        began = time.monotonic()
        state = str(self._bakery.folder / build.state)
        spec = self._family if build.is_family else self._specs[build.kind]
        process = self._bakery.start("build", str(spec), "--local", XDG_STATE_HOME=state, STORM_TOKEN=SECRET)
        try:
            build.out, build.err = process.communicate(timeout=SECONDS)
            build.code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            build.out, build.err = process.communicate()
        build.seconds = time.monotonic() - began
        folders = self._runs(build)
        build.run = folders[0].name if folders else ""

    def _runs(self, build: Build) -> list[Path]:
        return [path.parent for path in (self._bakery.folder / build.state).glob("imagepipe/runs/*/journal.jsonl")]

    def _count(self, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        for name, count in after.items():
            came = count - before.get(name, 0)
            effect = name.split()[0]
            self._result.faults_injected += came
            if came:
                self._result.by_effect[effect] = self._result.by_effect.get(effect, 0) + came

    def _judge(self, round_: Sequence[Build]) -> None:
        """Judge the output of each build, and its images, before anything is cleaned."""
        images = own_images(self._bakery)
        for build in round_:
            self._result.builds += 1
            own = [(region, image) for region, image in images if tags_of(image).get("imagepipe:run") == build.run]
            kept = [(region, image) for region, image in own if tags_of(image).get("imagepipe:state") == "kept"]
            build.unclear += _unclear(build)
            build.unclear += self._secrets(build)
            if build.succeeded:
                self._result.succeeded += 1
                build.unclear += self._wrong(build, kept)
            else:
                self._result.failed += 1
                # A spec of a family that succeeded keeps its images, and the build names them.
                self._result.published_by_failed += [
                    f"build {build.number}: {image['ImageId']} in {region}"
                    for region, image in kept
                    if image["ImageId"] not in build.out
                ]
            self._result.unclear += [f"build {build.number} (run {build.run}): {each}" for each in build.unclear]

    def _secrets(self, build: Build) -> list[str]:
        written = [path for run in self._runs(build) for path in run.iterdir() if path.is_file()]
        said = {path.name: path.read_bytes().decode(errors="replace") for path in written}
        return [
            f"{name} has the build's secret"
            for name, text in {"standard output": build.out, "standard error": build.err, **said}.items()
            if SECRET in text
        ]

    def _wrong(self, build: Build, kept: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """List the defects of a successful build's images."""
        wrong = []
        if sorted(region for region, _ in kept) != sorted([*BUCKETS.values()] * (2 if build.is_family else 1)):
            wrong.append(f"its images are in {[region for region, _ in kept]}")
        for region, image in kept:
            ec2 = self._bakery.client(region=region)
            answer = ec2.describe_image_attribute(ImageId=image["ImageId"], Attribute="launchPermission")
            if [one.get("UserId") for one in answer["LaunchPermissions"]] != [FRIEND]:
                wrong.append(f"{image['ImageId']} in {region} is shared with {answer['LaunchPermissions']}")
            wanted = ("available", build.kind)
            if (image["State"], image["RootDeviceType"]) != wanted or image.get("ImdsSupport") != "v2.0":
                wrong.append(f"{image['ImageId']} in {region} is {image['State']}, {image['RootDeviceType']}")
        return wrong

    def _clean(self, build: Build) -> None:
        """Run `clean` if the build reported held resources, or was killed."""
        if build.run and (build.code is None or "still held:" in build.err):
            state = str(self._bakery.folder / build.state)
            cleaned = self._bakery("clean", build.run, XDG_STATE_HOME=state, STORM_TOKEN=SECRET)
            if cleaned.code != 0:
                self._result.leaks.append(f"clean {build.run}: exit {cleaned.code}: {cleaned.err[-500:]}")

    def _after(self, round_: Sequence[Build]) -> dict[str, list[str]]:
        """Return the inventory of the account without the images that builds named as theirs."""
        named = "".join(build.out for build in round_)
        kept = [each for each in own_images(self._bakery) if tags_of(each[1]).get("imagepipe:state") == "kept"]
        retire(self._bakery, [each for each in kept if each[1]["ImageId"] in named])
        return inventory(self._bakery)


def _unclear(build: Build) -> list[str]:
    """List everything unclear about the end of a build."""
    if build.code is None:
        return [f"it did not end within {SECONDS} s: {build.out[-300:]}"]
    wrong = []
    if "Traceback" in build.err + build.out or BUG in build.err:
        wrong.append(f"a traceback: {build.err[-1500:]}")
    if not build.succeeded:
        errors = list(ERROR.finditer(build.err))
        if build.code not in CLEAR_CODES:
            wrong.append(f"exit code {build.code}: {build.err[-500:]}")
        if not errors:
            wrong.append(f"no error that names its stage: {build.err[-500:]}")
        wrong += [f"does not say to what: {each[0]}" for each in errors if not _says_to_what(each["what"])]
    if "still held:" in build.err and f"imagepipe clean {build.run}" not in build.err:
        wrong.append("it holds something, and does not say how to give it back")
    return wrong


def _says_to_what(text: str) -> bool:
    """Tell if an error names a resource: an id, a step with its place, a bucket, a region, an address."""
    thing = r"\b(i|ami|snap|vol|sg|subnet)-\w+|\.yaml:\d+|\bs3://|us-(east|west)-\d|127\.42\.|crash-(east|west)"
    return re.search(thing, text) is not None


def main() -> int:
    parser = argparse.ArgumentParser(description="builds under faults that are drawn at random")
    parser.add_argument("--builds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of builds and faults (now)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"builds side by side ({AT_ONCE})")
    parser.add_argument("--folder", type=Path, help="an empty one, to keep the state of all runs in")
    words = parser.parse_args()
    print(f"seed {words.seed}: --builds {words.builds} --seed {words.seed} draws the same", flush=True)
    storm = run_storm(
        words.builds,
        words.seed,
        at_once=words.at_once,
        folder=words.folder,
        say=lambda line: print(line, flush=True),
    )
    print(storm.words())
    return 0 if storm.ok else 1


if __name__ == "__main__":
    sys.exit(main())
