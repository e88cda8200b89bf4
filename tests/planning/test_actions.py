"""Every stage of the recipe is an action of a plan, or is known to be none."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import imagepipe
from imagepipe.engine.stage import Stage
from imagepipe.planning.actions import DESCRIBED, SILENT, Action


def _classes(kind: type[Any]) -> set[type[Any]]:
    return {kind}.union(*(_classes(each) for each in kind.__subclasses__()))


def test_every_class_of_stage_is_described_or_silent() -> None:
    for room in ("launch", "provision", "capture", "publish", "retention"):
        folder = Path(imagepipe.__file__).parent / room
        for module in pkgutil.walk_packages([str(folder)], f"imagepipe.{room}."):
            if ".agent." not in module.name:
                import_module(module.name)
    concrete = {
        each.__name__
        for each in _classes(Stage)
        if each.__module__.startswith("imagepipe.") and not getattr(each, "__abstractmethods__", None)
    }
    abstract = {"CheckedSource", "Step", "Check"}
    assert concrete - abstract == {*DESCRIBED, *SILENT}


def test_an_action_is_a_sentence() -> None:
    assert Action("web", "copy", "the image", "us-west-2").describe() == "copy the image to us-west-2"
    assert Action("web", "create", "a key pair", "us-east-1", True).describe() == (
        "create a key pair in us-east-1 (temporary)"
    )
