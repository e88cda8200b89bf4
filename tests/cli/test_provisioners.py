"""`imagepipe provisioners`: the provisioners that a spec here can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.main import main
from imagepipe.errors import SpecError, UsageError
from imagepipe.spec.find import SHIPPED, provisioner_folders
from imagepipe.spec.load import load
from imagepipe.spec.provisioners import summarize
from imagepipe.spec.variables import Given

GREETING = """\
description: Greets whoever logs in; a second run changes nothing.
parameters:
  text: {required: true, description: Text of the greeting.}
  loud: {type: boolean, default: false, description: In capitals.}
  extra: {type: list, description: More lines.}
steps:
- use: timezone
- file: {src: motd, dest: /etc/motd}
- name: greeting
  shell: echo {{ param.text | quote }}
  retries: "{{ 1 if param.loud else 0 }}"
- shell: |

    touch /x
    touch /y
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a provisioner of its own, and the working directory in it."""
    _write(tmp_path, "greeting", GREETING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(folder: Path, name: str, text: str) -> None:
    path = folder / "provisioners" / name
    path.mkdir(parents=True)
    (path / "provisioner.yaml").write_text(text)


def _call(*words: str) -> Result:
    return CliRunner().invoke(main, ["provisioners", *words], standalone_mode=False)


def _json(*words: str) -> Any:
    return json.loads(_call(*words, "--format", "json").stdout)


def test_those_of_the_project_and_those_that_are_shipped_are_listed(project: Path) -> None:
    header, *lines = _call().output.splitlines()
    assert header.split() == ["NAME", "WHERE", "DESCRIPTION"]
    by_name = {line.split()[0]: line for line in lines}
    assert list(by_name) == sorted(by_name)
    assert by_name["greeting"].split("  ")[-1].strip() == "Greets whoever logs in"
    assert "provisioners/greeting" in by_name["greeting"]
    assert "shipped with imagepipe" in by_name["apt-install"]


def test_one_is_shown_with_its_parameters_steps_and_an_example(project: Path) -> None:
    assert (
        _call("greeting").output
        == """\
greeting: Greets whoever logs in; a second run changes nothing.
where: provisioners/greeting

parameters:
  text   string, required        Text of the greeting.
  loud   boolean, default false  In capitals.
  extra  list, default []        More lines.

steps:
  1. timezone (use)
  2. motd -> /etc/motd (file)
  3. greeting (shell)
  4. touch /x (shell)

example:
  provision:
    - use: greeting
      with:
        text: value
        # loud: false
        # extra: []
"""
    )


def test_one_in_json_has_all_of_that(project: Path) -> None:
    shown = _json("greeting")
    assert (shown["name"], shown["folder"]) == ("greeting", str(project / "provisioners/greeting"))
    assert shown["is_shipped"] is False
    assert shown["parameters"][1] == {
        "name": "loud",
        "type": "boolean",
        "required": False,
        "default": False,
        "description": "In capitals.",
    }
    assert shown["steps"][0] == {"kind": "use", "name": "timezone"}
    assert {each["name"]: each["is_shipped"] for each in _json()}["apt-install"] is True


def test_the_nearest_of_two_with_one_name_is_used(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(project, "timezone", "description: The project's own.\nsteps: [{reboot: {}}]\n")
    assert _json("timezone")["description"] == "The project's own."
    inner = project / "team"
    _write(inner, "timezone", "description: The team's own.\nsteps: [{reboot: {}}]\n")
    monkeypatch.chdir(inner)
    assert _json("timezone")["description"] == "The team's own."
    assert _json("greeting")["description"].startswith("Greets")


def test_those_beside_the_specs_are_found_too(project: Path) -> None:
    _write(project / "specs", "local", "description: Beside the specs.\nsteps: [{reboot: {}}]\n")
    assert _json("local")["folder"] == str(project / "specs/provisioners/local")
    assert _json("greeting")["name"] == "greeting"


def test_an_unknown_one_is_refused_with_the_nearest_name(project: Path) -> None:
    refused = _call("greetings").exception
    assert isinstance(refused, UsageError)
    assert str(refused) == "no provisioner 'greetings'; did you mean 'greeting'?"
    assert "apt-install" in (refused.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "a provisioner must be a mapping with description and steps"),
        ("", "the file is empty"),
        ("description: d\nsteps: [{shel: x}]\n", "unknown key 'shel'; did you mean 'shell'?"),
        ("steps: [{reboot: {}}]\n", "key 'description' is required"),
        ("description: d\nsteps: [{shell: '{{ param.x }}'}]\n", "undefined parameter 'param.x'"),
        (
            "description: d\nparameters: {n: {type: integer, default: x, description: d}}\nsteps: [{reboot: {}}]\n",
            "the parameter is an integer, but its default is 'x'",
        ),
    ],
)
def test_a_broken_one_is_listed_with_its_problem_and_refused_by_name(project: Path, text: str, message: str) -> None:
    _write(project, "broken", text)
    listed = _call()
    assert listed.return_value == 0
    (line,) = [line for line in listed.output.splitlines() if line.startswith("broken")]
    assert f"{message}" in line
    assert "greeting" in listed.output
    refused = _call("broken").exception
    assert isinstance(refused, SpecError)
    assert message in [problem.message for problem in refused.problems]


@pytest.mark.parametrize("name", provisioner_folders(SHIPPED.parent))
def test_the_example_of_every_shipped_provisioner_is_valid(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = summarize(name, provisioner_folders(tmp_path)[name])
    assert summary.problems == ()
    head = "imagepipe: 1\nname: x\nsource: {ami: ami-12345678}\nlaunch: {ssh: {user: admin}}\noutput: {name: xyz}\n"
    spec = tmp_path / "spec.yaml"
    spec.write_text(head + summary.example())
    (loaded,) = load([spec], Given())
    assert loaded.problems == []
    spec.write_text(head + summary.example().replace("# ", ""))
    (loaded,) = load([spec], Given())
    assert [problem.message for problem in loaded.problems] == [], "the defaults in comments are values that it takes"
