"""The lists of inputs that earlier runs kept."""

from __future__ import annotations

from datetime import UTC, datetime

from imagepipe.engine.journal_store import JournalStore
from imagepipe.errors import ImagepipeError
from imagepipe.inputs.manifest import InputManifest, document_of


class PastInputs:
    """The inputs of the runs in a store."""

    def __init__(self, store: JournalStore) -> None:
        self._store = store

    def manifest(self, run: str, key: str) -> InputManifest | str:
        """Return the inputs of a spec in a run, or the reason why they are not known."""
        if not run or (self._store.is_local and not self._store.folder(run).is_dir()):
            where = "on this computer" if self._store.is_local else f"in {self._store}"
            return f"the inputs of run {run or '?'} are not {where}: it ran elsewhere, or its folder was deleted"
        name = document_of(key)
        try:
            content = self._store.document(run, name)
            if content is not None:
                return InputManifest.from_bytes(content, f"{self._store.place(run)}/{name}")
        except ImagepipeError as error:
            return f"{error}{self._age(run)}"
        return f"{self._store.place(run)}/{name} does not exist{self._age(run)}"

    def source(self, run: str, key: str) -> str:
        """Return the source image of a bake from the inputs of its run; empty if they are not known."""
        found = self.manifest(run, key)
        return "" if isinstance(found, str) else found.source

    def _age(self, run: str) -> str:
        if not self._store.is_local:
            return ""
        changed = datetime.fromtimestamp(self._store.folder(run).stat().st_mtime, UTC)
        return f", since {changed:%Y-%m-%d %H:%M} UTC at the latest"
