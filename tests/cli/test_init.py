from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner, Result

from imagepipe.cli.init import DISTRIBUTIONS, Ci, DistributionName, init
from imagepipe.errors import UsageError
from imagepipe.spec.formatting import formatted
from imagepipe.spec.json_schema import MODELS
from imagepipe.spec.load import SAMPLE_BUILD, load
from imagepipe.spec.variables import Given

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _init(*words: str) -> Result:
    return CliRunner().invoke(init, list(words))


@pytest.mark.parametrize("distribution", get_args(DistributionName))
@pytest.mark.parametrize("ci", get_args(Ci))
def test_a_new_project_is_valid_and_formatted(folder: Path, distribution: str, ci: str) -> None:
    done = _init("--yes", "--distribution", distribution, "--ci", ci, "--region", "eu-west-1")
    assert done.exit_code == 0, done.output
    (loaded,) = load([Path("specs/web.yaml")], Given(), build=SAMPLE_BUILD)
    assert loaded.problems == []
    spec: Any = loaded.checked()
    assert spec.launch.region == "eu-west-1"
    assert spec.launch.ssh.user == DISTRIBUTIONS[distribution].user  # type: ignore[index]
    for file in folder.rglob("*.yaml"):
        text = file.read_text()
        assert ".github" in file.parts or formatted(text, str(file)) == text
        assert "@" not in text.replace("actions/", "").replace("@v", "")


def test_an_editor_finds_the_schemas(folder: Path) -> None:
    _init("--yes")
    settings = json.loads((folder / ".vscode/settings.json").read_text())
    for schema in settings["yaml.schemas"]:
        assert json.loads((folder / schema).read_text())["$schema"].startswith("http://json-schema.org/draft-07")
    assert len(settings["yaml.schemas"]) == len(MODELS)
    for file in ("specs/web.yaml", "imagepipe.yaml", "provisioners/front-page/provisioner.yaml"):
        first = (folder / file).read_text().splitlines()[0]
        assert (folder / file).parent.joinpath(first.partition("$schema=")[2]).is_file()


@pytest.mark.parametrize(("ci", "file"), [("github", ".github/workflows/images.yaml"), ("gitlab", ".gitlab-ci.yml")])
def test_the_workflow_is_one_that_ci_accepts(folder: Path, ci: str, file: str) -> None:
    _init("--yes", "--ci", ci)
    kind = {"github": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}[ci]
    command = [
        "check-jsonschema",
        "--builtin-schema",
        kind,
        *(["--data-transform", "gitlab-ci"] if ci == "gitlab" else []),
    ]
    checked = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:], str(folder / file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_a_workflow_has_the_name_and_the_region(folder: Path) -> None:
    _init("--yes", "--name", "api", "--region", "eu-central-1")
    workflow = yaml.safe_load((folder / ".github/workflows/images.yaml").read_text())
    steps = workflow["jobs"]["bake"]["steps"]
    assert "imagepipe build api --format json >images.json" in [step.get("run") for step in steps]
    assert "eu-central-1" in [step.get("with", {}).get("aws-region") for step in steps]


def test_no_existing_file_is_changed_and_none_is_written_beside_it(folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new/imagepipe.yaml").symlink_to("nowhere")
    refused = _init("new", "--yes").exception
    assert isinstance(refused, UsageError)
    assert str(refused) == "nothing was written, because imagepipe.yaml exists already"
    assert [path.name for path in (folder / "new").iterdir()] == ["imagepipe.yaml"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--name", "My Web"], "the name 'My Web' is not one of a spec"),
        (["--name", "a/../b"], "is not one of a spec"),
        (["--region", "Frankfurt"], "'Frankfurt' is not the name of a region"),
    ],
)
def test_bad_answers_are_refused_before_anything_is_written(folder: Path, words: list[str], text: str) -> None:
    refused = _init("--yes", *words).exception
    assert isinstance(refused, UsageError)
    assert text in str(refused)
    assert list(folder.iterdir()) == []


def test_the_region_of_the_environment_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    _init("--yes")
    assert "region: ap-south-1" in (folder / "imagepipe.yaml").read_text()


def test_a_terminal_is_asked_four_questions(folder: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from imagepipe.cli.main import run; run()", "init", "asked"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.write(ours, b"shop\nubuntu\neu-west-3\nnone\n")
        process.wait(300)
    os.close(theirs)
    os.close(ours)
    assert process.returncode == 0
    assert (folder / "asked/specs/shop.yaml").is_file()
    assert "eu-west-3" in (folder / "asked/imagepipe.yaml").read_text()
    assert not (folder / "asked/.github").exists()


def test_only_debian_is_said_to_bake_on_the_local_cloud() -> None:
    assert "imagepipe build web --local" in _init("one", "--yes").output
    assert "--local" not in _init("two", "--yes", "--distribution", "ubuntu").output
