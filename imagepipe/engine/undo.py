"""Delete the resources of a run, newest first, and continue after failures. Works from the claims of any journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from imagepipe.dataclass import dataclass
from imagepipe.engine.events import Events, Released
from imagepipe.engine.journal import Claim, Journal
from imagepipe.errors import ImagepipeError


class Undoer(Protocol):
    """A function that deletes everything behind a claim, found by id or by token. A missing resource is a success."""

    def __call__(self, claim: Claim) -> bool:
        """Delete the resource. Return whether it existed: a claim may precede a call that created nothing."""


@dataclass(frozen=True, slots=True)
class StillHeld:
    """A claim that could not be deleted."""

    claim: Claim
    error: Exception

    def __str__(self) -> str:
        return f"{self.claim} ({self.error})"


def undo(
    journal: Journal,
    undoers: Mapping[str, Undoer],
    events: Events,
    *,
    which: Callable[[Claim], bool] = lambda claim: True,
    unsettled: frozenset[str] = frozenset(),
) -> tuple[StillHeld, ...]:
    """Delete everything behind the open claims that `which` selects, newest first; return those still held.

    Emits an event for each claim whose resource existed. `unsettled` names stages that may still be
    inside a create call: a claim of theirs without an id stays open.
    """
    held: list[StillHeld] = []
    for claim in reversed(journal.claims()):
        if not claim.is_open() or not which(claim):
            continue
        try:
            undoer = undoers.get(claim.kind)
            if undoer is None:
                raise ImagepipeError(f"this version cannot clean up a resource of kind {claim.kind}")
            journal.check_held()
            existed = undoer(claim)
            if claim.stage in unsettled and claim.id is None:
                raise ImagepipeError("its stage has not ended, so it may still be created")
        except Exception as error:  # noqa: BLE001 - the other resources must be cleaned up in any case
            held.append(StillHeld(claim, error))
            continue
        # If the release cannot be written, `clean` looks for the resource again and finds it gone.
        with suppress(ImagepipeError):
            journal.release(claim)
        if existed:
            events.emit(Released(*events.stamp(), claim.kind, claim.region, claim.id or claim.token))
    return tuple(held)
