"""The process of one bake: it loads its own spec as the client did, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagepipe.cli import run_bake
from imagepipe.cli.run_bake import family_of
from imagepipe.clock import SystemClock
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.journal_store import RunInProgress, StoredJournal
from imagepipe.errors import Problem, SpecError
from imagepipe.spec.find import project_file
from imagepipe.spec.load import Build, load_project
from imagepipe.spec.models import Project
from imagepipe.spec.variables import Given
from imagepipe.state.packages import Package
from imagepipe.temporal.messages import AGAIN

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


def test_nothing_above_a_package_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "imagepipe.yaml").write_text("defaults: {region: eu-west-1}", encoding="utf-8")

    def write(bucket: object, package: object, folder: Path) -> None:
        (folder / "web.yaml").write_text("name: web", encoding="utf-8")

    monkeypatch.setattr(run_bake, "unpack", write)
    with run_bake.unpacked(None, None) as folder:  # type: ignore[arg-type]  # neither is used
        assert folder.is_relative_to(tmp_path / "state"), "and not /tmp, where any user may put a provisioner"
        assert project_file(folder / "web.yaml") == folder / "imagepipe.yaml"
        assert load_project(folder / "web.yaml") == Project()
    assert not folder.exists()


def test_the_files_of_a_bake_that_was_killed_are_deleted_by_the_next_and_those_of_one_that_runs_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def write(bucket: object, package: object, folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner/web.yaml").write_text("name: web", encoding="utf-8")
        (folder / "inner").chmod(0o500)

    monkeypatch.setattr(run_bake, "unpack", write)
    place = tmp_path / "imagepipe/packages"
    dead = place / "specs-killed"
    (dead / "inner").mkdir(parents=True)
    (dead / "inner/secret.yaml").touch()
    (place / "other").touch()
    with run_bake.unpacked(None, None) as first:  # type: ignore[arg-type]  # neither is used
        assert not dead.exists()
        with run_bake.unpacked(None, None) as second:  # type: ignore[arg-type]
            assert first.exists()
            assert first != second
        assert first.exists()
        assert not second.exists()
    assert sorted(each.name for each in place.iterdir()) == ["lock", "other"]


def test_a_problem_of_a_spec_names_the_clients_file() -> None:
    package = Package("/home/ann/images", (), {})
    found = SpecError([Problem("/state/packages/specs-x/specs/web.yaml", 3, 1, "no value")])
    shown = run_bake.where_the_client_has_it(found, Path("/state/packages/specs-x"), package)
    assert [each.file for each in shown.problems] == ["/home/ann/images/specs/web.yaml"]


class _TakenLease:
    """A store of a run whose lease another process has, and whose journal is empty yet."""

    def __init__(self, asks: int) -> None:
        self.left = asks

    def check_free(self, run: str) -> None:
        self.left -= 1
        if self.left >= 0:
            raise RunInProgress(f"run {run} is in progress")

    def journal(self, run: str) -> StoredJournal:
        return StoredJournal(run, [])


def test_a_process_that_has_the_lease_is_waited_for_before_it_has_written_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SystemClock()
    store = _TakenLease(1)
    assert run_bake.past_of(store, "r", Cancel(clock), clock) is None  # type: ignore[arg-type]
    assert store.left < 0
    monkeypatch.setattr(run_bake, "PATIENCE", 0)
    with pytest.raises(RunInProgress):
        run_bake.past_of(_TakenLease(9), "r", Cancel(clock), clock)  # type: ignore[arg-type]
