"""`imagepipe local` where no machine is needed: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.local import local
from imagepipe.cli.local_serve import print_exports
from imagepipe.errors import LocalCloudError
from imagepipe.local.daemon.rendezvous import Serving
from imagepipe.local.machines import requirements
from imagepipe.local.machines.requirements import Finding, Verdict
from imagepipe.local.store import Store


def run(store: Path, *words: str) -> Result:
    return CliRunner().invoke(local, ["--store", str(store), *words])


def test_status_of_a_store_without_a_cloud(tmp_path: Path) -> None:
    result = run(tmp_path, "status")
    assert result.exit_code == 0
    assert "process    none" in result.output
    assert str(tmp_path) in result.output


def test_stop_of_a_cloud_that_does_not_run_is_success(tmp_path: Path) -> None:
    result = run(tmp_path, "stop")
    assert result.exit_code == 0
    assert "is not running" in result.output


@pytest.mark.parametrize("command", ["serve", "stop", "status", "images", "doctor", "base"])
def test_a_store_of_a_newer_version_is_refused_by_every_command(tmp_path: Path, command: str) -> None:
    (tmp_path / "format").write_text("99\n")
    result = run(tmp_path, command)
    assert isinstance(result.exception, LocalCloudError)
    assert "newer imagepipe" in result.exception.message


def test_doctor_prints_the_command_that_installs_missing_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks = [
        Finding("slirp4netns", Verdict.MISSING, "not found", "slirp4netns"),
        Finding("mmdebstrap", Verdict.MISSING, "not found", "mmdebstrap"),
    ]
    monkeypatch.setattr(requirements, "examine", lambda store: lacks)
    result = run(tmp_path, "doctor")
    assert "apt-get install --yes --no-install-recommends mmdebstrap slirp4netns" in result.output
    assert isinstance(result.exception, LocalCloudError)
    assert "slirp4netns, mmdebstrap missing" in result.exception.message


@pytest.mark.parametrize(("first_real", "says"), [(0, False), (1024, True)])
def test_serve_says_at_which_port_ssh_is_without_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first_real: int, says: bool
) -> None:
    print_exports(Store.open(tmp_path), Serving(1, "1", 4566, first_real), env_only=False)
    assert ("SSH is at port 20022" in capsys.readouterr().out) is says
    print_exports(Store.open(tmp_path), Serving(1, "1", 4566, first_real), env_only=True)
    assert all(line.startswith("export ") for line in capsys.readouterr().out.splitlines())


def test_the_store_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEPIPE_LOCAL_STORE", str(tmp_path / "named"))
    result = CliRunner().invoke(local, ["status"])
    assert str(tmp_path / "named") in result.output


def test_a_port_that_cannot_be_is_wrong_usage(tmp_path: Path) -> None:
    assert run(tmp_path, "serve", "--port", "70000").exit_code == 2
