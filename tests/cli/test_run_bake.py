"""The process of one bake: it loads its own spec as the client did, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagepipe.cli.run_bake import family_of
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
