"""The faults of a storm, drawn by a seed from all kinds that the local cloud has."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from imagepipe.local.aws.faults.faults import Effect, Fault, to_json

Draw = Callable[[random.Random], Fault]
MADE = ("CreateSnapshots", "RegisterImage", "CopyImage")
CREATED = (*MADE, "RunInstances", "ImportKeyPair", "CreateSecurityGroup")
CHANGED = (*CREATED, "AuthorizeSecurityGroupIngress", "ModifyImageAttribute", "CreateTags", "StopInstances")
GIVEN_BACK = ("TerminateInstances", "DeleteSecurityGroup", "DeleteKeyPair", "DeregisterImage", "DeleteSnapshot")
OBJECTS = ("s3:PutObject", "s3:UploadPart*", "s3:GetObject", "s3:CopyObject", "s3:*")
ANY = (*CHANGED, *GIVEN_BACK, "Describe*", "DescribeImages", "DescribeInstances", *OBJECTS)
PER_ROUND = 5


def _fault(
    effect: Effect,
    draw: random.Random,
    *actions: str,
    times: int = 2,
    seconds: tuple[float, float] | None = None,
    code: str = "",
    after: int = 1,
) -> Fault:
    return Fault(
        effect=effect,
        action=draw.choice(actions),
        code=code,
        seconds=round(draw.uniform(*seconds), 1) if seconds else 0.0,
        times=draw.randint(1, times),
        after=draw.randint(0, after),
        probability=draw.choice((0.3, 0.6, 1.0)),
    )


KINDS: tuple[Draw, ...] = (
    lambda draw: _fault("refuse", draw, "Describe*", "*", *CHANGED, times=12, code="RequestLimitExceeded"),
    lambda draw: _fault("refuse", draw, "RunInstances", times=3, code="InsufficientInstanceCapacity"),
    lambda draw: _fault("refuse", draw, *ANY, code="InternalError", times=3),
    lambda draw: _fault("refuse", draw, *ANY, code="Unavailable", times=3),
    lambda draw: _fault("refuse", draw, *OBJECTS, code="SlowDown", times=6),
    lambda draw: _fault("delay", draw, *ANY, times=4, seconds=(0.2, 2)),
    lambda draw: _fault("delay-after", draw, *ANY, times=4, seconds=(0.2, 2)),
    lambda draw: _fault("cut-before", draw, *ANY),
    lambda draw: _fault("cut-after", draw, *ANY),
    lambda draw: _fault("cut-after", draw, *CREATED),
    lambda draw: _fault("hide", draw, *CREATED, times=3, seconds=(0.3, 2.5)),
    lambda draw: _fault("hide", draw, *CREATED, times=3, seconds=(0.3, 2.5)),
    lambda draw: _fault("fail", draw, *MADE, "RunInstances", times=1),
    lambda draw: _fault("hang", draw, *MADE, times=1),
    lambda draw: _fault("impair", draw, "RunInstances"),
    lambda draw: _fault("die", draw, "RunInstances", times=1, seconds=(0, 6), after=3),
    lambda draw: _fault("drop-ssh", draw, "RunInstances", seconds=(0.2, 5), after=2),
    lambda draw: _fault("late-ssh", draw, "RunInstances", seconds=(1, 5)),
)
"""Faults that hit some of a round's builds."""
ALL_AT_ONCE: tuple[Draw, ...] = (
    lambda draw: Fault(
        "skew", seconds=draw.choice((-1200.0, 1200.0)), after=draw.randint(20, 200), times=draw.randint(1, 40)
    ),
    lambda draw: Fault("expire", action=draw.choice(CHANGED), after=draw.randint(0, 3), times=1),
)
"""Faults that hit all builds of a round at once, because these share a clock and a key. They are drawn less often."""


def rounds(seed: int) -> Iterator[list[Fault]]:
    """Yield the faults of each round, without end: drawn from a deck of all kinds, shuffled again when empty."""
    draw = random.Random(seed)
    deck: list[Draw] = []
    while True:
        dealt = []
        for _ in range(PER_ROUND):
            if not deck:
                deck = [*KINDS * 2, *ALL_AT_ONCE]
                draw.shuffle(deck)
            dealt.append(deck.pop()(draw))
        yield dealt


def as_body(faults: list[Fault], seed: int) -> dict[str, object]:
    """Convert the faults to the request of the cloud's own interface."""
    return {"faults": [to_json(fault) for fault in faults], "seed": seed}
