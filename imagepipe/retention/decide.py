"""Decide for each bake whether its next step is done, is not due yet, or is not done because something uses it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import Literal

from imagepipe.cloud.ec2 import Regions
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError
from imagepipe.retention.bakes import Bake
from imagepipe.retention.ladder import Assessment, assess
from imagepipe.retention.rules import RuleBook, Rules
from imagepipe.retention.sizes import Storage, storage_of
from imagepipe.retention.survey import Survey
from imagepipe.retention.uses import Uses, describe_uses, uses_of

Verdict = Literal["retire", "wait", "in use", "left", "keep"]


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on one bake."""

    assessment: Assessment
    verdict: Verdict
    users: tuple[str, ...] = ()
    """Everything that uses an image of the bake, as text."""
    problem: str = ""
    """Reason why a superfluous bake is left, if that is not a use."""
    error: CloudError | None = None
    """Error that is the reason, if there was one."""
    storage: tuple[Storage, ...] = field(default=())

    @property
    def bake(self) -> Bake:
        return self.assessment.bake


def decide(regions: Regions, survey: Survey, book: RuleBook, now: datetime) -> list[Decision]:
    """Return the decision on each bake of the specs with rules. Makes only calls that read.

    Raises CloudError if a permission for a check of references is missing: then nothing may be retired.
    """
    decisions = [_by_regions(each, survey, book, now) for each in assessments(survey.bakes(book.names), book, now)]
    due = [each.bake for each in decisions if each.verdict == "retire"]
    uses = uses_of(regions, (image for bake in due for image in bake.images))
    if denied := uses.missing_permission():
        raise CloudError(
            f"nothing was retired, because the uses of images are not known: {denied}",
            code=denied.code,
            iam_action=denied.iam_action,
            hint=f"{denied.hint or 'the credentials need this permission'}; see `imagepipe policy SPEC --for prune`",
        )
    decisions = [_by_uses(each, uses, survey) if each.verdict == "retire" else each for each in decisions]
    return _with_storage(regions, decisions, now)


def assessments(bakes: Sequence[Bake], book: RuleBook, now: datetime) -> list[Assessment]:
    """Return the place of each bake on the ladder, spec by spec. `bakes` has the newest first."""
    by_key: dict[tuple[str, str], list[Bake]] = {}
    for bake in bakes:
        by_key.setdefault((bake.spec, bake.variant), []).append(bake)
    found: list[Assessment] = []
    for (spec, variant), group in sorted(by_key.items()):
        if (rules := book.rules_for(spec, variant)) is not None:
            found += assess(group, rules, now)
    return found


def _by_regions(assessment: Assessment, survey: Survey, book: RuleBook, now: datetime) -> Decision:
    """Decide without a look at uses. A bake that may have copies in a region that failed is left."""
    bake = assessment.bake
    if assessment.step is None:
        return Decision(assessment, "left" if assessment.is_protected else "keep", problem=assessment.reason)
    if assessment.due and assessment.due > now:
        return Decision(assessment, "wait")
    possible = _possible_regions(bake, survey.bakes([bake.spec]), book.rules_for(bake.spec, bake.variant))
    for region, error in survey.failed.items():
        if region in possible:
            return Decision(assessment, "left", problem=f"{region} does not answer: {error}", error=error)
    return Decision(assessment, "retire")


def _possible_regions(bake: Bake, others: Iterable[Bake], rules: Rules | None) -> Collection[str]:
    """Return the regions in which a bake may have copies: those of its spec, and those of its spec's other bakes."""
    seen = {region for each in others if each.variant == bake.variant for region in each.regions}
    return seen | set(rules.regions if rules else ())


def _by_uses(decision: Decision, uses: Uses, survey: Survey) -> Decision:
    bake = decision.bake
    for region in bake.regions:
        if (error := uses.failed.get(region)) is not None:
            return replace(
                decision, verdict="left", problem=f"its uses in {region} are not known: {error}", error=error
            )
    users = describe_uses(bake, uses, survey.layers_of(bake))
    return replace(decision, verdict="in use", users=tuple(users)) if users else decision


def _with_storage(regions: Regions, decisions: Sequence[Decision], now: datetime) -> list[Decision]:
    """Add the storage of the bakes that are retired."""
    images = [image for each in decisions if each.verdict == "retire" for image in each.bake.images]
    storage: Mapping[tuple[str, str], Storage] = storage_of(regions, images, now) if images else {}
    return [
        replace(each, storage=tuple(storage[image.id, image.region] for image in each.bake.images))
        if each.verdict == "retire"
        else each
        for each in decisions
    ]
