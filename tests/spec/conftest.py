"""Specs written by a test, and what was found wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from imagepipe.spec.load import Build, load
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given

SOUND = """\
imagepipe: 1
name: web
source: {ami: ami-0123456789abcdef0}
output: {name: web-1}
"""
SSH_USER = "defaults: {ssh_user: admin}\n"
"""The project file of every test that does not write its own."""
BUILD = Build(id="b1", timestamp="20261101T000000Z", git_sha="f" * 40)

Loader = Callable[..., LoadedSpec]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Return a function that loads a spec from a text, after a valid beginning unless `whole`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagepipe.yaml").write_text(SSH_USER, encoding="utf-8")

    def run(
        text: str | bytes = "",
        *,
        given: Given | None = None,
        build: Build | None = None,
        files: Mapping[str, str] | None = None,
        whole: bool = False,
    ) -> LoadedSpec:
        for name, content in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        raw = text if isinstance(text, bytes) else (text if whole else SOUND + text).encode()
        (tmp_path / "web.yaml").write_bytes(raw)
        (spec,) = load([Path("web.yaml")], given or Given(), build=build)
        return spec

    return run


def messages(spec: LoadedSpec, severity: str = "error") -> list[str]:
    """Return the messages of a spec, without their positions."""
    return [problem.message for problem in spec.problems if problem.severity == severity]
