"""The values of a build that its run records, and those of `build.*`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagepipe.cli.loading import stored_variables
from imagepipe.clock import Clock
from imagepipe.spec.load import Build
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given
from imagepipe.wiring.existing import Existing


def record_for_resume(
    values: Given, loaded: Sequence[LoadedSpec], region: str | None, existing: Mapping[str, Existing]
) -> dict[str, Any]:
    """Return the values that `resume` needs to build the same graph. Sensitive variables are not recorded."""
    return {
        "files": list(dict.fromkeys(str(spec.file.resolve()) for spec in loaded)),
        "folder": str(Path.cwd()),
        "specs": [str(spec.key) for spec in loaded],
        "existing": {key: found.record() for key, found in existing.items()},
        "variables": stored_variables(values, loaded),
        "region": region,
    }


def current_build(run_id: str, files: Sequence[Path], clock: Clock) -> Build:
    """Return the values of `build` for a run that begins now."""
    timestamp = clock.now().strftime("%Y%m%dT%H%M%SZ")
    return Build(run_id, timestamp, *git_sha(files[0].resolve().parent))


def git_sha(folder: Path) -> tuple[str, str]:
    """Return the commit that is checked out in this folder; without one, an empty string and the reason."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    environment = {**os.environ, "LC_ALL": "C"}  # the reasons are recognized by git's English texts
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env=environment)
    except FileNotFoundError:
        return "", "git is not installed on this computer"
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"git cannot be asked for the commit: {error}"
    if answer.returncode == 0:
        return answer.stdout.strip(), ""
    if "not a git repository" in answer.stderr:
        return "", f"{folder} is not in a git repository"
    if "unknown revision" in answer.stderr or "Needed a single revision" in answer.stderr:
        return "", f"the git repository of {folder} has no commits"
    return "", f"git refuses to read the repository of {folder}: {answer.stderr.strip().partition(chr(10))[0]}"
