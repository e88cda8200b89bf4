"""Old spellings: each is one error, at its key, that names the new spelling; none of them works."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from imagepipe.spec.models import AmiByFilter, EbsOutput, Launch, Publish, ShellStep, Spec, Spot, Variable
from imagepipe.spec.old_spellings import RENAMED, OldSpelling

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
VALUES: dict[str, Any] = {"volumes": [], "newest": True, "fall_back": True, "copy_timeout": "3h"}
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


def _id(old: OldSpelling) -> str:
    return old.path


def _written(old: OldSpelling, value: object) -> tuple[dict[str, Any], str]:
    """A spec (or a provisioner) with the old key, and the key's path there."""
    root: dict[str, Any] = yaml.safe_load(yaml.safe_dump(PROVISIONER if old.path.startswith("steps") else SPEC))
    *parts, key = old.path.split(".")
    here: Any = root
    path: list[str] = []
    for part in parts:
        step: Any = part if part != "*" else (0 if isinstance(here, list) else next(iter(here)))
        here = here[step]
        path.append(str(step))
    here[key] = value
    return root, ".".join([*path, key])


@pytest.mark.parametrize("old", RENAMED, ids=_id)
def test_the_new_key_is_part_of_the_language_and_the_old_one_is_not(old: OldSpelling) -> None:
    (model,) = [model for start, model in MODELS.items() if old.path.startswith(start)]
    assert old.new in model.model_fields
    assert old.path.rpartition(".")[2] not in model.model_fields
    assert old.new in old.sentence


@pytest.mark.parametrize("old", RENAMED, ids=_id)
def test_every_old_value_of_a_key_is_one_error_at_the_key(loaded: Loader, old: OldSpelling) -> None:
    key = old.path.rpartition(".")[2]
    for value in [*old.values] or [VALUES[key]]:
        written, path = _written(old, value)
        text = yaml.safe_dump(written, sort_keys=False)
        if old.path.startswith("steps"):
            spec = loaded("provision: [{use: own}]\n", files={"provisioners/own/provisioner.yaml": text})
        else:
            spec = loaded(text, whole=True)
        (problem,) = spec.problems
        assert (problem.message, problem.path, problem.hint) == (old.message(), path, old.sentence)
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
    assert problem.message == "the value of a region is now a mapping: write eu-west-1: {kms_key: alias/x}"
    assert problem.location() == "web.yaml:8:29"


def test_the_value_of_an_old_key_is_checked_too(loaded: Loader) -> None:
    spec = loaded("launch:\n  volumes: [{device: sda}]\n")
    assert [(problem.path, problem.line, problem.column) for problem in spec.problems] == [
        ("launch.volumes", 6, 3),
        ("launch.block_devices.0.device", 6, 22),
    ]


def test_a_variable_that_only_an_old_key_uses_is_not_called_unused(loaded: Loader) -> None:
    spec = loaded(
        "variables: {size: {default: 8}}\nlaunch: {volumes: [{device: /dev/sdf, size_gib: '{{ var.size }}'}]}\n"
    )
    assert [problem.path for problem in spec.problems] == ["launch.volumes"]


def test_a_key_of_another_place_is_not_an_old_spelling(loaded: Loader) -> None:
    spec = loaded("publish: {volumes: []}\n")
    assert [problem.message.partition(";")[0] for problem in spec.problems] == ["unknown key 'volumes'"]


def test_the_models_have_the_places_that_the_table_names() -> None:
    assert {old.path.split(".")[0] for old in RENAMED} - {"steps"} <= set(Spec.model_fields)
