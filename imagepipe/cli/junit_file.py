"""The file of `--junit`. It reports an error until the run has finished, in case the command is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagepipe.errors import ImagepipeError, UsageError
from imagepipe.report.junit import write_error


@contextmanager
def reported_in(junit: Path | None) -> Iterator[None]:
    """Write an error into the JUnit file at the start, and replace it with the exception if one ends the command.

    Raises UsageError at once if the file cannot be written, not after an hour's build.
    """
    if junit is None:
        yield
        return
    _begin(junit)
    try:
        yield
    except BaseException as error:
        text = str(error) if isinstance(error, ImagepipeError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # the user must see the original error
            write_error(junit, "cancelled" if isinstance(error, KeyboardInterrupt) else text)
        raise


def _begin(path: Path) -> None:
    if path.is_fifo():
        raise UsageError(f"--junit {path}: a named pipe would block until it is read", hint="name a regular file")
    try:
        if path.is_file() or not path.exists():
            write_error(path, "the build did not finish: its process was killed, or is still running")
    except OSError as error:
        folder = path.absolute().parent
        hint = None if folder.is_dir() else f"the folder {folder} does not exist"
        raise UsageError(f"--junit {path}: cannot be written: {error.strerror}", hint=hint) from error
