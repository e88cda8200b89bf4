"""`imagepipe build --engine`: the command lines that cannot work are refused before anything is stored or started."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
from click.testing import CliRunner

import imagepipe.cli.worker as cli_worker
from imagepipe.cli.build import build
from imagepipe.cli.engine import explain
from imagepipe.cli.worker import worker
from imagepipe.errors import UsageError
from imagepipe.temporal.messages import BakedSpec, BuildResult, Progress

SPEC = """\
imagepipe: 1
name: web
variables:
  port: {}
  token: {sensitive: true, env: TOKEN}
source: {ami: ami-12345678}
launch: {region: us-east-1, ssh: {user: admin}}
provision:
  - shell: echo {{ var.port }} {{ var.token }}
output: {name: "web-{{ build.id }}"}
"""
ENGINE = "temporal://127.0.0.1:1/images"
STATE = ("--state", "s3://our-state")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMAGEPIPE_STATE", raising=False)
    (tmp_path / "web.yaml").write_text(SPEC, encoding="utf-8")
    return tmp_path / "web.yaml"


def _refused(*words: str) -> UsageError:
    result = CliRunner().invoke(build, list(words), standalone_mode=False)
    assert isinstance(result.exception, UsageError), result.exception
    return result.exception


def test_a_build_on_temporal_needs_shared_state(spec: Path) -> None:
    error = _refused("web.yaml", "--engine", ENGINE, "--var", "port=80")
    assert "no bucket is named" in str(error)
    assert "--state s3://" in str(error.hint)


def test_an_engine_of_another_kind_is_refused(spec: Path) -> None:
    assert "is not known" in str(_refused("web.yaml", "--engine", "http://127.0.0.1", *STATE))


def test_a_sensitive_variable_does_not_travel(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "vars.yaml").write_text("token: hunter2\n", encoding="utf-8")
    error = _refused("web.yaml", "--engine", ENGINE, *STATE, "--var", "port=80", "--var-file", "vars.yaml")
    assert "variable 'token' of web is sensitive" in str(error)
    assert "hunter2" not in f"{error} {error.hint}"
    assert "IMAGEPIPE_VAR_token in the environment of the workers" in str(error.hint)


def test_a_variable_without_a_value_is_named_before_the_build(spec: Path) -> None:
    assert "variable 'port' of web has no value" in str(_refused("web.yaml", "--engine", ENGINE, *STATE))


def test_a_key_beside_the_spec_does_not_travel(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("key", encoding="utf-8")
    text = SPEC.replace("user: admin", "user: admin, key_pair: ours, private_key: id")
    spec.write_text(text, encoding="utf-8")
    error = _refused("web.yaml", "--engine", ENGINE, *STATE, "--var", "port=80")
    assert "launch.ssh.private_key of web is id" in str(error)


@pytest.mark.parametrize("option", [("--junit", "x.xml"), ("--plan", "x.plan"), ("--keep-on-failure=2h",)])
def test_options_without_a_counterpart_are_refused(spec: Path, option: tuple[str, ...]) -> None:
    assert "cannot be combined with --engine" in str(_refused("web.yaml", "--engine", ENGINE, *STATE, *option))


@pytest.mark.parametrize("id", ["", "a b", "../x", "x" * 101])
def test_a_build_id_is_a_plain_word(spec: Path, id: str) -> None:
    assert "not an id" in str(_refused("web.yaml", "--engine", ENGINE, *STATE, "--build-id", id))


def test_a_build_id_needs_an_engine(spec: Path) -> None:
    assert "it needs --engine" in str(_refused("web.yaml", "--build-id", "x"))


@pytest.mark.parametrize(
    "words",
    [
        ("--temporal", "a b"),
        ("--temporal", "h:0"),
        ("--temporal", "h:1", "--namespace", ""),
        ("--temporal", "h:1", "--queue", ""),
        ("--temporal", "h:1", "--queue", "x/clean"),
        ("--temporal", "h:1", "--queue", "x" * 201),
    ],
)
def test_a_worker_refuses_an_address_and_a_queue_that_are_none(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(worker, list(words), standalone_mode=False)
    assert isinstance(result.exception, UsageError)


@pytest.mark.parametrize("address", ["x", "localhost:", "0", "h:70000"])
def test_a_worker_listens_on_a_port(address: str) -> None:
    result = CliRunner().invoke(worker, ["--temporal", "h:1", "--health", address])
    assert result.exit_code == 2
    assert "is not an address" in result.output


def test_images_with_something_that_is_still_held_have_the_exit_code_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    baked = BakedSpec("web", "0123abcd", [], "w", held="not cleaned up: vol-1 is in use")
    assert explain(BuildResult([baked], [Progress("web", "0123abcd", "baked")]), (), " --state s3://b") == 5
    assert "imagepipe clean 0123abcd --state s3://b" in capsys.readouterr().err


def test_a_failed_bake_names_the_command_that_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Progress("web", "0123abcd", "failed", "error: step 1: exit 1")
    result = BuildResult([], [failed])
    assert explain(result, {"0123abcd"}, " --local --state s3://b") == 4
    assert capsys.readouterr().err == (
        "error: web: step 1: exit 1\n  hint: imagepipe show 0123abcd --local --state s3://b\n"
    )
    assert explain(result, (), " --local --state s3://b") == 4
    assert "show" not in capsys.readouterr().err, "a run that never began cannot be shown"


def test_a_reader_that_has_stopped_does_not_stop_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_worker, "MOST_LINES", 3)
    reads, lines = Event(), list[str]()

    def echo(line: str) -> None:
        reads.wait()
        lines.append(line)

    with cli_worker.printer(echo) as print_line:
        for number in range(100):
            print_line(str(number))  # would wait for ever
        reads.set()
    assert lines[:3] == ["0", "1", "2"]
    assert len(lines) < 100
