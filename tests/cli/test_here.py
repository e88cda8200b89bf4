from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imagepipe.cli.here import SUFFIXES, next_steps
from imagepipe.cli.main import COMMANDS
from imagepipe.engine.journal import Lifetime, RunRecord
from imagepipe.spec import find
from tests.clocks import Stopped
from tests.run_folders import create


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    for name in ("web.yaml", "app.yml", "imagepipe.yaml", "notes.txt"):
        (tmp_path / "specs" / name).touch()
    return tmp_path


def test_an_empty_folder_gets_init_and_the_demo(tmp_path: Path) -> None:
    text = next_steps(tmp_path, {"XDG_STATE_HOME": str(tmp_path)})
    assert "imagepipe init" in text
    assert "imagepipe demo" in text
    assert "imagepipe runs" not in text


def test_a_project_gets_the_commands_for_its_specs(project: Path) -> None:
    (project / "imagepipe/runs/7f3a91c2").mkdir(parents=True)
    text = next_steps(project, {"XDG_STATE_HOME": str(project)})
    assert "2 specs in specs/: app, web." in text
    assert "imagepipe build app --local" in text
    assert "imagepipe runs" in text


@pytest.mark.parametrize(("lines", "held"), [(1, 1), (2, 1), (3, 2), (4, 1), (5, 0), (6, 1)])
def test_a_run_that_did_not_succeed_and_holds_resources_is_named(tmp_path: Path, lines: int, held: int) -> None:
    folder = tmp_path / "imagepipe/runs/7f3a91c2"
    folder.parent.mkdir(parents=True)
    journal = create(folder, RunRecord("7f3a91c2", "", (), {}, {}, {"files": []}), Stopped())
    first = journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="web/launch")
    steps: list[Callable[[], object]] = [
        lambda: journal.bind(first, "i-1"),
        lambda: journal.intend("snapshot", "us-east-1", lifetime=Lifetime.RUN, stage="web/snapshot"),
        lambda: journal.release(first),
        lambda: journal.note("finished", outcome="succeeded", held=[]),
        lambda: journal.note("resumed"),
    ]
    for step in steps[: lines - 1]:
        step()
    assert "still holds" not in next_steps(tmp_path, {"XDG_STATE_HOME": str(tmp_path)}), "its process lives"
    journal.close()
    text = next_steps(tmp_path, {"XDG_STATE_HOME": str(tmp_path)})
    assert (f"still holds {held} resource" in text) == bool(held)
    assert ("imagepipe resume 7f3a91c2" in text) == ("imagepipe clean 7f3a91c2" in text) == bool(held)


def test_a_journal_that_is_cut_or_nonsense_hides_no_answer(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b'{"type": "run"}\n{"ty', b"[]\n", b"\xff\n", b'{"type": "bound"}\n']):
        run = tmp_path / f"imagepipe/runs/0000000{number}"
        run.mkdir(parents=True)
        (run / "journal.jsonl").write_bytes(content)
    assert "imagepipe runs" in next_steps(tmp_path, {"XDG_STATE_HOME": str(tmp_path)})


def test_a_broken_link_among_the_runs_hides_no_other(project: Path) -> None:
    runs = project / "imagepipe/runs"
    (runs / "7f3a91c2").mkdir(parents=True)
    (runs / "broken").symlink_to("nowhere")
    assert "imagepipe runs" in next_steps(project, {"XDG_STATE_HOME": str(project)})


def test_a_dead_launch_is_cleaned_and_not_resumed(tmp_path: Path) -> None:
    journal = create(tmp_path / "imagepipe/runs/7f3a91c2", RunRecord("7f3a91c2", "", (), {}, {}), Stopped())
    journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
    journal.close()
    text = next_steps(tmp_path, {"XDG_STATE_HOME": str(tmp_path)})
    assert "imagepipe clean 7f3a91c2" in text
    assert "imagepipe resume" not in text


def test_a_packer_template_gets_convert(tmp_path: Path) -> None:
    (tmp_path / "old.pkr.hcl").touch()
    assert "imagepipe convert old.pkr.hcl" in next_steps(tmp_path, {})


def test_without_a_home_there_are_no_runs(tmp_path: Path) -> None:
    assert "imagepipe runs" not in next_steps(tmp_path, {"XDG_STATE_HOME": "~nobody-of-this-name"})


def test_the_suffixes_are_those_of_specs() -> None:
    assert SUFFIXES == find.SUFFIXES


@pytest.mark.parametrize("module", ["imagepipe", "imagepipe.cli.main"])
def test_python_runs_the_package_as_the_command(project: Path, module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module], cwd=project, capture_output=True, text=True, check=True)
    assert "imagepipe validate" in done.stdout


def test_every_command_that_is_named_exists(project: Path, tmp_path: Path) -> None:
    (tmp_path / "old.pkr.hcl").touch()
    for folder in (project, tmp_path / "absent", tmp_path):
        for line in next_steps(folder, {"XDG_STATE_HOME": str(project)}).splitlines():
            words = line.split()
            if words[:1] == ["imagepipe"] and line.startswith("  "):
                assert words[1] in {*COMMANDS, "convert"}
