"""The words that `imagepipe why` takes: specs, and at the end the id of an image."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from imagepipe.cli.main import main
from imagepipe.errors import UsageError

SPEC = """\
imagepipe: 1
name: base
source: {ami: {id: ami-0123456789abcdef0}}
launch: {region: eu-west-1, ssh: {user: admin}}
output: {name: base}
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_a_spec_whose_file_is_named_like_an_image_is_a_spec() -> None:
    Path("ami-base.yaml").write_text(SPEC)
    result = CliRunner().invoke(main, ["why", "--offline", "ami-base.yaml"], catch_exceptions=False)
    assert (result.exit_code, result.output.splitlines()[0]) == (0, "base: not baked yet")


def test_an_image_without_a_spec_is_refused() -> None:
    result = CliRunner().invoke(main, ["why", "--offline", "ami-0123456789abcdef0"])
    assert isinstance(result.exception, UsageError)
    assert "name a spec too" in str(result.exception)
