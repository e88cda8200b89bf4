"""The reference and the JSON Schema are made from the models, and the samples keep to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.generate.spec import PARTS, json_schema, reference
from imagepipe.spec.models import Spec

ROOT = Path(__file__).resolve().parents[2]
SCHEMA: dict[str, Any] = json.loads(json_schema())
SAMPLES = sorted((ROOT / "specs").glob("*.yaml"))


def test_the_page_is_not_stale() -> None:
    assert (ROOT / "docs/reference/spec.md").read_text(encoding="utf-8") == reference(), "run: make docs"


def test_the_schema_is_not_stale() -> None:
    assert (ROOT / "docs/reference/spec.schema.json").read_text(encoding="utf-8") == json_schema(), "run: make docs"


def test_every_key_has_a_description() -> None:
    for title, model, _ in PARTS:
        for name, field in model.model_fields.items():
            assert field.description, f"{title}: {name}"


def test_the_page_has_every_key_of_a_spec() -> None:
    page = reference()
    for model in (model for _, model, _ in PARTS):
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in page


def test_there_are_samples() -> None:
    assert SAMPLES


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_a_sample_keeps_to_the_schema(file: Path) -> None:
    assert list(_violations(yaml.safe_load(file.read_text(encoding="utf-8")), SCHEMA, "")) == []


def test_the_schema_refuses_an_unknown_key() -> None:
    spec = {"imagepipe": 1, "name": "x", "source": {"ami": "ami-01234567"}, "output": {"name": "abc"}}
    assert list(_violations(spec, SCHEMA, "")) == []
    assert list(_violations({**spec, "nam": "x"}, SCHEMA, "")) == [": unknown key nam"]
    assert list(_violations({**spec, "launch": {"regoin": "x"}}, SCHEMA, "")) == ["launch: unknown key regoin"]
    assert list(_violations({"imagepipe": 1}, SCHEMA, "")) == [": no name", ": no output", ": no source"]


def test_the_schema_names_every_key_of_the_model() -> None:
    assert set(SCHEMA["properties"]) == set(Spec.model_fields)


_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def _violations(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Check a value against the parts of JSON Schema that the models use: references, choices, types, keys, items."""
    if "$ref" in schema:
        target: Any = SCHEMA
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return _violations(value, target, path)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            tried = [_violations(value, choice, path) for choice in schema[word]]
            return [] if [] in tried else min(tried, key=len)
    if "const" in schema and value != schema["const"]:
        return [f"{path}: not {schema['const']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: not one of {schema['enum']}"]
    if "type" in schema and not isinstance(value, _KINDS[schema["type"]]):
        return [f"{path}: no {schema['type']}"]
    found: list[str] = []
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{path}: no {name}" for name in sorted(set(schema.get("required", [])) - set(value))]
        for name, item in value.items():
            more = schema.get("additionalProperties", True)
            if name in known:
                found += _violations(item, known[name], f"{path}.{name}".strip("."))
            elif more is False:
                found.append(f"{path}: unknown key {name}")
            elif isinstance(more, dict):
                found += _violations(item, more, f"{path}.{name}".strip("."))
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            found += _violations(item, schema["items"], f"{path}.{index}")
    return found
