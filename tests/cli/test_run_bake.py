"""The process of one bake: it loads its own spec as the client did, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagepipe.cli.run_bake import AGAIN, family_of
from imagepipe.errors import SpecError
from imagepipe.spec.load import Build
from imagepipe.spec.variables import Given

SPEC = """\
imagepipe: 1
name: {name}
variables: {{token: {{sensitive: true, env: {name}_TOKEN}}}}
source: {source}
launch: {{region: us-east-1, ssh: {{user: admin}}}}
provision:
  - shell: echo {{{{ var.token }}}}
output: {{name: "{name}-{{{{ build.id }}}}"}}
"""
BUILD = Build("0123abcd", "20260102T150405Z", "")
VALUES = {
    "named": ["app"],
    "specs": {"app": {"files": ["specs/app.yaml", "base.yaml"]}, "other": {"files": ["specs/other.yaml"]}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    for path, source in (
        ("base", "{ami: ami-12345678}"),
        ("specs/app", "{image: base}"),
        ("specs/other", "{image: x}"),
    ):
        text = SPEC.format(name=os.path.basename(path), source=source)  # noqa: PTH119 - of a text
        (tmp_path / f"{path}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_bake_needs_the_secrets_of_its_own_spec_and_bases_alone(folder: Path) -> None:
    given = Given({}, {}, {"app_TOKEN": "one", "base_TOKEN": "two"})
    family = family_of("app", folder, VALUES, given, BUILD)
    assert [(str(each.key), each.is_named) for each in family] == [("app", True), ("base", False)]


def test_a_secret_that_the_worker_lacks_is_named(folder: Path) -> None:
    with pytest.raises(SpecError) as refused:
        family_of("app", folder, VALUES, Given({}, {}, {"base_TOKEN": "two"}), BUILD)
    assert "token" in str(refused.value.problems)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_of_the_whole_service_is_no_cancel_of_the_build(number: signal.Signals) -> None:
    code = (
        "import os\n"
        "from imagepipe.cli.run import stopped_by_signals\n"
        "from imagepipe.cli.run_bake import resumable_after_signals\n"
        "from imagepipe.clock import SystemClock\n"
        "from imagepipe.engine.cancel import Cancel\n"
        "with stopped_by_signals(Cancel(SystemClock())), resumable_after_signals():\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    raise SystemExit('not stopped')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (AGAIN, b"")
