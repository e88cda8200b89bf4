"""The gateway's database: records by kind, read from memory, and written to disk before an answer is sent.

One thread writes at a time, under `lock`. The others see a change once it is on disk. A change that raises an error is
discarded; this is also how a DryRun is done. Work that must follow a change (start a machine, copy bytes) is registered
with it, and runs only once the change is on disk.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any, Generic, TypeVar

from imagepipe.dataclass import dataclass
from imagepipe.errors import LocalCloudError
from imagepipe.local import codec
from imagepipe.local.aws.state.records import (
    AccessKey,
    Account,
    Address,
    Ancestor,
    AutoScalingGroup,
    DeregisteredImage,
    Image,
    ImageBuilderResource,
    ImportTask,
    Instance,
    KeyPair,
    LaunchConfiguration,
    LaunchTemplate,
    Modification,
    NatGateway,
    PlacementGroup,
    Record,
    RecycledImage,
    RecycledSnapshot,
    RetentionRule,
    SecurityGroup,
    Session,
    Setting,
    Snapshot,
    Token,
    UsageReport,
    Volume,
)

RECORDS = "gateway.sqlite"
"""File name of the records in the state folder."""
FORMAT = 10
"""Version of the records' format. It is increased when this program writes or expects other records than before."""

R = TypeVar("R", bound=Record)
log = logging.getLogger(__name__)


class Table(Generic[R]):
    """All records of one kind, in the order in which they were first put.

    A change that is not on disk yet is seen by the thread that makes it, and by no other.
    """

    def __init__(self, kind: type[R], change: _Change) -> None:
        self._rows: dict[str, R] = {}
        self._change = change
        self._drafts: dict[str, R | None] = change.drafts.setdefault(kind, {})  # type: ignore[assignment]

    def get(self, identifier: str) -> R | None:
        if self._drafts and self._change.is_ours() and identifier in self._drafts:
            return self._drafts[identifier]
        return self._rows.get(identifier)

    def __getitem__(self, identifier: str) -> R:
        found = self.get(identifier)
        if found is None:
            raise KeyError(identifier)
        return found

    def __iter__(self) -> Iterator[R]:
        return iter(tuple(self._seen().values()))

    def __len__(self) -> int:
        return len(self._seen())

    def owned(self, account: str, region: str) -> list[R]:
        """List the account's records in this region."""
        return [row for row in self if row.account == account and row.region == region]

    def in_region(self, region: str) -> list[R]:
        """List all records in this region."""
        return [row for row in self if row.region == region]

    def _seen(self) -> Mapping[str, R]:
        if not self._drafts or not self._change.is_ours():
            return self._rows
        both: dict[str, R | None] = {**self._rows, **self._drafts}
        return {identifier: row for identifier, row in both.items() if row is not None}

    def _accept(self) -> None:
        """Let everybody see the drafts."""
        for identifier, row in self._drafts.items():
            if row is None:
                self._rows.pop(identifier, None)
            else:
                self._rows[identifier] = row
        self._drafts.clear()


@dataclass(slots=True)
class _Change:
    """The change that is being made, by one thread at a time."""

    depth: int = 0
    thread: int = 0
    drafts: dict[type[Record], dict[str, Record | None]] = field(default_factory=dict)
    """Changed records by kind and id; None for a removed one."""

    def is_ours(self) -> bool:
        return self.thread == threading.get_ident()


def check_format(path: Path) -> None:
    """Raise LocalCloudError if the records at this path have another format; a missing file is fine."""
    if not path.exists():
        return
    with closing(sqlite3.connect(path)) as db:
        [found] = db.execute("PRAGMA user_version").fetchone()
    if found not in (0, FORMAT):  # 0 is a new file's
        which = "newer" if found > FORMAT else "older"
        raise LocalCloudError(
            f"opening the local cloud's records {path}: they have format {found}, this imagepipe knows {FORMAT}",
            hint=f"use the {which} imagepipe that made this store, or set IMAGEPIPE_LOCAL_STORE to another folder; if"
            f" machines of it still run, stop them with that {which} imagepipe: imagepipe local stop",
        )


