"""The rooms of the local cloud: moto's insides are known to one folder."""

from __future__ import annotations

import re
from pathlib import Path

import imagepipe.local

ROOT = Path(next(iter(imagepipe.local.__path__)))
KNOWS_MOTO = ("aws/moto/", "aws/protocol/query.py")
IMPORT = re.compile(r"^\s*(?:import|from) moto\b", re.MULTILINE)
MODEL = re.compile(r"\bmoto\.model\(")
"""The adapter's access to moto's own objects."""


def _others() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if not _name(path).startswith(KNOWS_MOTO)]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_only_the_adapter_and_the_protocol_use_moto() -> None:
    for path in _others():
        text = path.read_text(encoding="utf-8")
        assert not IMPORT.search(text), f"{path} imports moto"
        assert not MODEL.search(text), f"{path}: moto's objects are wrapped in imagepipe.local.aws.moto"


def test_the_front_of_the_gateway_is_called_by_nobody_below_it() -> None:
    for path in ROOT.rglob("*.py"):
        if "imagepipe.local.aws.app" in path.read_text(encoding="utf-8"):
            assert _name(path) == "daemon/main.py"
