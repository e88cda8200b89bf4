"""imagepipe as a library, on a cloud whose machines let us in: the examples of the docs bake images."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine.bakery import MINIMAL, Bakery

pytestmark = pytest.mark.machine

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "docs" / "how-to" / "use-as-a-library.md"
FOLDER, SUBSCRIBER = re.findall(r"```python\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
SPEC = MINIMAL.format(name="web-server", steps="  - shell: echo {{ var.greeting }} to you")
GREETED = SPEC + "variables: {greeting: {default: hello}}\n"


def _run(bakery: Bakery, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=bakery.folder,
        env={**bakery.env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


def test_a_program_bakes_a_folder_and_prints_the_images(quick: Bakery) -> None:
    (quick.folder / "specs").mkdir()
    quick.write("specs/web-server.yaml", GREETED)
    done = _run(quick, FOLDER)
    assert (done.returncode, done.stderr) == (0, "")
    first, *images = done.stdout.splitlines()
    assert first == "web-server: bake, because it was not baked yet"
    assert sorted(line.split()[1] for line in images) == ["us-east-1", "us-west-2"]
    assert quick.journal()[-1]["outcome"] == "succeeded"


def test_a_program_follows_the_stages_of_a_build(quick: Bakery) -> None:
    quick.write("web-server.yaml", GREETED)
    done = _run(quick, SUBSCRIBER)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert any(line.startswith("step-1: | hello to you") for line in lines)
    assert any(re.match(r"copy-us-west-2: done in \d+\.\d s", line) for line in lines)
    assert lines[-1].startswith("ami-")


def test_a_step_that_fails_is_a_failure_of_the_result(quick: Bakery) -> None:
    quick.write("web-server.yaml", GREETED.replace("echo", "exit 3;"))
    done = _run(quick, SUBSCRIBER)
    assert done.returncode == 1
    assert "imagepipe.library.BuildError: run " in done.stderr
    assert "failed: step-1: " in done.stderr
    assert quick.journal()[-1]["held"] == []
