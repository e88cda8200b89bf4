"""The journal of a run: its resources, stored before the cloud is called. Undo reads it, even after a crash.

A claim is first *intended* (on stable storage before the call), then *bound* (the cloud returned an id), and ends as
*released* or *kept*. After a power failure, records after the last synced one can be missing, but no resource is lost:
one whose id is missing is found by its tag, one that was deleted is not found again, and one that was kept is tagged as
kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import field, replace
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Any

from imagepipe.clock import Clock, iso
from imagepipe.dataclass import dataclass
from imagepipe.engine.events import Sink
from imagepipe.engine.journal_store import JournalStore, OpenRun
from imagepipe.errors import UsageError

VERSION = 1


class Lifetime(StrEnum):
    """The intended lifetime of a resource."""

    RUN = "run"
    """Deleted at the end of every run: instance, key pair, security group."""
    PRODUCT = "product"
    """Kept when the run succeeds: image, snapshots."""


class State(StrEnum):
    """The state of a claim."""

    INTENDED = "intended"
    BOUND = "bound"
    RELEASED = "released"
    KEPT = "kept"
    UNKEPT = "unkept"
    """Bound, and to be deleted though a tag may say that it is kept: keeping it failed, and so did undoing that."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A record of one resource, or of the resources of one call, that a run has created or may have created."""

    key: str
    """Key of the claim in its journal, such as `c3`."""
    kind: str
    """Kind of resource: `instance`, `image`, `snapshots`, …; `cleanup.undoers` has a function for each."""
    region: str
    token: str
    """Value of a tag on the resource, so that it can be found even if its id never arrived."""
    lifetime: Lifetime
    stage: str
    state: State = State.INTENDED
    id: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    """Further data for the undoer; never a secret."""

    def is_open(self) -> bool:
        """Return whether the run may still have to delete this resource."""
        return self.state in (State.INTENDED, State.BOUND, State.UNKEPT)

    def __str__(self) -> str:
        name = self.id or f"of token {self.token}"
        return f"{self.kind.replace('_', ' ')} {name} in {self.region}"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The first line of a journal, which describes the run and never changes."""

    id: str
    started: str
    specs: tuple[str, ...]
    build: Mapping[str, str]
    """The values of `build.*`."""
    cloud: Mapping[str, str]
    """The cloud of the run, as `cli.cloud.CloudTarget` records it; never a credential."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the command line for `resume`: files, variables that are not sensitive, region."""


