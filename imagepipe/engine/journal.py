"""What a run holds in a cloud, on disk before the cloud is asked: undo reads it, of a dead process too.

A claim goes through *intended* (written and fsynced before the call), *bound* (the cloud gave an id), and ends as
*released* or *kept*. A process that dies leaves at most a last line cut short, which the reader leaves out. A computer
that loses its power may also forget what came after the last fsync: then a thing is found by its tag though its id is
lost, is gone already, or says by its own tag that it is kept.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from imagepipe import files
from imagepipe.clock import Clock, iso
from imagepipe.errors import ImagepipeError, UsageError

VERSION = 1
FILE_NAME = "journal.jsonl"
LARGEST_BYTES = 64 << 20
"""A build of twenty specs writes some 200 KB."""
LOCK_SECONDS = 0.3  # whoever lists the runs probes each lock for a moment


class Lifetime(StrEnum):
    """How long a thing should live."""

    RUN = "run"
    """Always deleted: instance, key pair, security group."""
    PRODUCT = "product"
    """Kept when the run succeeds: image, snapshots."""


class State(StrEnum):
    """How far a claim is."""

    INTENDED = "intended"
    BOUND = "bound"
    RELEASED = "released"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing, or the things of one call, that a run holds or may hold."""

    key: str
    """Unique in the journal: `c3`."""
    kind: str
    """`instance`, `image`, `snapshots`: the reverse recipe knows how each is found and cleaned up."""
    region: str
    token: str
    """In a tag of what is created, so that it is found though its id never came."""
    lifetime: Lifetime
    stage: str
    state: State = State.INTENDED
    id: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    """What the undoer needs beside id and token; never a secret."""

    def is_open(self) -> bool:
        """Whether there may be something in the cloud that this run answers for."""
        return self.state in (State.INTENDED, State.BOUND)

    def __str__(self) -> str:
        name = self.id or f"of token {self.token}"
        return f"{self.kind.replace('_', ' ')} {name} in {self.region}"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The first line of a journal: what the run is, fixed once."""

    id: str
    started: str
    specs: tuple[str, ...]
    build: Mapping[str, str]
    """`build.*` of the language."""
    cloud: Mapping[str, str]
    """How the cloud is reached again: `local` (the store), `endpoint_url`, `profile`; never a credential."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What the command line gave, for `resume`: files, variables that are not sensitive, region."""


class Journal:
    """The journal of a run that is going on. Safe from any thread."""

    def __init__(self, folder: Path, run: RunRecord, clock: Clock, claims: Mapping[str, Claim], file: BinaryIO) -> None:
        self.folder = folder
        self.run = run
        self._clock = clock
        self._claims = dict(claims)
        # What a process before this one claimed and did not come to the end of, for its stages to take up again.
        self._adoptable = [claim for claim in claims.values() if claim.is_open()]
        self._adopted: set[str] = set()
        self._file = file
        self._end = os.fstat(file.fileno()).st_size
        self._is_torn = False
        self._lock = Lock()

    @classmethod
    def create(cls, folder: Path, run: RunRecord, clock: Clock) -> Journal:
        """Begin the journal of a new run, and hold it as long as this process lives. Raises ImagepipeError."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = _locked(folder)
        except OSError as error:
            raise _unwritable(folder / FILE_NAME, error) from error
        journal = cls(folder, run, clock, {}, file)
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
        files.sync(folder)
        return journal

    @classmethod
    def reopen(cls, folder: Path, clock: Clock) -> Journal:
        """Go on with the journal of a run whose process is gone. Raises UsageError while that process lives."""
        file = _locked(folder)
        try:
            replayed = _replay(folder / FILE_NAME)
            # A line that the dead process left unfinished must not run into the next one.
            file.truncate(replayed.end)
        except BaseException:
            file.close()
            raise
        return cls(folder, replayed.run, clock, replayed.claims, file)

    def intend(
        self,
        kind: str,
        region: str,
        *,
        lifetime: Lifetime,
        stage: str,
        details: Mapping[str, str] | None = None,
    ) -> Claim:
        """Write down that the next call may make such a thing. On disk when this returns.

        Where an earlier process wrote that for the same stage, and did not come to its end, it is that claim.
        """
        with self._lock:
            for claim in self._adoptable:
                is_it = (claim.stage, claim.kind, claim.region) == (stage, kind, region)
                if is_it and self._claims[claim.key].is_open():  # and not cleaned up meanwhile
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
        """The cloud gave the thing this id."""
        return self._change(claim, State.BOUND, id=id)

    def release(self, claim: Claim) -> Claim:
        """The thing is gone."""
        return self._change(claim, State.RELEASED, id=claim.id)

    def keep(self, claim: Claim) -> Claim:
        """The thing is the run's product, and stays."""
        return self._change(claim, State.KEPT, id=claim.id)

    def is_adopted(self, claim: Claim) -> bool:
        """Whether an earlier process wrote it: there may be what it stands for already."""
        return claim.key in self._adopted

    def note(self, type: str, **values: Any) -> None:
        """Write a record that is no claim: a stage's output, the end of the run."""
        with self._lock:
            self._write({"type": type, **values})

    def claims(self) -> tuple[Claim, ...]:
        """Every claim, oldest first."""
        with self._lock:
            return tuple(self._claims.values())

    def claim_of(self, kind: str, id: str) -> Claim:
        """The claim on the thing with this id, the newest."""
        for claim in reversed(self.claims()):
            if claim.kind == kind and claim.id == id:
                return claim
        raise KeyError(f"no claim on {kind} {id}")

    def claim_of_token(self, token: str) -> Claim:
        """The claim with this token, whoever made it."""
        return next(claim for claim in self.claims() if claim.token == token)

    def close(self) -> None:
        self._file.close()

    def _change(self, claim: Claim, state: State, *, id: str | None) -> Claim:
        with self._lock:
            changed = replace(self._claims[claim.key], state=state, id=id or self._claims[claim.key].id)
            record: dict[str, Any] = {"type": str(state), "claim": claim.key}
            if state is State.BOUND:
                record["id"] = id
            self._write(record)
            self._claims[claim.key] = changed
            return changed

    def _write(self, record: dict[str, Any], *, sync: bool = False) -> None:
        """Append a line, whole, and where that is asked for on stable storage, when this returns.

        Raises ImagepipeError: then it is not there at all.
        """
        text = json.dumps({"time": iso(self._clock.now()), **record}, ensure_ascii=False) + "\n"
        line = text.encode("utf-8", "backslashreplace")  # of a path that is no text, JSON has the escape
        file = self._file.fileno()
        try:
            if self._is_torn:
                os.ftruncate(file, self._end)
            self._is_torn = True
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(file, rest) :]
            if sync:
                os.fsync(file)
        except OSError as error:
            # What was written of it, on a full disk say, must not run into the next line.
            with suppress(OSError):
                os.ftruncate(file, self._end)
                self._is_torn = False
            raise _unwritable(self.folder / FILE_NAME, error) from error
        self._is_torn = False
        self._end += len(line)


