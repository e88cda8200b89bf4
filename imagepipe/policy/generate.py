"""The policy of specs: what their stages and their undo ask, put together; and each action with who asks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from imagepipe.iam.document import Statement, merged
from imagepipe.policy.context import PolicyContext
from imagepipe.policy.stages import STAGES, STEPS, answers_for, stages_of
from imagepipe.policy.undo import UNDO, kinds_of, sweep

For = Literal["build", "clean"]


@dataclass(frozen=True, slots=True)
class Reason:
    """That something of a run asks for something."""

    who: str
    """A stage's class, or what else a run does."""
    statement: Statement


def reasons(need: PolicyContext, wanted: For) -> Iterator[Reason]:
    """Everything that a build of the spec and its undo ask for; or what `clean` asks, alone."""
    if wanted == "build":
        for name in stages_of(need):
            yield from (Reason(name, one) for one in STAGES[name](need))
        for name, asks in STEPS.items():
            yield from (Reason(name, one) for one in asks(need))
        yield from (Reason("Heartbeat", one) for one in answers_for(need))
    else:
        yield from (Reason("clean --older-than", one) for one in sweep(need))
    for kind in kinds_of(need):
        yield from (Reason(f"undo of {kind}", one) for one in UNDO[kind](need))


def statements(needs: Sequence[PolicyContext], wanted: For = "build") -> list[Statement]:
    """What all these specs need together, for who builds them all."""
    return merged(reason.statement for need in needs for reason in reasons(need, wanted))


def explained(needs: Sequence[PolicyContext], wanted: For = "build") -> list[tuple[str, str, str]]:
    """Each action, the statements that allow it, and who asks it; sorted by action."""
    sids: dict[str, dict[str, None]] = {}
    who: dict[str, dict[str, None]] = {}
    for reason in (reason for need in needs for reason in reasons(need, wanted)):
        for action in reason.statement.actions:
            sids.setdefault(action, {})[reason.statement.sid] = None
            who.setdefault(action, {})[reason.who] = None
    return [(action, ", ".join(sids[action]), ", ".join(who[action])) for action in sorted(sids)]
