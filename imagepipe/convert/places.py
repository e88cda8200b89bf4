"""Files that a template names. Packer resolves paths from its working directory, which a template does not tell."""

from __future__ import annotations

from pathlib import Path

from imagepipe.convert.values import TIME_DIGITS
from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem, SpecError
from imagepipe.regular_files import read_regular

MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Folders:
    """Folders in which the files of a template are searched, the template's own first."""

    root: Path
    working: Path

    def find(self, name: str) -> Path:
        """Return the absolute path of a file: in the template's folder, in the working directory, or in a parent.

        Returns the path in the template's folder if none has it.
        """
        path = Path(name)
        if path.is_absolute():
            return path
        folders = [self.root, self.working, *self.root.parents[:4]]
        found = next((folder / path for folder in folders if _exists(folder / path)), None)
        return found or self.root / path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or has a NUL
        return False


def read_template(file: Path, shown: str) -> str:
    """Return the text of a template. Raises SpecError if it cannot be read, or is not text."""
    try:
        raw = read_regular(file)
    except OSError as error:
        raise SpecError([Problem(shown, 0, 0, f"cannot be read: {error.strerror}")]) from error
    if len(raw) > MAX_BYTES:
        raise SpecError([Problem(shown, 0, 0, f"the file is larger than {MAX_BYTES // 2**20} MiB")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        message = f"not UTF-8: byte 0x{raw[error.start]:02x}"
        raise SpecError([Problem(shown, line, column, message)]) from None
    bad = next((character for character in ("\0", *TIME_DIGITS) if character in text), None)
    if bad is not None:
        before_bad = text[: text.index(bad)]
        line, column = before_bad.count("\n") + 1, len(before_bad) - before_bad.rfind("\n")
        raise SpecError([Problem(shown, line, column, f"character {bad!r} is not allowed in a template")])
    return text
