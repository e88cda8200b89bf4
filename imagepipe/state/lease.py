"""The lease on a run: an object that its owner renews. Nobody else may write to the run before it has run out.

The owner counts from the moment before it sent the renewal, and others count from the time at which S3 stored it, both
in seconds that the lease states. So the owner stops before anybody can take over, whatever the clocks of the machines
say. Others compare two times of S3's own clock.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from threading import Event, Lock, Thread
from typing import Any

from imagepipe.clock import Clock
from imagepipe.dataclass import dataclass
from imagepipe.engine.events import process_name
from imagepipe.engine.journal_store import RunInProgress, RunLost
from imagepipe.errors import CloudError, ImagepipeError
from imagepipe.state.bucket import Conflict, StateBucket, StoredObject

LEASE_SECONDS = 30.0
"""Lifetime of a lease: how long `resume` must wait after a process died. Renewing it costs 0.2 cents an hour."""
OWN_SHARE = 0.8
"""Share of the lifetime during which the owner trusts its lease: the rest is for a request that is under way."""
ROUNDING = timedelta(seconds=1)
"""S3 states times in whole seconds."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that can own leases."""

    id: str
    host: str
    pid: int

    @classmethod
    def of_this_process(cls) -> Owner:
        return cls(secrets.token_hex(8), socket.gethostname(), os.getpid())

    def __str__(self) -> str:
        return process_name(self.pid, self.host)


