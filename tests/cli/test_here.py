from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imagepipe.cli.here import SUFFIXES, next_steps
from imagepipe.cli.main import COMMANDS
from imagepipe.spec import find


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
