"""Scripts that cannot run are reported by validate."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.errors import Problem
from tests.spec.conftest import Loader

STEP = "provision:\n  - shell: {{script: it{more}}}\n"


def _problems(loaded: Loader, folder: Path, content: bytes, more: str = "") -> list[Problem]:
    """Return the errors of a spec whose one step runs a script with this content."""
    (folder / "it").write_bytes(content)
    return [each for each in loaded(STEP.format(more=more)).problems if each.severity == "error"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbf#!/bin/sh\ntrue\n", "starts with a byte order mark, which hides its #! line"),
        (b"\xff\xfet\0r\0u\0e\0", "is encoded in UTF-16"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "is a compiled program, not a script"),
        (b"\x1f\x8b\x08\0\0", "is a gzip archive, not a script"),
        (b"PK\x03\x04\0", "is a ZIP archive, not a script"),
        (b"\x01\0\x02", "is a binary file, not a script"),
    ],
)
def test_a_file_that_no_shell_can_run_is_a_problem(
    loaded: Loader, tmp_path: Path, content: bytes, message: str
) -> None:
    [problem] = _problems(loaded, tmp_path, content)
    assert problem.path == "provision.0.shell.script"
    assert message in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    ("content", "more"),
    [
        ("# caf\u00e9\ntrue\n".encode("latin-1"), ""),
        (b"#!/bin/sh\nexit 0\n\0\xff\x7fELF", ""),
        (b"#!/bin/sh\r\ntrue\r\n", ""),
        (b"\xef\xbb\xbfprint(1)\n", ", interpreter: python3"),
        (b"", ""),
    ],
)
def test_a_script_in_any_encoding_that_a_shell_reads_is_not_a_problem(
    loaded: Loader, tmp_path: Path, content: bytes, more: str
) -> None:
    assert not _problems(loaded, tmp_path, content, more)