class Database:
    """Records of all kinds, durable. Reading needs `lock` only where several records must fit together."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._change = _Change()
        self._writing = threading.Lock()
        self._later: list[Callable[[], object]] = []
        check_format(path)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._prepare(path)
        self._tables: dict[type[Record], Table[Any]] = {}
        self.instances = self._table(Instance)
        self.volumes = self._table(Volume)
        self.modifications = self._table(Modification)
        self.snapshots = self._table(Snapshot)
        self.imports = self._table(ImportTask)
        self.images = self._table(Image)
        self.deregistered_images = self._table(DeregisteredImage)
        self.ancestors = self._table(Ancestor)
        self.usage_reports = self._table(UsageReport)
        self.retention_rules = self._table(RetentionRule)
        self.recycled_images = self._table(RecycledImage)
        self.recycled_snapshots = self._table(RecycledSnapshot)
        self.key_pairs = self._table(KeyPair)
        self.groups = self._table(SecurityGroup)
        self.addresses = self._table(Address)
        self.nat_gateways = self._table(NatGateway)
        self.templates = self._table(LaunchTemplate)
        self.placement_groups = self._table(PlacementGroup)
        self.launch_configurations = self._table(LaunchConfiguration)
        self.scaling_groups = self._table(AutoScalingGroup)
        self.image_builder = self._table(ImageBuilderResource)
        self.tokens = self._table(Token)
        self.settings = self._table(Setting)
        self.accounts = self._table(Account)
        self.access_keys = self._table(AccessKey)
        self.sessions = self._table(Session)
        self._load()

    @property
    def resources(self) -> tuple[Table[Any], ...]:
        """The tables of EC2's own resources, which can have tags."""
        return (
            self.instances,
            self.volumes,
            self.snapshots,
            self.images,
            self.imports,
            self.key_pairs,
            self.groups,
            self.addresses,
            self.nat_gateways,
            self.templates,
            self.placement_groups,
            self.usage_reports,
            self.recycled_images,
            self.recycled_snapshots,
        )

    def find(self, identifier: str, region: str) -> Record | None:
        """Find the resource with this id in a region."""
        found: Record | None = next(filter(None, (table.get(identifier) for table in self.resources)), None)
        return found if found is not None and found.region == region else None

    def table(self, kind: type[R]) -> Table[R]:
        """Return the records of a kind."""
        return self._tables[kind]

    def _table(self, kind: type[R]) -> Table[R]:
        self._tables[kind] = table = Table(kind, self._change)
        return table

    def _prepare(self, path: Path) -> None:
        path.chmod(0o600)  # user data may hold keys
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # WAL's default syncs at checkpoints only
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS record "
            "(place INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, "
            "UNIQUE (kind, id))"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS blob (name TEXT PRIMARY KEY, body BLOB NOT NULL)")
        self._db.execute(f"PRAGMA user_version = {FORMAT}")

    def _load(self) -> None:
        by_name = {kind.__name__: kind for kind in self._tables}
        for name, body in self._db.execute("SELECT kind, body FROM record ORDER BY place"):
            record = codec.loads(by_name[name], body)
            self._tables[type(record)]._rows[record.id] = record

    @contextmanager
    def change(self) -> Iterator[None]:
        """Write all puts and removals inside to disk at the end, or none of them if an error is raised.

        Blocks may be nested: the outermost one writes. Until then, other threads see the old records.
        """
        with self.lock:
            self._change.thread = threading.get_ident()
            self._change.depth += 1
            try:
                yield
                if self._change.depth == 1:
                    self._commit()
            except BaseException:
                if self._change.depth == 1:
                    self._discard()
                raise
            finally:
                self._change.depth -= 1
            if self._change.depth:
                return
            later, self._later = self._later, []
        _follow(later)

    def put(self, record: Record) -> None:
        """Keep this record, in place of an older one of its kind and id."""
        self._drafts_of(type(record))[record.id] = record

    def remove(self, record: Record) -> None:
        """Forget this record."""
        self._drafts_of(type(record))[record.id] = None

    def write_blobs(self, blobs: Mapping[str, bytes | None]) -> None:
        """Save these bytes under these names, all or none, immediately; None deletes a name.

        This is independent of a change of records that is under way, and does not wait for it, so it may be called
        under the lock of another service.
        """
        if not blobs:
            return
        with self._transaction():
            for name, blob in blobs.items():
                if blob is None:
                    self._db.execute("DELETE FROM blob WHERE name = ?", (name,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO blob (name, body) VALUES (?, ?)", (name, blob))

    def blobs(self) -> list[tuple[str, bytes]]:
        """List all named bytes."""
        with self._writing:
            return self._db.execute("SELECT name, body FROM blob ORDER BY name").fetchall()

    def later(self, follow: Callable[[], object]) -> None:
        """Call this function once the change is on disk, or never if the change is discarded."""
        assert self._change.depth, "outside a change"
        self._later.append(follow)

    def close(self) -> None:
        """Close the file. Nothing is lost if this is never called."""
        with self.lock, self._writing:
            self._db.close()

    def _drafts_of(self, kind: type[Record]) -> dict[str, Record | None]:
        assert self._change.depth, "outside a change"
        assert self._change.is_ours(), "in a change of another thread"
        return self._change.drafts[kind]

    def _commit(self) -> None:
        if not any(self._change.drafts.values()):
            return
        with self._transaction():
            for kind, drafts in self._change.drafts.items():
                for identifier, record in drafts.items():
                    self._write(kind, identifier, record)
        for table in self._tables.values():
            table._accept()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write to disk at the end, or nothing at all. The innermost of all locks: take no other inside."""
        with self._writing:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _write(self, kind: type[Record], identifier: str, record: Record | None) -> None:
        if record is None:
            self._db.execute("DELETE FROM record WHERE kind = ? AND id = ?", (kind.__name__, identifier))
        else:
            self._db.execute(
                "INSERT INTO record (kind, id, body) VALUES (?, ?, ?) "
                "ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                (kind.__name__, identifier, codec.dumps(record)),
            )

    def _discard(self) -> None:
        for drafts in self._change.drafts.values():
            drafts.clear()
        self._later = []


def _follow(later: Sequence[Callable[[], object]]) -> None:
    """Run everything that follows a change. If one function fails, the others still run.

    Raises the first failure, at the end.
    """
    failed: Exception | None = None
    for follow in later:
        try:
            follow()
        except Exception as error:
            log.exception("work that follows a change failed")
            failed = failed or error
    if failed is not None:
        raise failed
