"""Give bad input of every kind to the command line, and judge if each answer is clear.

    .venv/bin/python -m tests.reliability.badinputs

A clear answer has a documented exit code for wrong input, no traceback, and a text that names the mistake: the file and
line of a spec, the file of a bundle, a journal or faults, the given option or name. Only input that needs no cloud is
tried here; tests/machine/test_bad_input.py has the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagepipe.cli.main import BUG, _exit_code
from imagepipe.clock import SystemClock
from imagepipe.engine.events import FILE_NAME as EVENTS_FILE
from imagepipe.engine.events import to_json
from imagepipe.engine.file_store import JOURNAL as FILE_NAME
from imagepipe.engine.journal import Lifetime, RunRecord
from tests import run_folders
from tests.bundle.samples import CASES as BUNDLES
from tests.engine.test_events import SAMPLES
from tests.reliability.slips import slipped, with_another_value

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests/cases/spec"
SLIPS = 400
DAMAGED = 100
WRONG_INPUT = (2, 8)
"""Exit codes of wrong usage or specs, and of damaged bundles (docs/reference/exit-codes.md)."""
PLACE = re.compile(r"^\S+\.ya?ml(:\d+:\d+)?: \S.{8,}", re.MULTILINE)
GOOD = """\
imagepipe: 1
name: web
variables: {greeting: {default: hello}}
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}}
provision: [{shell: "true"}]
output: {name: "web-{{ build.id }}"}
"""
COMMAND_LINES: Sequence[tuple[str, str]] = (
    ("bild web.yaml", "Did you mean 'build'"),
    ("build", "SPEC"),
    ("build no-such-file.yaml", "no-such-file"),
    ("build good.yaml --var", "--var"),
    ("build good.yaml --var greeting", "--var greeting"),
    ("build good.yaml --var greting=hi", "greting"),
    ("build good.yaml --var-file no-such-vars.yaml", "no-such-vars.yaml"),
    ("build good.yaml --timeout soon", "soon"),
    ("build good.yaml --keep-on-failure=never", "never"),
    ("build good.yaml --region eu-nowhere-1", "eu-nowhere-1"),
    ("build good.yaml --junit no/such/folder/x.xml", "no/such/folder"),
    ("build good.yaml --assume-role admin", "admin"),
    ("build good.yaml --local --profile p", "--profile"),
    ("build good.yaml --locl", "--local"),
    ("build empty-folder", "empty-folder"),
    ("validate no-such-file.yaml", "no-such-file"),
    ("validate good.yaml --format pdf", "pdf"),
    ("policy no-such-file.yaml", "no-such-file"),
    ("policy good.yaml --for everything", "everything"),
    ("resume", "RUN"),
    ("resume ffffffff", "ffffffff"),
    ("show ffffffff", "ffffffff"),
    ("clean", "name a run"),
    ("clean ffffffff", "ffffffff"),
    ("clean --older-than 5m", "1h"),
    ("clean --older-than 3h ffffffff", "--older-than"),
    ("clean --all --bucket b", "--bucket"),
    ("images deregister", "IMAGE"),
    ("bundle inspect no-such.manifest.xml", "no-such.manifest.xml"),
    ("bundle verify no-such.manifest.xml", "no-such.manifest.xml"),
    ("bundle unpack no-such.manifest.xml --private-key x", "no-such.manifest.xml"),
    ("bundle pack no-such.raw", "--"),
    ("local serve --address 0.0.0.0", "IMAGEPIPE_LOCAL_TOKEN"),
    ("local serve --port 99999999", "99999999"),
    ("local serve --faults no-such-faults.yaml", "no-such-faults.yaml"),
    ("local images import no-such.qcow2", "no-such.qcow2"),
)
"""Arguments, and a text that the answer must contain."""
FAULTS: Sequence[tuple[str, str]] = (
    ("faults: [", "faults.yaml"),
    ("- {effect: refuse}", "faults"),
    ("faults: [{effect: explode}]", "explode"),
    ("faults: [{effect: refuse, action: RunInstance}]", "RunInstance"),
    ("faults: [{effect: delay, seconds: soon}]", "soon"),
    ("faults: [{effect: delay, second: 3}]", "second"),
    ("faults: [{effect: refuse, probability: 7}]", "probability"),
    ("faults: [{effect: refuse, times: -1}]", "times"),
)


@dataclass
class Answer:
    """The command line's answer to a bad input."""

    what: str
    code: int
    said: str
    names: str
    """A text that it must contain."""

    @property
    def is_clear(self) -> bool:
        is_known = self.code in WRONG_INPUT and self.names in self.said
        return is_known and "Traceback" not in self.said and BUG not in self.said


def answers(folder: Path, seed: int) -> Iterator[Answer]:
    """Return the answers to all bad inputs, without those that turn out to be good. `folder` is the tests' own."""
    draw = random.Random(seed)
    (folder / "good.yaml").write_text(GOOD, encoding="utf-8")
    (folder / "empty-folder").mkdir()
    yield from _specs(folder, draw)
    yield from _bundles(folder, draw)
    yield from _runs(folder, draw)
    for text, names in FAULTS:
        (folder / "faults.yaml").write_text(text)
        yield _asked(folder, ["local", "serve", "--faults", "faults.yaml"], names, text)
    for words, names in COMMAND_LINES:
        yield _asked(folder, words.split(), names)