class Journal:
    """The journal of a running run; thread-safe."""

    def __init__(self, held: OpenRun, run: RunRecord, clock: Clock, claims: Mapping[str, Claim]) -> None:
        self.run = run
        self._held = held
        self._clock = clock
        self._claims = dict(claims)
        # Open claims of an earlier process, which the same stages adopt.
        self._adoptable = [claim for claim in claims.values() if claim.is_open()]
        self._adopted: set[str] = set()
        self._lock = Lock()

    @classmethod
    def create(cls, store: JournalStore, run: RunRecord, clock: Clock) -> Journal:
        """Create the journal of a new run and hold it for the lifetime of this process. Raises ImagepipeError."""
        held = store.create(run.id)
        try:
            journal = cls(held, run, clock, {})
            journal._write(
                {
                    "type": "run",
                    "version": VERSION,
                    "id": run.id,
                    "started": run.started,
                    "specs": list(run.specs),
                    "build": dict(run.build),
                    "cloud": dict(run.cloud),
                    "given": dict(run.given),
                },
                sync=True,
            )
        except BaseException:
            held.close()
            raise
        return journal

    @classmethod
    def reopen(cls, store: JournalStore, run: str, clock: Clock) -> Journal:
        """Open and hold the journal of a run whose process is dead. Raises UsageError if that process is alive."""
        held = store.reopen(run)
        try:
            replayed = _replay(store, run)
        except BaseException:
            held.close()
            raise
        return cls(held, replayed.run, clock, replayed.claims)

    @property
    def folder(self) -> Path:
        """The run's local folder, for private keys and large temporary files."""
        return self._held.folder

    def check_held(self) -> None:
        """Raise RunLost if another process may have taken over the run."""
        self._held.check_held()

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Register a function to call, from any thread, with the reason when another process takes over the run."""
        self._held.on_lost(callback)

    def event_sink(self) -> AbstractContextManager[Sink]:
        """Open the sink that keeps the run's events."""
        return self._held.event_sink()

    def put(self, name: str, content: bytes) -> None:
        """Keep a small document with the run. Raises ImagepipeError."""
        self._held.put(name, content)

    def intend(
        self,
        kind: str,
        region: str,
        *,
        lifetime: Lifetime,
        stage: str,
        details: Mapping[str, str] | None = None,
    ) -> Claim:
        """Record that the next call may create a resource of this kind. The record is stored when this returns.

        Returns the claim of an earlier process if that process left one of this kind open for the same stage.
        """
        with self._lock:
            for claim in self._adoptable:
                is_it = (claim.stage, claim.kind, claim.region) == (stage, kind, region)
                if is_it and self._claims[claim.key].is_open():  # not cleaned up in the meantime
                    self._adoptable.remove(claim)
                    self._adopted.add(claim.key)
                    return self._claims[claim.key]
            key = f"c{len(self._claims) + 1}"
            claim = Claim(key, kind, region, f"{self.run.id}-{key}", lifetime, stage, details=dict(details or {}))
            self._write(
                {
                    "type": "intended",
                    "claim": key,
                    "kind": kind,
                    "region": region,
                    "token": claim.token,
                    "lifetime": str(lifetime),
                    "stage": stage,
                    "details": dict(claim.details),
                },
                sync=True,
            )
            self._claims[key] = claim
            return claim

    def bind(self, claim: Claim, id: str) -> Claim:
        """Record the id that the cloud returned."""
        return self._change(claim, State.BOUND, id=id)

    def release(self, claim: Claim) -> Claim:
        """Record that the resource is deleted."""
        return self._change(claim, State.RELEASED, id=claim.id)

    def keep(self, claim: Claim) -> Claim:
        """Record that the resource is a product of the run and is kept."""
        return self._change(claim, State.KEPT, id=claim.id)

    def unkeep(self, claim: Claim) -> Claim:
        """Record that the resource is not kept, whatever its tag says."""
        return self._change(claim, State.UNKEPT, id=claim.id)

    def is_adopted(self, claim: Claim) -> bool:
        """Return whether an earlier process wrote the claim, so that its resource may already exist."""
        return claim.key in self._adopted

    def note(self, type: str, **values: Any) -> None:
        """Write a record that is not a claim, such as a stage's output or the end of the run."""
        with self._lock:
            self._write({"type": type, **values})

    def begin(self, stage: str) -> None:
        """Record that a stage starts which must not run twice on one machine. It is stored when this returns."""
        with self._lock:
            self._write({"type": "begun", "stage": stage}, sync=True)

    def claims(self) -> tuple[Claim, ...]:
        """Return every claim, oldest first."""
        with self._lock:
            return tuple(self._claims.values())

    def claim_of(self, kind: str, id: str) -> Claim:
        """Return the newest claim on the resource with this id."""
        for claim in reversed(self.claims()):
            if claim.kind == kind and claim.id == id:
                return claim
        raise KeyError(f"no claim on {kind} {id}")

    def claim_of_token(self, token: str) -> Claim:
        """Return the claim with this token, of any stage."""
        return next(claim for claim in self.claims() if claim.token == token)

    def close(self) -> None:
        """Let other processes open the run."""
        self._held.close()

    def _change(self, claim: Claim, state: State, *, id: str | None) -> Claim:
        with self._lock:
            changed = replace(self._claims[claim.key], state=state, id=id or self._claims[claim.key].id)
            record: dict[str, Any] = {"type": str(state), "claim": claim.key}
            if state is State.BOUND:
                record["id"] = id
            # Without this record, a tag would keep the image.
            self._write(record, sync=state is State.UNKEPT)
            self._claims[claim.key] = changed
            return changed

    def _write(self, record: dict[str, Any], *, sync: bool = False) -> None:
        """Append a whole record. With `sync`, wait until it is on stable storage. Raises ImagepipeError."""
        self._held.append({"time": iso(self._clock.now()), **record}, sync=sync)


