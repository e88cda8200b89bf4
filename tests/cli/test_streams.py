"""Standard streams that fail: no traceback, no hang, and an exit code that tells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGEPIPE = f"{sys.executable} -m imagepipe.cli.main"


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.replace("imagepipe", IMAGEPIPE, 1)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["imagepipe --help", "imagepipe validate --help", "imagepipe runs"])
def test_a_full_disk_under_standard_output_is_an_error(tmp_path: Path, command: str) -> None:
    done = shell(f"{command} >/dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: writing standard output: No space left on device\n"


def test_a_full_disk_under_standard_error_does_not_hide_the_exit_code(tmp_path: Path) -> None:
    assert shell("imagepipe validate missing.yaml 2>/dev/full", tmp_path).returncode == 2


def test_a_closed_pipe_ends_a_command_quietly(tmp_path: Path) -> None:
    done = shell("imagepipe --help | true; echo ${PIPESTATUS[0]}", tmp_path)
    assert done.stdout == "1\n"
    assert done.stderr == ""


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing_but_the_exit_code_of_lost_output(tmp_path: Path, streams: str) -> None:
    done = shell(f"imagepipe --version {streams}", tmp_path)
    assert done.returncode == (1 if ">&-" in streams.split() else 0)
    assert "Traceback" not in done.stderr


def test_characters_that_the_terminal_has_not_are_escaped(tmp_path: Path) -> None:
    done = shell("imagepipe validate 'größe.yaml' 2>&1 | cat", tmp_path)
    assert "gr" in done.stdout
    assert "Traceback" not in done.stdout
