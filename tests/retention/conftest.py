"""A folder with a spec, and an account for its images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.account import Account
from tests.local.aws.harness import KEY_ID, SECRET
from tests.retention.baked import Workshop


@pytest.fixture
def workshop(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = Workshop(account, folder)
    made.spec()
    return made