@dataclass(frozen=True, slots=True)
class LeaseContent:
    """The content of a lease object."""

    owner: Owner
    seconds: float
    count: int
    """Number of the write, so that every renewal has another ETag."""
    is_released: bool = False

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self)) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> LeaseContent:
        """Parse a lease. Raises ImagepipeError."""
        try:
            row: dict[str, Any] = json.loads(content)
            owner = Owner(str(row["owner"]["id"]), str(row["owner"]["host"]), int(row["owner"]["pid"]))
            return cls(owner, float(row["seconds"]), int(row["count"]), bool(row["is_released"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ImagepipeError(
                f"the lease of a run cannot be read: {error!r}", hint="the object was changed"
            ) from error

    def seconds_left(self, stored: StoredObject) -> float:
        """Return the seconds until others may take over, by S3's clock; 0 if they may."""
        end = stored.modified + timedelta(seconds=self.seconds) + ROUNDING
        return 0.0 if self.is_released else max(0.0, (end - stored.date).total_seconds())


class Lease:
    """The lease of one run that this process owns; thread-safe."""

    def __init__(self, bucket: StateBucket, run: str, clock: Clock, *, seconds: float = LEASE_SECONDS) -> None:
        self.owner = Owner.of_this_process()
        self._bucket, self._run, self._clock = bucket, run, clock
        self._key = lease_key(run)
        self._content = LeaseContent(self.owner, seconds, 0)
        self._etag = ""
        self._lost: RunLost | None = None
        self._callbacks: list[Callable[[str], None]] = []
        self._lock = Lock()
        self._is_over = Event()
        self._keeper = Thread(target=self._keep, name=f"lease of {run}", daemon=True)
        self._trust(self._clock.monotonic(), self._clock.now().timestamp())

    def create(self) -> None:
        """Take the lease of a new run. Raises RunInProgress if the run exists already."""
        self._take(lambda: self._bucket.create(self._key, self._content.to_bytes()))

    def take_over(self) -> None:
        """Take the lease of a run whose process is dead. Raises RunInProgress if it has not run out."""
        stored = self._bucket.read(self._key)
        if stored is None:
            self.create()
            return
        seen = _free(self._run, stored)
        self._content = replace(self._content, count=seen.count + 1)
        self._take(lambda: self._bucket.replace(self._key, self._content.to_bytes(), stored.etag))

    def _take(self, write: Callable[[], str]) -> None:
        monotonic, wall = self._clock.monotonic(), self._clock.now().timestamp()
        try:
            self._etag = write()
        except Conflict as error:
            if not self._adopt_own():
                raise RunInProgress(
                    f"run {self._run} is in progress: another process has just taken its lease",
                    hint="wait for it, or end that process first",
                ) from error
        self._trust(monotonic, wall)
        self._keeper.start()

    def check(self) -> None:
        """Raise RunLost if another process may have the run. Renews the lease first if it has run out meanwhile.

        Raises CloudError if S3 cannot be asked.
        """
        if self._lost is None and not self._has_run_out():
            return
        with self._lock:
            if self._lost is not None:
                raise self._lost
            if self._has_run_out():
                self._renew()

    def lose(self) -> RunLost:
        """Record that another process has the run; return the error."""
        with self._lock:
            return self._lose()

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Register a function to call, from any thread, with the reason when the run is lost."""
        self._callbacks.append(callback)

    def release(self) -> None:
        """Let other processes open the run at once. Without an answer, they can when the lease has run out."""
        self._is_over.set()
        with self._lock, suppress(CloudError, Conflict):
            if self._lost is None:
                content = replace(self._content, count=self._content.count + 1, is_released=True)
                self._bucket.replace(self._key, content.to_bytes(), self._etag)

    @property
    def is_lost(self) -> bool:
        return self._lost is not None

    def _keep(self) -> None:
        """Renew the lease at each third of its lifetime."""
        while not self._clock.wait(self._is_over, self._content.seconds / 3):
            with self._lock:
                if self._lost is not None:
                    return
                with suppress(CloudError, RunLost):  # an error is tried again; a loss was recorded
                    self._renew()

    def _renew(self) -> None:
        """Write the lease again. Raises RunLost, CloudError."""
        content = replace(self._content, count=self._content.count + 1)
        monotonic, wall = self._clock.monotonic(), self._clock.now().timestamp()
        try:
            self._etag = self._bucket.replace(self._key, content.to_bytes(), self._etag)
        except Conflict as error:
            if not self._adopt_own():
                raise self._lose() from error
        else:
            self._content = content
        self._trust(monotonic, wall)

    def _adopt_own(self) -> bool:
        """Adopt a write of our own whose answer was lost; return whether the lease is ours."""
        stored = self._bucket.read(self._key)
        seen = LeaseContent.from_bytes(stored.content) if stored else None
        if stored is None or seen is None or seen.owner != self.owner:
            return False
        self._content, self._etag = seen, stored.etag
        return True

    def _lose(self) -> RunLost:
        if self._lost is None:
            self._lost = RunLost(
                f"run {self._run} was taken over by another process, because this one did not renew its lease in time",
                hint=f"the other process continues or cleans up the run: imagepipe show {self._run}",
            )
            for callback in self._callbacks:
                Thread(target=callback, args=(str(self._lost),), daemon=True).start()
        return self._lost

    def _trust(self, monotonic: float, wall: float) -> None:
        """Trust the lease for its own share of time after a renewal that was sent at this moment."""
        own = self._content.seconds * OWN_SHARE
        self._until = (monotonic + own, wall + own)

    def _has_run_out(self) -> bool:
        # The monotonic clock stops while a computer sleeps, and the wall clock can be set back: either one counts.
        monotonic, wall = self._until
        return self._clock.monotonic() >= monotonic or self._clock.now().timestamp() >= wall


def lease_key(run: str) -> str:
    """Return the key of a run's lease."""
    return f"runs/{run}/lease.json"


def check_free(bucket: StateBucket, run: str) -> None:
    """Raise RunInProgress, with the owner and the seconds left, if the lease of a run has not run out."""
    if stored := bucket.read(lease_key(run)):
        _free(run, stored)


def _free(run: str, stored: StoredObject) -> LeaseContent:
    """Return a lease that has run out. Raises RunInProgress if it has not."""
    seen = LeaseContent.from_bytes(stored.content)
    if (left := seen.seconds_left(stored)) > 0:
        raise RunInProgress(
            f"run {run} is in progress: {seen.owner} holds its lease",
            hint=f"wait for it, or end that process; after its death the lease runs out within {left:.0f} s",
        )
    return seen


def is_held(bucket: StateBucket, run: str) -> bool:
    """Return whether the lease of a run has not run out."""
    stored = bucket.read(lease_key(run))
    return stored is not None and LeaseContent.from_bytes(stored.content).seconds_left(stored) > 0
