"""The answer to `imagepipe` alone: what this folder has, and which commands come next.

Loads nothing but the standard library and click.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

SUFFIXES = (".yaml", ".yml")  # those of spec/find.py, which would load pydantic
PROJECT = "imagepipe.yaml"
MOST_NAMES = 6
MOST_RUNS = 20
"""Runs that are looked at, the newest first: the answer comes at once, and `imagepipe runs` lists the others."""
COLUMN = 46


def next_steps(folder: Path, environ: Mapping[str, str]) -> str:
    """Return the lines to print."""
    lines = ["imagepipe bakes Amazon Machine Images from YAML, on AWS or on this computer.", ""]
    specs = _specs(folder)
    packer = sorted(path.name for path in folder.glob("*.pkr.hcl"))
    if specs:
        first = specs[0]
        shown = ", ".join(specs[:MOST_NAMES]) + (f" and {len(specs) - MOST_NAMES} more" * (len(specs) > MOST_NAMES))
        lines.append(f"This folder has {len(specs)} spec{'s' * (len(specs) != 1)} in specs/: {shown}.")
        lines += _commands(
            {
                "imagepipe validate": "check every spec",
                f"imagepipe build {first} --local": "bake it here, without an account",
                f"imagepipe plan {first}": "see what a build on AWS would do and cost",
                f"imagepipe build {first}": "bake it on AWS",
            }
        )
    else:
        lines.append("This folder has no specs/ yet.")
        more = {f"imagepipe convert {packer[0]}": "turn this Packer template into specs"} if packer else {}
        lines += _commands(
            {
                "imagepipe init": "write a project that bakes at once",
                **more,
                "imagepipe demo": "bake, boot and fetch a sample here, without an account",
            }
        )
    runs = _runs(environ)
    for run in runs[:MOST_RUNS]:
        held, is_build = _held(run)
        if held:
            resume = {f"imagepipe resume {run.name}": "go on where it stopped"} if is_build else {}
            lines += [
                "",
                f"Run {run.name} did not succeed, and still holds {held} resource{'s' * (held != 1)}:",
                *_commands({**resume, f"imagepipe clean {run.name}": "delete them"}),
            ]
            break
    if runs:
        lines += [
            "",
            "Runs of this computer:",
            *_commands({"imagepipe runs": "list them", "imagepipe show latest": ""}),
        ]
    lines += ["", "All commands: imagepipe --help"]
    return "\n".join(lines)


def _specs(folder: Path) -> list[str]:
    """Return the names of the files in specs/, without their extension, in order."""
    try:
        with os.scandir(folder / "specs") as entries:
            files = [Path(entry.name) for entry in entries if entry.is_file()]
    except OSError:
        return []
    return sorted(file.stem for file in files if file.suffix in SUFFIXES and file.name != PROJECT)


def _runs(environ: Mapping[str, str]) -> list[Path]:
    """Return the folders of the runs of this computer, the newest first."""
    root = environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        folder = Path(root).expanduser() / "imagepipe" / "runs"
        return sorted((run for run in folder.iterdir() if run.is_dir()), key=_changed, reverse=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return []


def _changed(run: Path) -> float:
    try:
        return run.stat().st_mtime
    except OSError:  # it was deleted just now
        return 0


def _held(run: Path) -> tuple[int, bool]:
    """Return how many resources a dead or failed run holds, and whether it is a build, which can be resumed.

    This is the reading of `engine/journal.py`, in short.
    """
    open_claims, outcome, is_build = set(), None, False
    try:
        with (run / "journal.jsonl").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            for line in file:
                record = json.loads(line)
                match record["type"]:
                    case "run":
                        is_build = bool(record.get("given"))
                    case "intended" | "bound" | "unkept":
                        open_claims.add(record["claim"])
                    case "released" | "kept":
                        open_claims.discard(record["claim"])
                    case "finished" | "resumed":
                        outcome = record.get("outcome")
    except OSError:  # BlockingIOError: a process holds it, and works
        return 0, False
    except (ValueError, KeyError, TypeError):
        pass  # the last line of a dead process may be cut; `imagepipe runs` explains what cannot be read
    return 0 if outcome == "succeeded" else len(open_claims), is_build


def _commands(commands: Mapping[str, str]) -> Iterator[str]:
    for command, purpose in commands.items():
        yield f"  {command:<{COLUMN}}{purpose}".rstrip()
