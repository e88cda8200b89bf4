"""Generate the policy of specs from their stages and their undo, with the reasons for each action."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from imagepipe.dataclass import dataclass
from imagepipe.iam.document import Statement, merged
from imagepipe.policy.context import PolicyContext
from imagepipe.policy.retention import prune
from imagepipe.policy.stages import (
    PUBLISHING,
    STAGES,
    STEPS,
    heartbeat,
    heartbeat_of_images,
    publishing_stages_of,
    reusing_stages_of,
    stages_of,
)
from imagepipe.policy.undo import UNDO, kinds_of, kinds_of_images, sweep

For = Literal["build", "publish", "clean", "prune"]


@dataclass(frozen=True, slots=True)
class Reason:
    """A statement and the part of a run that needs it."""

    who: str
    """Class of the stage, or another part of a run."""
    statement: Statement


def reasons(context: PolicyContext, wanted: For) -> Iterator[Reason]:
    """Yield the statements that a build of the spec and its undo need; or those of another command."""
    if wanted == "prune":
        yield from (Reason("images prune", statement) for statement in prune(context))
        return
    if wanted == "build":
        for name in stages_of(context):
            yield from (Reason(name, statement) for statement in STAGES[name](context))
        for name in reusing_stages_of(context):
            yield from (Reason(name, statement) for statement in PUBLISHING[name](context))
        for name, asks in STEPS.items():
            yield from (Reason(name, statement) for statement in asks(context))
        yield from (Reason("Heartbeat", statement) for statement in heartbeat(context))
    elif wanted == "publish":
        for name in publishing_stages_of(context):
            yield from (Reason(name, statement) for statement in {**STAGES, **PUBLISHING}[name](context))
        yield from (Reason("Heartbeat", statement) for statement in heartbeat_of_images(context))
    else:
        yield from (Reason("clean --older-than", statement) for statement in sweep(context))
    for kind in kinds_of_images(context) if wanted == "publish" else kinds_of(context):
        yield from (Reason(f"undo of {kind}", statement) for statement in UNDO[kind](context))


def statements(contexts: Sequence[PolicyContext], wanted: For = "build") -> list[Statement]:
    """Return the merged statements for building all of these specs."""
    return merged(reason.statement for context in contexts for reason in reasons(context, wanted))


def explained(contexts: Sequence[PolicyContext], wanted: For = "build") -> list[tuple[str, str, str]]:
    """Return each action with the statements that allow it and the parts of a run that need it, sorted by action."""
    sids: dict[str, dict[str, None]] = {}
    who: dict[str, dict[str, None]] = {}
    for reason in (reason for context in contexts for reason in reasons(context, wanted)):
        for action in reason.statement.actions:
            sids.setdefault(action, {})[reason.statement.sid] = None
            who.setdefault(action, {})[reason.who] = None
    return [(action, ", ".join(sids[action]), ", ".join(who[action])) for action in sorted(sids)]
