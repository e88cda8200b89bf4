"""`imagepipe clean` where no cloud is needed: what it leaves alone, and what it goes on past."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.clean import clean
from imagepipe.cli.runs import runs
from imagepipe.clock import SystemClock
from imagepipe.engine.journal import Journal, Lifetime, RunRecord
from imagepipe.errors import CloudError, UsageError
from tests import run_folders
from tests.account import Account
from tests.local.aws.harness import KEY_ID, SECRET


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "imagepipe" / "runs"


@pytest.fixture
def newer_store(tmp_path: Path) -> str:
    """A local cloud that cannot be opened."""
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "format").write_text("99\n")
    return str(tmp_path / "newer")


def _dead(state: Path, run: str, store: str) -> None:
    """A run that holds an instance, and whose process is gone."""
    _begun(state, run, store).close()


def _begun(state: Path, run: str, store: str) -> Journal:
    record = RunRecord(run, "2026-11-23T03:00:00Z", ("web",), {}, {"local": store})
    journal = run_folders.create(state / run, record, SystemClock())
    journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    return journal


def _run(*words: str) -> Result:
    return CliRunner().invoke(clean, words, standalone_mode=False)


def test_a_run_that_cannot_be_cleaned_does_not_keep_the_others_from_it(state: Path, newer_store: str) -> None:
    _dead(state, "aaaa1111", newer_store)
    _dead(state, "bbbb2222", newer_store)
    result = _run("--all")
    assert result.return_value == 5
    for run in ("aaaa1111", "bbbb2222"):
        assert f"{run}: left alone: opening the local cloud's store" in result.output
    assert "hint: upgrade imagepipe" in result.output
    assert "nothing to delete" not in result.output


def test_a_run_in_progress_is_left_alone(state: Path, newer_store: str) -> None:
    journal = _begun(state, "aaaa1111", newer_store)
    everything = _run("--all")
    assert (everything.return_value, everything.exception) == (0, None)
    assert "aaaa1111: left alone: it is in progress" in everything.output
    assert isinstance(_run("aaaa1111").exception, UsageError)
    journal.close()


def test_a_dry_run_lists_the_resources_and_opens_no_cloud(state: Path, newer_store: str) -> None:
    _dead(state, "aaaa1111", newer_store)
    result = _run("aaaa", "--dry-run")
    assert result.return_value == 0
    assert result.output == "aaaa1111: would delete instance i-1 in us-east-1\n"


def test_a_journal_that_was_damaged_does_not_keep_others_from_being_listed(state: Path, newer_store: str) -> None:
    _dead(state, "aaaa1111", newer_store)
    _dead(state, "bbbb2222", newer_store)
    (state / "aaaa1111" / "journal.jsonl").write_text("not json\n")
    listed = CliRunner().invoke(runs, standalone_mode=False).output
    assert "aaaa1111" in listed
    assert "unreadable\n          journal" in listed
    assert "still held: instance i-1 in us-east-1" in listed


def test_a_run_of_another_account_is_not_taken_for_gone(
    state: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    cloud = {"endpoint_url": account.cloud.endpoint, "account": "999999999999"}
    record = RunRecord("aaaa1111", "2026-11-23T03:00:00Z", ("web",), {}, cloud)
    journal = run_folders.create(state / "aaaa1111", record, SystemClock())
    journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-0123456789abcdef0")
    journal.close()
    refused = _run("aaaa1111").exception
    assert isinstance(refused, UsageError)
    assert "in account 999999999999, and these credentials belong to account" in refused.message
    assert [claim.id for claim in run_folders.read(state / "aaaa1111").open_claims()] == ["i-0123456789abcdef0"]


class _FourHoursLater(SystemClock):
    def now(self) -> datetime:
        return super().now() + timedelta(hours=4)


def test_a_named_bucket_is_swept_too_and_a_missing_one_is_an_error(
    account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr("imagepipe.cli.clean.SystemClock", _FourHoursLater)
    account.s3.make_bucket("bundles")
    keys = ["other/notes.txt", "web/0a1b2c3d-c4/web.part.00"]
    for key in keys:
        account.s3.put("bundles", key, b"x")
    endpoint = ["--endpoint-url", account.cloud.endpoint, "--region", "us-east-1"]

    def cleaned(*words: str) -> Result:
        return CliRunner().invoke(clean, ["--older-than", "3h", *endpoint, *words], standalone_mode=False)

    assert cleaned().output == "nothing to delete\n"
    shown = cleaned("--bucket", "bundles", "--dry-run")
    assert "0a1b2c3d: would delete bundle bundles/web/0a1b2c3d-c4 in us-east-1" in shown.output
    assert account.s3.keys("bundles", "") == keys
    assert cleaned("--bucket", "bundles").return_value == 0
    assert account.s3.keys("bundles", "") == ["other/notes.txt"]
    missing = cleaned("--bucket", "no-such-bucket")
    assert isinstance(missing.exception, CloudError)
    assert "bucket no-such-bucket does not exist" in str(missing.exception)