def _specs(folder: Path, draw: random.Random) -> Iterator[Answer]:
    """Try every broken spec of the tests, and typing mistakes in good ones."""
    for case in sorted(CASES.glob("*.yaml")):
        answer = _asked(CASES, ["validate", case.name], case.name)
        if answer.code != 0:  # a few have warnings alone
            yield _spec(answer)
    seeds = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "specs").glob("*.yaml"))]
    for _ in range(SLIPS):
        (folder / "slip.yaml").write_text(slipped(draw.choice(seeds), draw), encoding="utf-8")
        answer = _asked(folder, ["validate", "slip.yaml"], "slip.yaml", "a slip in a spec")
        if answer.code != 0:
            yield _spec(answer)


def _spec(answer: Answer) -> Answer:
    """Require that the answer to a bad spec also names a place."""
    if not PLACE.search(answer.said):
        answer.names = "a place: FILE:LINE:COLUMN"
    return answer


def _bundles(folder: Path, draw: random.Random) -> Iterator[Answer]:
    whole = (BUNDLES / "euca/image.manifest.xml").read_text(encoding="utf-8")
    for _ in range(DAMAGED):
        (folder / "x.manifest.xml").write_text(slipped(whole.replace("><", ">\n<"), draw), encoding="utf-8")
        for command in ("inspect", "verify"):
            answer = _asked(folder, ["bundle", command, "x.manifest.xml"], "x.manifest.xml", "a damaged manifest")
            if answer.code != 0:
                yield answer


def _runs(folder: Path, draw: random.Random) -> Iterator[Answer]:
    run = folder / "state/imagepipe/runs/7f3a91c2"
    record = RunRecord("7f3a91c2", "2026-11-23T03:05:07Z", ("web",), {"id": "7f3a91c2"}, {})
    journal = run_folders.create(run, record, SystemClock())
    journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    journal.note("output", stage="launch", fingerprint="f", value={"id": "i-1"})
    journal.note("finished", outcome="failed", held=[])
    journal.close()
    lines = (run / FILE_NAME).read_text(encoding="utf-8").splitlines()
    events = [json.dumps(to_json(event)) for event in SAMPLES]
    for _ in range(DAMAGED):
        (run / EVENTS_FILE).write_text("".join(f"{line}\n" for line in events), encoding="utf-8")
        (run / FILE_NAME).write_text(with_another_value(lines, draw), encoding="utf-8")
        answer = _asked(folder, ["show", "7f3a91c2"], FILE_NAME, "a damaged journal")
        if answer.code != 0:
            yield answer
            for command in (["resume", "7f3a91c2"], ["clean", "7f3a91c2"]):
                yield _asked(folder, command, FILE_NAME, "a damaged journal")
        (run / FILE_NAME).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (run / EVENTS_FILE).write_text(with_another_value(events, draw), encoding="utf-8")
        answer = _asked(folder, ["show", "7f3a91c2"], EVENTS_FILE, "damaged events")
        if answer.code != 0:
            yield answer


def _asked(folder: Path, words: list[str], names: str, what: str = "") -> Answer:
    """Run the command line with these words in the folder, and return its answer."""
    said = io.StringIO()
    argv, here = sys.argv, Path.cwd()
    sys.argv = ["imagepipe", *words]
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = _exit_code()
    finally:
        sys.argv = argv
        os.chdir(here)
    return Answer(f"imagepipe {' '.join(words)}" + (f" ({what})" if what else ""), code, said.getvalue(), names)


@dataclass
class BadInputs:
    """The result of all bad inputs."""

    seed: int
    tried: int
    unclear: list[Answer]


def run_bad_inputs(seed: int) -> BadInputs:
    """Try all of them, and print the unclear answers."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="imagepipe-badinputs-") as name:
        os.environ |= {"XDG_STATE_HOME": f"{name}/state", "IMAGEPIPE_LOCAL_STORE": f"{name}/store"}
        os.environ.pop("IMAGEPIPE_LOCAL_TOKEN", None)
        try:
            found = list(answers(Path(name), seed))
        finally:
            os.environ.clear()
            os.environ.update(before)
    unclear = [each for each in found if not each.is_clear]
    for each in unclear:
        print(f"UNCLEAR: {each.what}: exit {each.code}, does it say {each.names!r}?\n{each.said[-600:]}", flush=True)
    return BadInputs(seed, len(found), unclear)


def main() -> int:
    parser = argparse.ArgumentParser(description="gives bad input of every kind to the command line")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of slips and damage (now)")
    found = run_bad_inputs(parser.parse_args().seed)
    print(f"seed {found.seed}: {found.tried} bad inputs, {len(found.unclear)} unclear answers")
    return 1 if found.unclear else 0


if __name__ == "__main__":
    sys.exit(main())
