"""Packages that add step kinds, as Python finds them once they are installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagepipe import step_kinds

KIND = """\
from pydantic import BaseModel, ConfigDict
from imagepipe import StepKind

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    names: list[str]
    file: str | None = None

class Users(StepKind):
    options = Options
    def title(self, options):
        return "users " + " ".join(options.names)
    def files(self, options):
        return [options.file] if options.file else []
    def check(self, options, folder):
        if "bug" in options.names:
            raise KeyError("bug")
        return [f"{name} is not a name" for name in options.names if "!" in name]
    def run(self, options, machine, folder):
        machine.say("ran")
"""


def add_package(
    folder: Path, name: str, entries: dict[str, str], modules: dict[str, str], version: str = "1.0"
) -> None:
    """Write an installed package into a folder: its modules and its metadata with the entry points."""
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = "".join(f"{entry} = {value}\n" for entry, value in entries.items())
    (info / "entry_points.txt").write_text(f"[{step_kinds.GROUP}]\n{lines}", encoding="utf-8")


@contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Python find the packages of a folder, and forget them afterwards."""
    monkeypatch.syspath_prepend(folder)
    _forget()
    try:
        yield
    finally:
        _forget()


def _forget() -> None:
    step_kinds.installed_kinds.cache_clear()
    step_kinds._load.cache_clear()
