"""What goes to the instance: it must stand alone there, on a Python that may be old."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from imagepipe.capture import agent_loader
from imagepipe.capture.agent.frames import HANDSHAKE

OLDEST = (3, 7)
AGENT = Path(str(files("imagepipe.capture.agent")))
HYGIENE = Path(str(files("imagepipe.hygiene")))
EVERY = tuple(dict.fromkeys((*agent_loader.MODULES, *agent_loader.HYGIENE)))


def _tree(name: str) -> ast.Module:
    return ast.parse(agent_loader._source(name), feature_version=OLDEST)


def _imported(name: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_every_module_of_the_agent_is_sent() -> None:
    own = {f"imagepipe.capture.agent.{path.stem}" for path in AGENT.glob("*.py") if path.stem != "__init__"}
    assert own <= set(agent_loader.MODULES)


def test_every_module_of_the_look_is_sent() -> None:
    own = {f"imagepipe.hygiene.{path.stem}" for path in HYGIENE.glob("*.py") if path.stem != "__init__"}
    assert own == set(agent_loader.HYGIENE)


@pytest.mark.parametrize("name", EVERY)
def test_a_module_needs_the_standard_library_and_what_was_sent_before_it(name: str) -> None:
    together = agent_loader.MODULES if name in agent_loader.MODULES else agent_loader.HYGIENE
    before = together[: together.index(name)]
    for each in _imported(name):
        if each.startswith("imagepipe"):
            assert each.startswith(before) or any(one.startswith(f"{each}.") for one in before), each
        else:
            assert each.partition(".")[0] in sys.stdlib_module_names, each


@pytest.mark.parametrize("name", EVERY)
def test_a_module_has_nothing_newer_than_the_oldest_python(name: str) -> None:
    """Beside what the parser says: calls that came later, which we would be tempted to use."""
    newer = {
        "removeprefix",
        "removesuffix",
        "is_relative_to",
        "hardlink_to",
        "readlink",
        "cancel_futures",
        "slots",
        "strict",
    }
    tree = _tree(name)
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not newer & (attributes | {word for word in keywords if word})


def test_the_command_is_the_same_for_every_build() -> None:
    assert agent_loader.command() == agent_loader.command()
    assert "sudo -n" in agent_loader.command()


def test_the_loader_runs_what_is_sent_and_leaves_when_the_controller_does(tmp_path: Path) -> None:
    """Without sudo, and with nobody who speaks after the program: the agent is loaded, asks, and goes."""
    command = [sys.executable, "-I", "-c", agent_loader._LOADER]
    done = subprocess.run(command, input=agent_loader.program(), capture_output=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="as root alone")
def test_root_needs_no_sudo(tmp_path: Path) -> None:
    """There are images with a root login and no sudo."""
    for name in ("sh", "id"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    (tmp_path / "python3").symlink_to(sys.executable)
    command = ["/bin/sh", "-c", agent_loader.command()]
    done = subprocess.run(
        command, input=agent_loader.program(), capture_output=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, HANDSHAKE, b"")


def test_where_there_is_no_python_the_exit_code_says_so() -> None:
    command = ["/bin/sh", "-c", agent_loader._FIND, "imagepipe-agent", agent_loader._LOADER]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, env={"PATH": "/nonexistent"})
    assert done.returncode == agent_loader.NO_PYTHON
