"""A tool that fails is an error that names it, with its own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.local.host.tools import run_tool


class ToolError(Exception):
    pass


def test_the_output_is_returned_and_the_input_and_folder_are_the_tools(tmp_path: Path) -> None:
    assert (
        run_tool(["sh", "-c", "cat; pwd"], error=ToolError, stdin="words\n", folder=tmp_path) == f"words\n{tmp_path}\n"
    )


def test_an_accepted_status_is_no_error() -> None:
    assert run_tool(["sh", "-c", "echo mended; exit 1"], error=ToolError, accept=(0, 1)) == "mended\n"


def test_a_failure_is_raised_with_the_command_its_status_and_its_words() -> None:
    with pytest.raises(ToolError, match=r"^sh -c echo no room >&2; exit 3: exit 3: no room$"):
        run_tool(["sh", "-c", "echo no room >&2; exit 3"], error=ToolError)


def test_a_tool_that_is_not_installed_is_named() -> None:
    with pytest.raises(ToolError, match="no-such-tool is not installed"):
        run_tool(["no-such-tool"], error=ToolError)
