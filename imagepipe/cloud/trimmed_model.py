"""Trim EC2's API model to the operations that this package calls, without documentation: loads in 5 ms, not 97.

    .venv/bin/python -m imagepipe.cloud.trimmed_model      (make model)

This command writes `models/`, which botocore's loader reads first; paginators and endpoints are botocore's own. The
model is botocore's (Apache-2.0). A test compares the trimmed model with the installed botocore's, and its operations
with the calls in the code.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from botocore import xform_name
from botocore.loaders import Loader

from imagepipe.cloud.session import MODELS

PACKAGE = Path(__file__).resolve().parent.parent
CALLERS = ("cloud", "cli")
"""Folders of the package that call EC2's clients."""
SERVICE, VERSION = "ec2", "2016-11-15"
PLACE = MODELS / SERVICE / VERSION / "service-2.json"
_TEXTS = ("documentation", "documentationUrl")


def whole_model() -> dict[str, Any]:
    """Return EC2's model from the installed botocore."""
    model: dict[str, Any] = Loader(include_default_search_paths=True).load_service_model(SERVICE, "service-2", VERSION)
    return model


def called_operations(model: Mapping[str, Any]) -> frozenset[str]:
    """Return EC2's operations that the code names, as methods of a client or as strings."""
    by_method = {xform_name(name): name for name in model["operations"]} | {name: name for name in model["operations"]}
    words = {
        node.attr if isinstance(node, ast.Attribute) else node.value
        for room in CALLERS
        for path in sorted((PACKAGE / room).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    }
    return frozenset(by_method[word] for word in words if word in by_method)


def trim(model: Mapping[str, Any], operations: Iterable[str]) -> dict[str, Any]:
    """Return the model with these operations and their shapes only, without documentation."""
    kept = {name: model["operations"][name] for name in sorted(operations)}
    shapes: dict[str, Any] = {}
    left = [shape for operation in kept.values() for shape in _shapes_of(operation)]
    while left:
        name = left.pop()
        if name not in shapes:
            shapes[name] = model["shapes"][name]
            left += _shapes_of(shapes[name])
    trimmed = {"version": model["version"], "metadata": model["metadata"], "operations": kept}
    result: dict[str, Any] = _without_texts({**trimmed, "shapes": dict(sorted(shapes.items()))})
    return result


def _shapes_of(value: Any) -> list[str]:
    """Return the names of all shapes that a part of a model refers to."""
    if isinstance(value, Mapping):
        own = [value["shape"]] if isinstance(value.get("shape"), str) else []
        return own + [name for item in value.values() for name in _shapes_of(item)]
    if isinstance(value, list):
        return [name for item in value for name in _shapes_of(item)]
    return []


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_texts(item) for key, item in value.items() if not (key in _TEXTS and isinstance(item, str))
        }
    return [_without_texts(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    model = whole_model()
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    PLACE.write_text(json.dumps(trim(model, called_operations(model)), separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
