"""The JSON Schemas for editors accept what `validate` accepts, and name the mistakes that people make while typing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from imagepipe.spec.json_schema import EXAMPLES, MODELS, SchemaOf, json_schema
from imagepipe.spec.models import Spec

ROOT = Path(__file__).resolve().parents[2]
MINIMAL: dict[str, Any] = {
    "imagepipe": 1,
    "name": "x",
    "source": {"ami": "ami-01234567"},
    "output": {"name": "abc"},
}
PROJECT = "imagepipe.yaml"
SPECS = sorted(path for path in (ROOT / "specs").rglob("*.yaml") if path.name != PROJECT and "files" not in path.parts)
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, block in enumerate(
        re.findall(r"^```yaml\n(imagepipe: 1\nname: .*?)^```", page.read_text(), re.M | re.S)
    )
]


def _mistakes(content: Any, of: SchemaOf = "spec") -> list[str]:
    return [error.message for error in Draft7Validator(json_schema(of)).iter_errors(content)]


@pytest.mark.parametrize("of", MODELS)
def test_a_schema_is_one_of_draft_7(of: SchemaOf) -> None:
    schema = json_schema(of)
    Draft7Validator.check_schema(schema)
    assert "$defs" not in str(schema)
    for place in _places(schema):
        assert "$ref" not in place or len(place) == 1, "draft 7 ignores whatever stands beside a reference"


def _places(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) else []), *(place for each in inner for place in _places(each))]


@pytest.mark.parametrize("file", SPECS, ids=lambda file: str(file.relative_to(ROOT / "specs")))
def test_a_sample_keeps_to_the_schema(file: Path) -> None:
    assert _mistakes(yaml.safe_load(file.read_text())) == []


@pytest.mark.parametrize("file", sorted((ROOT / "provisioners").rglob("provisioner.yaml")), ids=lambda f: f.parent.name)
def test_a_shipped_provisioner_keeps_to_its_schema(file: Path) -> None:
    assert _mistakes(yaml.safe_load(file.read_text()), "provisioner") == []


def test_a_sample_project_keeps_to_its_schema() -> None:
    assert _mistakes(yaml.safe_load((ROOT / "specs/family/imagepipe.yaml").read_text()), "project") == []


@pytest.mark.parametrize("block", BLOCKS)
def test_a_whole_spec_in_the_docs_keeps_to_the_schema(block: str) -> None:
    assert _mistakes(yaml.safe_load(block)) == []


def test_a_schema_refuses_unknown_and_missing_keys() -> None:
    assert _mistakes(MINIMAL) == []
    assert "'nam' was unexpected" in _mistakes({**MINIMAL, "nam": "x"})[0]
    assert "'regoin' was unexpected" in str(_mistakes({**MINIMAL, "launch": {"regoin": "x"}}))
    assert len(_mistakes({"imagepipe": 1})) == 3
    assert _mistakes({**MINIMAL, "provision": [{"shel": "x"}]})


def test_a_template_may_replace_a_number_a_choice_or_a_list() -> None:
    step = {"shell": "true", "retries": "{{ var.retries }}", "sudo": "{{ var.sudo }}"}
    publish = {"regions": "{{ var.regions }}"}
    assert _mistakes({**MINIMAL, "provision": [step], "publish": publish}) == []
    assert _mistakes({**MINIMAL, "provision": [{"shell": "true", "retries": "three"}]})


def test_every_key_of_a_spec_is_in_its_schema_with_a_description() -> None:
    properties = json_schema()["properties"]
    assert set(properties) == set(Spec.model_fields)
    assert all("description" in each for each in properties.values())


def test_the_examples_keep_to_the_schema() -> None:
    found = {(model, key) for of in MODELS for model, key in _examples(of)}
    assert found == set(EXAMPLES), "an example of a key that does not exist"


def _examples(of: SchemaOf) -> list[tuple[str, str]]:
    schema = json_schema(of)
    models = {**schema["definitions"], MODELS[of].__name__: schema}
    found = []
    for name, model in models.items():
        for key, field in model.get("properties", {}).items():
            for example in field.get("examples", ()):
                validator = Draft7Validator({**field, "definitions": schema["definitions"]})
                assert list(validator.iter_errors(example)) == [], f"{name}.{key}: {example}"
                found.append((name, key))
    return found


@pytest.mark.parametrize("of", MODELS)
def test_a_default_in_a_schema_may_be_written_into_a_file(of: SchemaOf) -> None:
    """Editors write it. A duration is 30m there, not the 1800.0 that it is in Python."""
    schema = json_schema(of)
    for model in (schema, *schema["definitions"].values()):
        for key, field in model.get("properties", {}).items():
            if "default" in field:
                assert field["default"] is not None, f"{key}: nobody writes null"
                validator = Draft7Validator({**field, "definitions": schema["definitions"]})
                assert list(validator.iter_errors(field["default"])) == [], key


@pytest.mark.parametrize("file", [*SPECS, *(ROOT / "specs").rglob(PROJECT), *(ROOT / "provisioners").rglob("*.yaml")])
def test_a_sample_tells_an_editor_its_schema(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    of = {PROJECT: "project", "provisioner.yaml": "provisioner"}.get(file.name, "spec")
    place = (file.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve()
    assert place == ROOT / f"docs/reference/{of}.schema.json"
