"""`imagepipe build` as a user runs it, as far as it refuses before any cloud is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from imagepipe.cli.build_values import git_sha

ROOT = Path(__file__).resolve().parents[2]
STORE = """\
imagepipe: 1
name: store
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, instance_types: [m3.medium], ssh: {user: admin}}
output: {type: instance-store, name: store-1, bucket: my-images, account: "123456789012"}
"""


def build(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    local = {"IMAGEPIPE_LOCAL_STORE": str(folder / "local"), "XDG_STATE_HOME": str(folder / "state")}
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    return subprocess.run(
        [sys.executable, "-m", "imagepipe.cli.main", "build", *words],
        cwd=folder,
        env={**os.environ, **nowhere, "PYTHONPATH": str(ROOT), "EC2_AMITOOL_HOME": str(folder), **local},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_an_instance_store_build_needs_the_certificate_of_its_ec2(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(STORE)
    result = build(tmp_path, "store.yaml")
    assert result.returncode == 2
    assert f"output: EC2's certificate for us-east-1 was not found in {tmp_path}/etc/ec2/amitools" in result.stderr


def test_a_region_of_the_command_line_asks_for_the_certificate_of_that_region(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(STORE)
    result = build(tmp_path, "store.yaml", "--region", "il-central-1")
    assert result.returncode == 2
    assert "output: imagepipe does not know EC2's certificate for il-central-1" in result.stderr


def test_an_instance_store_build_needs_a_valid_private_key(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(STORE.replace('"}', '", certificate: a, private_key: a}'))
    (tmp_path / "a").write_text("garbage")
    result = build(tmp_path, "store.yaml", "--local")
    assert result.returncode == 2
    assert "output.certificate: a is not an X.509 certificate" in result.stderr
    assert "output.private_key: a is not a private key" in result.stderr
    assert "EC2's certificate" not in result.stderr, "the local cloud has its own"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("missing.yaml",), "missing.yaml"),
        (("broken.yaml",), "unknown key"),
        (("store.yaml",), "EC2's certificate for us-east-1 was not found in"),
        (("good.yaml", "--var", "nothing=1"), "no spec has a variable 'nothing'"),
        (("good.yaml",), "Could not connect to the endpoint URL"),
        (("good.yaml", "--local", "--profile", "mine"), "--local cannot be combined with --profile"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_build_that_is_refused_before_its_run_leaves_a_report_with_an_error(
    tmp_path: Path, words: tuple[str, ...], error: str
) -> None:
    (tmp_path / "store.yaml").write_text(STORE)
    (tmp_path / "broken.yaml").write_text(STORE + "nme: web\n")
    (tmp_path / "good.yaml").write_text(STORE.split("output")[0] + "output: {name: good}\n")
    (tmp_path / "tests.xml").write_text("<testsuites/>")  # of the run before, which passed
    result = build(tmp_path, *words, "--junit", "tests.xml")
    assert result.returncode in (2, 3), result.stderr
    [found] = ET.parse(tmp_path / "tests.xml").getroot().iter("error")
    assert error in (found.text or "")


@pytest.mark.parametrize("name", ["missing/tests.xml", "pipe", "."])
def test_a_report_that_could_not_be_written_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = build(tmp_path, "store.yaml", "--junit", name)
    assert result.returncode == 2
    assert "--junit" in result.stderr


def _git(folder: Path, *words: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *own, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_a_folder_is_found_or_the_reason_why_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_sha(tmp_path) == ("", f"{tmp_path} is not in a git repository")
    _git(tmp_path, "init", "-q")
    assert git_sha(tmp_path) == ("", f"the git repository of {tmp_path} has no commits")
    _git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    assert git_sha(tmp_path) == (_git(tmp_path, "rev-parse", "HEAD"), "")
    (tmp_path / ".git" / "config").write_text("not a config\n")
    found, reason = git_sha(tmp_path)
    assert found == ""
    assert reason.startswith(f"git refuses to read the repository of {tmp_path}: ")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_sha(tmp_path) == ("", "git is not installed on this computer")


def test_a_repository_of_another_user_is_named_with_git_s_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _git(tmp_path, "init", "-q")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert "dubious ownership" in git_sha(tmp_path)[1]


def test_a_build_without_a_commit_is_refused_where_the_spec_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "web.yaml").write_text(
        "imagepipe: 1\nname: web\nsource: {ami: ami-0123456789abcdef0}\n"
        'launch: {region: us-east-1, ssh: {user: admin}}\noutput: {name: "web-{{ build.git_sha }}"}\n'
    )
    result = build(tmp_path, "web.yaml", "--local")
    assert result.returncode == 2
    assert f"output.name: build.git_sha has no value: {tmp_path} is not in a git repository" in result.stderr
    assert (
        "hint: build in a git checkout with a commit, or write {{ build.git_sha | default('none') }}" in result.stderr
    )
