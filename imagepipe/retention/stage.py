"""The stage of a build that retires what its new image makes superfluous. It never fails the build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from imagepipe.cloud.ec2 import Regions
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import ImagepipeError
from imagepipe.retention.decide import Decision, decide
from imagepipe.retention.record import FILE_NAME, RetirementRecord
from imagepipe.retention.retire import Retirement, Retirer
from imagepipe.retention.rules import RuleBook, Rules
from imagepipe.retention.survey import SourceOf, survey


@dataclass(frozen=True)
class RetireImages(Stage[tuple[str, ...]]):
    """Do the next step of each superfluous image of the spec or variant, in the spec's regions.

    Output: the steps that were done, as text.
    """

    regions: Regions = field(repr=False, compare=False)
    spec: str
    variant: str
    rules: Rules
    cloud: Mapping[str, str] = field(repr=False, compare=False)
    """Identification of the cloud, for the record."""
    source_of: SourceOf = field(repr=False, compare=False)
    published: Ref[Any]
    """The new images. They are kept already, and stay whatever happens here."""

    def run(self, ctx: Context) -> tuple[str, ...]:
        book = RuleBook({(self.spec, self.variant): self.rules})
        # The record is beside the folders of all runs.
        record = RetirementRecord(ctx.journal.folder.parents[1] / FILE_NAME, self.cloud, ctx.clock)
        try:
            seen = survey(self.regions, self.rules.regions, self.source_of)
            decisions = decide(self.regions, seen, book, ctx.clock.now())
            _say_kept(ctx, decisions)
            done = Retirer(self.regions, ctx.cancel, ctx.clock, record).retire_all(decisions)
        except ImagepipeError as error:
            ctx.cancel.check()
            ctx.say(f"warning: no older image was retired: {error}")
            if error.hint:
                ctx.say(f"  hint: {error.hint}")
            return ()
        return tuple(line for each in done for line in _report(ctx, each))

    def title(self) -> str:
        return "retire older images"

    def summary(self, output: tuple[str, ...]) -> str:
        return "; ".join(output)


def _say_kept(ctx: Context, decisions: list[Decision]) -> None:
    for each in decisions:
        if each.verdict == "in use":
            ctx.say(f"{each.bake.name} is superfluous, and kept because it is used by {', '.join(each.users[:3])}")
        elif each.verdict == "left" and each.error is not None:
            ctx.say(f"warning: {each.bake.name} is left: {each.problem}")


def _report(ctx: Context, done: Retirement) -> list[str]:
    """Log a result; return the steps that were done, as text."""
    if done.users:
        ctx.say(f"{done.decision.bake.name} is kept: it is used by {', '.join(done.users[:3])}")
    elif done.problem:
        ctx.say(f"{'warning: ' if done.is_error else ''}{done.decision.bake.name} is left: {done.problem}")
    for image in done.images:
        for name, reason in image.left.items():
            ctx.say(f"left {name} of {image.id}: {reason}")
    return [f"{image.step} {image.id} in {image.region}" for image in done.images]
