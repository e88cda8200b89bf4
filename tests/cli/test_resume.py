"""`imagepipe resume` refuses a run that it cannot go on with, and names the way out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.main import main
from imagepipe.clock import SystemClock, iso
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.journal import Journal, RunRecord
from imagepipe.errors import UsageError

SPEC = """\
imagepipe: 1
name: web
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: web}
"""


def _died(tmp_path: Path, existing: object) -> None:
    """Leave the journal of a run that died, with this record of the images that it does not bake."""
    file = tmp_path / "web.yaml"
    file.write_text(SPEC)
    given = {"files": [str(file)], "specs": ["web"], "variables": {}, "region": None, "existing": existing}
    build = {"id": "aaaa1111", "timestamp": "20261129T030000Z"}
    record = RunRecord("aaaa1111", iso(datetime(2026, 11, 29, tzinfo=UTC)), ("web",), build, {}, given)
    Journal.create(FileStore(tmp_path / "imagepipe" / "runs"), record, SystemClock()).close()


def _resume() -> Result:
    return CliRunner().invoke(main, ["resume", "aaaa1111"], standalone_mode=False)


@pytest.mark.parametrize("existing", [{"web": {"us-east-1": "ami-1"}}, {"web": 7}, []])
def test_a_run_that_another_version_started_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: object
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    _died(tmp_path, existing)
    refused = _resume().exception
    assert isinstance(refused, UsageError), refused
    assert str(refused) == "run aaaa1111 cannot be resumed: another version of imagepipe started it"
    assert "imagepipe clean aaaa1111" in (refused.hint or "")
