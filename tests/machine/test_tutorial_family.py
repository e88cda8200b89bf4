"""The tutorial of a family: its commands are run as the page has them, and do what the page says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.page_runs import commands_of
from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/tutorial-family.md"
KEYS = {"base", "runtime", "api", "pages", "worker[queue=mail]", "worker[queue=video]", "worker[queue=reports]"}
SECONDS = 1800


def _commands() -> list[str]:
    """Return the commands of the page that are run; the last one would stop the cloud of the tests."""
    return list(commands_of(PAGE))


@pytest.fixture
def folder(bakery: Bakery) -> Path:
    """A folder with the specs of the checkout, and `imagepipe` in the PATH."""
    shutil.copytree(ROOT / "specs/family", bakery.folder / "specs/family")
    (bakery.folder / "imagepipe.yaml").unlink()
    programs = bakery.folder / "bin"
    programs.mkdir()
    (programs / "imagepipe").write_text(f'#!/bin/sh\nexec {sys.executable} -m imagepipe.cli.main "$@"\n')
    (programs / "imagepipe").chmod(0o755)
    return bakery.folder


def _changing_calls(bakery: Bakery) -> Counter[str]:
    reads = ("Describe", "Get", "List", "Head")
    calls = bakery.admin("GET", "calls").items()
    return Counter({name: count for name, count in calls if not name.rpartition(":")[2].startswith(reads)})


def _images(output: str) -> dict[str, list[str]]:
    """Return the ids of the images of a build, by spec; `, unchanged` is behind a spec whose image was used again."""
    found: dict[str, list[str]] = {}
    for id, spec in re.findall(r"^(ami-\w+)  .*  \((.*)\)$", output, re.MULTILINE):
        found.setdefault(spec, []).append(id)
    return found


def test_the_commands_of_the_page_do_what_it_says(bakery: Bakery, folder: Path) -> None:
    env = {**bakery.env, "PATH": f"{folder / 'bin'}:{bakery.env['PATH']}"}
    outputs: dict[str, list[str]] = {}
    changing: list[Counter[str]] = []
    for command in _commands():
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        outputs.setdefault(command, []).append(done.stdout)
        changing.append(_changing_calls(bakery))

    assert "7 specs, valid" in outputs["imagepipe validate specs/family"][0]
    before, after = outputs["imagepipe graph specs/family"]
    assert "critical path" not in before
    assert "* runtime" in after
    [plan] = outputs["imagepipe plan specs/family --local"]
    assert plan.count("bake, because") == 7
    assert "duration of the build: unknown" in plan
    first, second, third = (_images(text) for text in outputs["imagepipe build specs/family --local"])
    assert first.keys() == KEYS
    assert sum(map(len, first.values())) == 9
    assert second == {f"{spec}, unchanged": ids for spec, ids in first.items()}
    builds = [at for at, command in enumerate(_commands()) if command == "imagepipe build specs/family --local"]
    assert changing[builds[1]] == changing[builds[1] - 1], "an unchanged build makes no call that changes anything"
    [why] = outputs["imagepipe why specs/family --local"]
    assert {line.partition(":")[0] for line in why.splitlines() if ": changed" in line} == {"api", "pages"}
    assert why.count("file files/index.html.j2: ") == 2
    assert third.keys() == {"api", "pages", *(f"{spec}, unchanged" for spec in KEYS - {"api", "pages"})}

    assert "eu-west-1" in outputs["imagepipe publish specs/family/api.yaml --local --dry-run"][0]
    for region in ("us-east-1", "us-west-2", "eu-west-1"):
        ssm, ec2 = bakery.client("ssm", region), bakery.client(region=region)
        named = ssm.get_parameter(Name="/images/api")["Parameter"]["Value"]
        [image] = ec2.describe_images(ImageIds=[named])["Images"]
        assert image["Name"].startswith("api-")
        assert (named in third["api"]) == (region != "eu-west-1")
    old = bakery.client(region="us-west-2").describe_images(ImageIds=[first["api"][1]])["Images"][0]
    assert "DeprecationTime" in old
    listed = outputs["imagepipe images list --local"][0]
    assert len(re.findall(r"\bdeprecated\b", listed)) == 2, listed

    for spec, command, printed in (
        ("base", "grep -c platform /etc/motd", "1"),
        ("runtime", "systemctl cat app@1.service | grep -c http.server", "1"),
        ("worker[queue=video]", "cat /etc/worker/queue", "video"),
    ):
        with bakery.instance(first[spec][0], "us-east-1") as booted:
            assert booted.sh(command) == printed
    with bakery.instance(third["api"][1], "us-west-2") as booted:
        page = booted.sh("curl -fsS --retry 10 --retry-connrefused http://localhost:8080/")
        assert "hello from api" in page
        assert "one more line" in page
