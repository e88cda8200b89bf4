"""The command that installs an extra, as hints print it."""

from __future__ import annotations

import pytest

from imagepipe.extras import command_for_extra


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("/home/ada/.local/share/pipx/venvs/imagepipe-ami", "pipx install --force 'imagepipe-ami[fmt]'"),
        ("/home/ada/project/.venv", "pip install 'imagepipe-ami[fmt]'"),
        ("/usr", "pip install 'imagepipe-ami[fmt]'"),
    ],
)
def test_the_command_is_the_one_of_the_environment(prefix: str, command: str) -> None:
    assert command_for_extra("fmt", prefix) == command
