"""The command that installs an extra of imagepipe into the environment that this process runs in."""

from __future__ import annotations

import sys
from pathlib import Path


def command_for_extra(extra: str, prefix: str = sys.prefix) -> str:
    """Return the command, for pip or for pipx, whose environments have no pip that users call."""
    package = f"'imagepipe-ami[{extra}]'"
    return f"pipx install --force {package}" if "pipx" in Path(prefix).parts else f"pip install {package}"
