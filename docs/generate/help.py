"""Write the files that `--help` prints: `python -m docs.generate.help FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from docs.generate.commands import helps
from imagepipe.cli.help_texts import FULL_WIDTH, file_name
from imagepipe.cli.main import main


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name and content of the file of each command, as click prints its help on a wide terminal."""
    # click leaves two columns of a terminal free.
    for path, text in helps("imagepipe", main, None, FULL_WIDTH - 2):
        yield file_name(path.split()[1:]), text + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    kept = dict(texts())
    for file in folder.iterdir():
        if file.name not in kept:
            file.unlink()
    for file_of_command, text in kept.items():
        (folder / file_of_command).write_text(text, encoding="utf-8")