@dataclass(frozen=True, slots=True)
class Finished:
    """A stage that came to its end, as the journal has it."""

    fingerprint: str
    value: Any
    """Its output, as JSON."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """What a journal on disk says."""

    run: RunRecord
    claims: tuple[Claim, ...]
    outcome: str | None
    """`succeeded`, `failed`, `cancelled`; None where the run never came to its end."""
    is_alive: bool
    outputs: Mapping[str, Finished] = field(default_factory=dict)
    """Of the stages that came to their end."""
    begun: frozenset[str] = frozenset()
    """Stages that cannot simply be run again, and were begun."""
    failed: frozenset[str] = frozenset()
    """Stages that failed, the last time that they ran."""

    def open_claims(self) -> list[Claim]:
        return [claim for claim in self.claims if claim.is_open()]


def read(folder: Path) -> JournalState:
    """What the journal in this folder says. Raises ImagepipeError where it is none."""
    found = _replay(folder / FILE_NAME)
    return JournalState(
        found.run,
        tuple(found.claims.values()),
        found.outcome,
        is_alive=_is_held(folder),
        outputs=found.outputs,
        begun=frozenset(found.begun),
        failed=frozenset(found.failed),
    )


def _unwritable(path: Path, error: OSError) -> ImagepipeError:
    return ImagepipeError(
        f"writing the journal {path}: {error.strerror or error}",
        hint="nothing is made that is not written down first: free some room, or name another folder in XDG_STATE_HOME",
    )


def _locked(folder: Path) -> BinaryIO:
    path = folder / FILE_NAME
    path.touch(mode=0o600)
    file: BinaryIO = path.open("ab", buffering=0)
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < end:
                time.sleep(0.02)
                continue
            file.close()
            raise UsageError(
                f"run {folder.name} is going on in another process", hint="wait for it, or end that process first"
            ) from error
        return file


def _is_held(folder: Path) -> bool:
    with (folder / FILE_NAME).open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


@dataclass
class _Replayed:
    """What the lines of a journal come to."""

    end: int
    """Where the last whole line ends, in bytes."""
    first: RunRecord | None = None
    claims: dict[str, Claim] = field(default_factory=dict)
    outputs: dict[str, Finished] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    outcome: str | None = None

    @property
    def run(self) -> RunRecord:
        assert self.first is not None, "without one, it is no journal"
        return self.first


def _replay(path: Path) -> _Replayed:
    """The run, and how far it came. Raises UsageError for what is no journal, whatever it is."""
    if path.exists() and not path.is_file():
        raise UsageError(f"journal {path} is no file")  # a pipe would be waited for
    try:
        if (size := path.stat().st_size) > LARGEST_BYTES:
            raise UsageError(f"journal {path} has {size} bytes: no run writes more than {LARGEST_BYTES}")
        content = path.read_bytes()
    except OSError as error:
        raise ImagepipeError(f"reading the journal {path}: {error.strerror}") from error
    end = content.rfind(b"\n") + 1
    found = _Replayed(end)
    for number, line in enumerate(content[:end].splitlines(), start=1):
        try:
            _take(found, json.loads(line), path)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else error
            raise UsageError(
                f"journal {path}, line {number}, cannot be read: {said}",
                hint="the file was changed; what the run made still has the tag imagepipe:run",
            ) from error
    if found.first is None:
        raise UsageError(f"journal {path} is empty: the run ended before it held anything")
    return found


def _take(found: _Replayed, record: dict[str, Any], path: Path) -> None:
    """Go on by one record. Raises ValueError, KeyError or TypeError for what is none."""
    match record["type"]:
        case "run":
            if record["version"] != VERSION:
                raise UsageError(
                    f"journal {path} was written by another version of imagepipe",
                    hint=f"it has version {record['version']}, and this reads {VERSION}",
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
        case "bound" | "released" | "kept":
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
            found.outcome = _text(record, "outcome")
        case "resumed":
            found.outcome = None
        case _:
            pass


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = record[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} is no list of texts")
    return tuple(values)


def _mapping(record: Mapping[str, Any], name: str) -> dict[str, str]:
    values = record[name]
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise TypeError(f"{name} is no mapping of texts")
    return values
