"""The reference and the JSON Schemas are made from the models."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate.spec import PARTS, reference, schema_text
from imagepipe.spec.json_schema import MODELS, SchemaOf

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_not_stale() -> None:
    assert (ROOT / "docs/reference/spec.md").read_text(encoding="utf-8") == reference(), "run: make docs"


@pytest.mark.parametrize("of", MODELS)
def test_the_schema_is_not_stale(of: SchemaOf) -> None:
    page = ROOT / f"docs/reference/{of}.schema.json"
    assert page.read_text(encoding="utf-8") == schema_text(of), "run: make docs"


def test_every_key_has_a_description() -> None:
    for title, model, _ in PARTS:
        for name, field in model.model_fields.items():
            assert field.description, f"{title}: {name}"


def test_the_page_has_every_key_of_a_spec() -> None:
    page = reference()
    for model in (model for _, model, _ in PARTS):
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in page
