"""Old spellings: each is one error, at its key, that names the new spelling; none of them works."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from imagepipe.spec.models import AmiByFilter, EbsOutput, Launch, Publish, Spec, Spot, Variable
from imagepipe.spec.old_spellings import RENAMED
from imagepipe.spec.step_models import ShellStep

from .conftest import Loader

SPEC: dict[str, Any] = {
    "imagepipe": 1,
    "name": "web",
    "variables": {"x": {"default": "a"}},
    "source": {"ami": {"name": "debian-*", "owners": ["amazon"]}},
    "launch": {"spot": {}},
    "provision": [{"shell": "echo {{ var.x }}"}],
    "test": [{"shell": "true"}],
    "output": {"name": "web-1"},
    "publish": {},
}
PROVISIONER: dict[str, Any] = {"description": "d", "steps": [{"shell": "true"}]}
VALUES: dict[str, list[Any]] = {
    "volumes": [[], [{"device": "sda"}]],
    "newest": [True, False],
    "fall_back": [True, False],
    "imds": ["v2", "v1"],
    "copy_timeout": ["3h"],
    "keep": [5],
    "required": [True, False],
    "on_disconnect": ["expected", "fail"],
    "rerun": ["safe"],
}
"""Values that the old keys took."""
MODELS: dict[str, type[BaseModel]] = {
    "variables": Variable,
    "source": AmiByFilter,
    "launch.volumes": Launch,
    "launch.spot": Spot,
    "provision": ShellStep,
    "test": ShellStep,
    "steps": ShellStep,
    "output": EbsOutput,
    "publish": Publish,
}


def _written(old: str, value: object) -> tuple[dict[str, Any], str]:
    """A spec (or a provisioner) with the old key, and the key's path there."""
    root: dict[str, Any] = yaml.safe_load(yaml.safe_dump(PROVISIONER if old.startswith("steps") else SPEC))
    *parts, key = old.split(".")
    here: Any = root
    path: list[str] = []
    for part in parts:
        step: Any = part if part != "*" else (0 if isinstance(here, list) else next(iter(here)))
        here = here[step]
        path.append(str(step))
    here[key] = value
    return root, ".".join([*path, key])


@pytest.mark.parametrize("old", RENAMED)
def test_the_new_key_is_part_of_the_language_and_the_old_one_is_not(old: str) -> None:
    (model,) = [model for start, model in MODELS.items() if old.startswith(start)]
    new, hint = RENAMED[old]
    assert new in (model if new != "retention" else Spec).model_fields
    assert old.rpartition(".")[2] not in model.model_fields
    assert new in hint


@pytest.mark.parametrize("old", RENAMED)
def test_every_old_value_of_a_key_is_one_error_at_the_key(loaded: Loader, old: str) -> None:
    key = old.rpartition(".")[2]
    new, hint = RENAMED[old]
    for value in VALUES[key]:
        written, path = _written(old, value)
        text = yaml.safe_dump(written, sort_keys=False)
        if old.startswith("steps"):
            spec = loaded("provision: [{use: own}]\n", files={"provisioners/own/provisioner.yaml": text})
        else:
            spec = loaded(text, whole=True)
        (problem,) = spec.problems
        assert (problem.message, problem.path, problem.hint) == (f"key '{key}' is replaced by '{new}'", path, hint)
        assert text.split("\n")[problem.line - 1][problem.column - 1 :].startswith(f"{key}:")
        assert problem.length == len(key)
        assert spec.spec is None


def test_a_region_with_a_key_instead_of_a_mapping_is_shown_the_mapping(loaded: Loader) -> None:
    spec = loaded(
        "imagepipe: 1\nname: web\nsource: {ami: ami-01234567}\npublish: {regions: [eu-west-1]}\n"
        "output:\n  name: web-1\n  encrypt:\n    per_region: {eu-west-1: alias/x}\n",
        whole=True,
    )
    (problem,) = spec.problems
    assert (problem.message, problem.hint) == (
        "expected a mapping, found 'alias/x'",
        "write eu-west-1: {kms_key: alias/x}",
    )
    assert problem.location() == "web.yaml:8:29"


def test_a_variable_that_only_an_old_key_uses_is_not_called_unused(loaded: Loader) -> None:
    spec = loaded(
        "variables: {size: {default: 8}}\nlaunch: {volumes: [{device: /dev/sdf, size_gib: '{{ var.size }}'}]}\n"
    )
    assert [problem.path for problem in spec.problems] == ["launch.volumes"]


def test_a_key_of_another_place_is_not_an_old_spelling(loaded: Loader) -> None:
    spec = loaded("publish: {volumes: []}\n")
    assert [problem.message.partition(";")[0] for problem in spec.problems] == ["unknown key 'volumes'"]


def test_the_models_have_the_places_that_the_table_names() -> None:
    assert {old.split(".")[0] for old in RENAMED} - {"steps"} <= set(Spec.model_fields)
