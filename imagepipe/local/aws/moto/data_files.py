"""Read botocore's data files once while moto is imported.

moto opens a session for each table of regions that it makes, and each session would parse the same megabytes of JSON:
a quarter of the time in which the local cloud starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from botocore.loaders import JSONFileLoader, Loader


class _CachedFiles(JSONFileLoader):  # type: ignore[misc]  # botocore has no types
    """Keeps what it has read, until `read_once` ends."""

    read: ClassVar[dict[str, Any]] = {}

    def load_file(self, file_path: str) -> Any:
        if file_path not in self.read:
            self.read[file_path] = super().load_file(file_path)
        return self.read[file_path]


@contextmanager
def read_once() -> Iterator[None]:
    """Let all sessions that are opened inside the block share the files that they read."""
    own = Loader.FILE_LOADER_CLASS
    Loader.FILE_LOADER_CLASS = _CachedFiles
    try:
        yield
    finally:
        Loader.FILE_LOADER_CLASS = own
        _CachedFiles.read.clear()