@dataclass(frozen=True, slots=True)
class Finished:
    """The journal's record of a completed stage."""

    fingerprint: str
    value: Any
    """The stage's output, as JSON."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """The content of a stored journal."""

    run: RunRecord
    claims: tuple[Claim, ...]
    outcome: str | None
    """`succeeded`, `failed` or `cancelled`; None if the run did not complete."""
    is_alive: bool
    outputs: Mapping[str, Finished] = field(default_factory=dict)
    """Outputs of the completed stages."""
    begun: frozenset[str] = frozenset()
    """Stages that were started and are not repeatable (`Stage.is_repeatable`)."""
    failed: frozenset[str] = frozenset()
    """Stages whose last run failed."""
    ended: str | None = None
    """Time of the run's end; of its last record, if the process died; None while it is in progress."""

    def open_claims(self) -> list[Claim]:
        return [claim for claim in self.claims if claim.is_open()]

    @property
    def has_launched(self) -> bool:
        """True if the run is an instance that `imagepipe images launch` made, and that is still there.

        Its record has no values of a build.
        """
        return self.outcome == "succeeded" and not self.run.build and bool(self.open_claims())


def read(store: JournalStore, run: str) -> JournalState:
    """Read the journal of a run. Raises ImagepipeError if it has none."""
    found, is_alive = _replay(store, run), store.is_held(run)
    return JournalState(
        found.run,
        tuple(found.claims.values()),
        found.outcome,
        is_alive=is_alive,
        outputs=found.outputs,
        begun=frozenset(found.begun),
        failed=frozenset(found.failed),
        ended=None if is_alive else found.finished or found.last,
    )


@dataclass
class _Replayed:
    """The result of replaying the records of a journal."""

    first: RunRecord | None = None
    claims: dict[str, Claim] = field(default_factory=dict)
    outputs: dict[str, Finished] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    outcome: str | None = None
    finished: str | None = None
    """Time of the record of the run's end."""
    last: str | None = None
    """Time of the last record."""

    @property
    def run(self) -> RunRecord:
        assert self.first is not None, "a journal without a run is refused"
        return self.first


def _replay(store: JournalStore, run: str) -> _Replayed:
    """Replay a journal. Raises UsageError for anything that is not one."""
    stored, found = store.journal(run), _Replayed()
    for place, line in stored.records:
        try:
            _take(found, json.loads(line), stored.name)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise UsageError(
                f"journal {stored.name}, {place}, cannot be read: {reason}",
                hint="the file was changed; resources of the run still have the tag imagepipe:run",
            ) from error
    if found.first is None:
        raise UsageError(f"journal {stored.name} is empty: the run ended before it created anything")
    return found


def _take(found: _Replayed, record: dict[str, Any], name: str) -> None:
    """Apply one record. Raises ValueError, KeyError or TypeError if it is malformed."""
    found.last = _time(record)
    match record["type"]:
        case "run":
            if record["version"] != VERSION:
                raise UsageError(
                    f"journal {name} was written by another version of imagepipe",
                    hint=f"it has version {record['version']}, but this version of imagepipe reads {VERSION}",
                )
            found.first = RunRecord(
                _text(record, "id"),
                _text(record, "started"),
                _texts(record, "specs"),
                _mapping(record, "build"),
                _mapping(record, "cloud"),
                dict(record.get("given", {})),
            )
        case "intended":
            found.claims[_text(record, "claim")] = Claim(
                key=_text(record, "claim"),
                kind=_text(record, "kind"),
                region=_text(record, "region"),
                token=_text(record, "token"),
                lifetime=Lifetime(record["lifetime"]),
                stage=_text(record, "stage"),
                details=_mapping(record, "details"),
            )
        case "bound" | "released" | "kept" | "unkept":
            claim = found.claims[_text(record, "claim")]
            id = _text(record, "id") if "id" in record else claim.id
            found.claims[claim.key] = replace(claim, state=State(record["type"]), id=id)
        case "output":
            found.outputs[_text(record, "stage")] = Finished(_text(record, "fingerprint"), record["value"])
            found.failed.discard(_text(record, "stage"))
        case "failed":
            found.failed.add(_text(record, "stage"))
        case "begun":
            found.begun.add(_text(record, "stage"))
        case "dropped":
            for stage in _texts(record, "stages"):
                found.outputs.pop(stage, None)
                found.begun.discard(stage)
                found.failed.discard(stage)
        case "finished":
            found.outcome, found.finished = _text(record, "outcome"), _time(record)
        case "resumed":
            found.outcome = found.finished = None
        case _:
            pass


def _time(record: Mapping[str, Any]) -> str | None:
    """Return the time at which a record was written. It is only shown, so a journal without it can be read."""
    return str(record["time"]) if "time" in record else None


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a string")
    return value


def _texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = record[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} is not a list of strings")
    return tuple(values)


def _mapping(record: Mapping[str, Any], name: str) -> dict[str, str]:
    values = record[name]
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise TypeError(f"{name} is not a mapping of strings")
    return values
