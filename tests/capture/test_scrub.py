"""The script of the scrub, and the page that lists what it deletes."""

from __future__ import annotations

import re
from pathlib import Path

from imagepipe.capture.scrub import script_text

DOCS = Path(__file__).resolve().parents[2] / "docs/how-to/hygiene.md"


def test_the_docs_list_every_folder_that_is_emptied_and_every_file_that_is_deleted() -> None:
    listed = DOCS.read_text(encoding="utf-8")
    script = script_text().replace("\\\n", " ")
    words = [
        word.strip("\"'").replace('$home"', "~").replace("$home", "~")
        for line in script.splitlines()
        if (found := re.match(r"\s*(?:if .*; then )?(drop|blank|empty)((?: [^;#(]+)+)", line))
        for word in found[2].split()
    ]
    paths = {word for word in words if word.startswith(("/", "~")) and "$log" not in word}
    assert len(paths) > 35
    assert {path for path in paths if f"`{path}`" not in listed} == set()
    for log in re.search(r"for log in (.*?); do", script, re.S)[1].split():  # type: ignore[index]
        assert f"`{log}`" in listed


def test_every_deletion_is_by_one_of_the_three_guarded_functions() -> None:
    deletes = re.compile(r"\brm\b|-delete|\bunlink\b|: >|\brmdir\b")
    lines = [line.strip() for line in script_text().splitlines() if deletes.search(line)]
    assert sorted(lines) == sorted(
        [
            'if is_own "${file%/*}/"; then rm -f -- "$file"; fi',
            'if [ -f "$file" ] && is_own "$file"; then : >"$file"; fi',
            '-exec sh -c "exec find \\"\\$@\\" -xdev -depth -delete" sh {} + 2>/dev/null',
            'rmdir "$view"',
            'if [ -f "$state" ]; then : >"$state"; fi',
            r"""if [ -n "$rest" ]; then printf '%s\n' "$rest" >"$file"; else rm -f "$file"; fi""",
        ]
    )
