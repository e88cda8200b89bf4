"""The gateway's memory: records by kind, in memory to read, and on disk before any answer leaves.

One writer at a time, under `lock`. A change that raises leaves neither memory nor disk changed, which is also
how a DryRun is done. What must follow a change (a machine to start, bytes to copy) is handed in with it and runs
only once the change is on disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from imagepipe.errors import LocalCloudError
from imagepipe.local.gateway import codec
from imagepipe.local.gateway.records import (
    AccessKey,
    Account,
    Image,
    Instance,
    KeyPair,
    Record,
    SecurityGroup,
    Session,
    Setting,
    Snapshot,
    Token,
    Volume,
)

FORMAT = 4
"""Raised when an older program could no longer read what this one writes."""

KINDS: tuple[type[Record], ...] = (
    Instance,
    Volume,
    Snapshot,
    Image,
    KeyPair,
    SecurityGroup,
    Token,
    Setting,
    Account,
    AccessKey,
    Session,
)

R = TypeVar("R", bound=Record)


class Table(Generic[R]):
    """All records of one kind, in the order in which they were first put."""

    def __init__(self, kind: type[R]) -> None:
        self.kind = kind
        self._rows: dict[str, R] = {}

    def get(self, identifier: str) -> R | None:
        return self._rows.get(identifier)

    def __getitem__(self, identifier: str) -> R:
        return self._rows[identifier]

    def __iter__(self) -> Iterator[R]:
        return iter(tuple(self._rows.values()))

    def __len__(self) -> int:
        return len(self._rows)

    def owned(self, account: str, region: str) -> list[R]:
        """What this account has in this region."""
        return [row for row in self if row.account == account and row.region == region]

    def in_region(self, region: str) -> list[R]:
        """What anybody has in this region."""
        return [row for row in self if row.region == region]


class Ledger:
    """Records of all kinds, durable. Reading needs `lock` only where several records must fit together."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._depth = 0
        self._before: dict[tuple[type[Record], str], Record | None] = {}
        self._blobs: dict[str, bytes | None] = {}
        self._later: list[Callable[[], object]] = []
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._prepare(path)
        self.instances: Table[Instance] = Table(Instance)
        self.volumes: Table[Volume] = Table(Volume)
        self.snapshots: Table[Snapshot] = Table(Snapshot)
        self.images: Table[Image] = Table(Image)
        self.key_pairs: Table[KeyPair] = Table(KeyPair)
        self.groups: Table[SecurityGroup] = Table(SecurityGroup)
        self.tokens: Table[Token] = Table(Token)
        self.settings: Table[Setting] = Table(Setting)
        self.accounts: Table[Account] = Table(Account)
        self.access_keys: Table[AccessKey] = Table(AccessKey)
        self.sessions: Table[Session] = Table(Session)
        self._tables: dict[type[Record], Table[Record]] = {
            table.kind: table  # type: ignore[misc]  # a table only ever holds its own kind
            for table in (
                self.instances,
                self.volumes,
                self.snapshots,
                self.images,
                self.key_pairs,
                self.groups,
                self.tokens,
                self.settings,
                self.accounts,
                self.access_keys,
                self.sessions,
            )
        }
        self._load()

    def _prepare(self, path: Path) -> None:
        path.chmod(0o600)  # user data may hold keys
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # WAL's default syncs at checkpoints only
        [found] = self._db.execute("PRAGMA user_version").fetchone()
        if found > FORMAT:
            self._db.close()
            raise LocalCloudError(
                f"opening the local cloud's records {path}: written in format {found}, this imagepipe knows {FORMAT}",
                hint="use the newer imagepipe that made this store, or another store",
            )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS record "
            "(place INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, "
            "UNIQUE (kind, id))"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS blob (name TEXT PRIMARY KEY, body BLOB NOT NULL)")
        self._db.execute(f"PRAGMA user_version = {FORMAT}")

    def _load(self) -> None:
        by_name = {kind.__name__: kind for kind in KINDS}
        for name, body in self._db.execute("SELECT kind, body FROM record ORDER BY place"):
            record = codec.loads(by_name[name], body)
            self._tables[type(record)]._rows[record.id] = record

    @contextmanager
    def change(self) -> Iterator[None]:
        """All puts and removals inside are made, on disk, when this ends; none of them if it raises.

        May be nested: the outermost decides.
        """
        with self.lock:
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._commit()
            except BaseException:
                if self._depth == 1:
                    self._restore()
                raise
            finally:
                self._depth -= 1
            if self._depth:
                return
            later, self._later = self._later, []
        for follow in later:
            follow()

    def put(self, record: Record) -> None:
        """Keep this record, in place of an older one of its kind and id."""
        rows = self._tables[type(record)]._rows
        self._note(type(record), record.id)
        rows[record.id] = record

    def remove(self, record: Record) -> None:
        """Forget this record."""
        self._note(type(record), record.id)
        self._tables[type(record)]._rows.pop(record.id, None)

    def put_blob(self, name: str, body: bytes) -> None:
        """Keep these bytes under this name, with the change that is being made."""
        assert self._depth, "outside a change"
        self._blobs[name] = body

    def drop_blob(self, name: str) -> None:
        """Forget the bytes of this name, with the change that is being made."""
        assert self._depth, "outside a change"
        self._blobs[name] = None

    def blobs(self) -> list[tuple[str, bytes]]:
        """All named bytes."""
        with self.lock:
            return self._db.execute("SELECT name, body FROM blob ORDER BY name").fetchall()

    def later(self, follow: Callable[[], object]) -> None:
        """Call this once the change is on disk; never, if it is not made."""
        assert self._depth, "outside a change"
        self._later.append(follow)

    def close(self) -> None:
        """Let go of the file. Nothing is lost without it."""
        with self.lock:
            self._db.close()

    def _note(self, kind: type[Record], identifier: str) -> None:
        assert self._depth, "outside a change"
        self._before.setdefault((kind, identifier), self._tables[kind]._rows.get(identifier))

    def _commit(self) -> None:
        before, self._before = self._before, {}
        blobs, self._blobs = self._blobs, {}
        if not before and not blobs:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for kind, identifier in before:
                record = self._tables[kind]._rows.get(identifier)
                if record is None:
                    self._db.execute("DELETE FROM record WHERE kind = ? AND id = ?", (kind.__name__, identifier))
                else:
                    self._db.execute(
                        "INSERT INTO record (kind, id, body) VALUES (?, ?, ?) "
                        "ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                        (kind.__name__, identifier, codec.dumps(record)),
                    )
            for name, blob in blobs.items():
                if blob is None:
                    self._db.execute("DELETE FROM blob WHERE name = ?", (name,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO blob (name, body) VALUES (?, ?)", (name, blob))
            self._db.execute("COMMIT")
        except BaseException:
            self._before = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _restore(self) -> None:
        for (kind, identifier), old in self._before.items():
            rows = self._tables[kind]._rows
            if old is None:
                rows.pop(identifier, None)
            else:
                rows[identifier] = old
        self._before, self._blobs, self._later = {}, {}, []
