"""The policy of specs: what their stages and their undo ask, put together; and each action with who asks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from imagepipe.iam.document import Statement, merged
from imagepipe.policy.context import PolicyContext
from imagepipe.policy.stages import STAGES, STEPS, heartbeat, stages_of
from imagepipe.policy.undo import UNDO, kinds_of, sweep

For = Literal["build", "clean"]


@dataclass(frozen=True, slots=True)
class Reason:
    """That something of a run asks for something."""

    who: str
    """A stage's class, or what else a run does."""
    statement: Statement


def reasons(context: PolicyContext, wanted: For) -> Iterator[Reason]:
    """Everything that a build of the spec and its undo ask for; or what `clean` asks, alone."""
    if wanted == "build":
        for name in stages_of(context):
            yield from (Reason(name, one) for one in STAGES[name](context))
        for name, asks in STEPS.items():
            yield from (Reason(name, one) for one in asks(context))
        yield from (Reason("Heartbeat", one) for one in heartbeat(context))
    else:
        yield from (Reason("clean --older-than", one) for one in sweep(context))
    for kind in kinds_of(context):
        yield from (Reason(f"undo of {kind}", one) for one in UNDO[kind](context))


def statements(contexts: Sequence[PolicyContext], wanted: For = "build") -> list[Statement]:
    """What all these specs context together, for who builds them all."""
    return merged(reason.statement for context in contexts for reason in reasons(context, wanted))


def explained(contexts: Sequence[PolicyContext], wanted: For = "build") -> list[tuple[str, str, str]]:
    """Each action, the statements that allow it, and who asks it; sorted by action."""
    sids: dict[str, dict[str, None]] = {}
    who: dict[str, dict[str, None]] = {}
    for reason in (reason for context in contexts for reason in reasons(context, wanted)):
        for action in reason.statement.actions:
            sids.setdefault(action, {})[reason.statement.sid] = None
            who.setdefault(action, {})[reason.who] = None
    return [(action, ", ".join(sids[action]), ", ".join(who[action])) for action in sorted(sids)]
