"""Decide which bakes are superfluous, since when, and which step is next. Knows nothing of clouds and of users."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from imagepipe.dataclass import dataclass
from imagepipe.retention.bakes import Bake, BakedImage
from imagepipe.retention.rules import Rules, Step

ENDED = ("available", "disabled")
"""States of images that a step can be applied to; a pending or failed image is left to whoever makes it."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The place of a bake on the ladder."""

    bake: Bake
    step: Step | None
    """The next step; None if the bake is not superfluous."""
    reason: str
    """Reason why the bake is superfluous, or why it is kept."""
    due: datetime | None = None
    """Time from which the step may be done."""
    images: tuple[BakedImage, ...] = ()
    """The images that need the step; the others are already past it."""
    is_protected: bool = False
    """True if the bake is superfluous, but something other than its rules keeps it."""


def assess(bakes: Sequence[Bake], rules: Rules, now: datetime) -> list[Assessment]:
    """Return the place of each bake of one spec or variant. `bakes` has the newest first.

    A bake is superfluous if it meets every condition of the rules. Disabled bakes do not count as newer ones, so that
    the last usable bake is always kept.
    """
    assessed = []
    newer: list[Bake] = []
    for bake in bakes:
        assessed.append(_assess(bake, newer, rules, now))
        if bake.is_usable:
            newer.append(bake)
    return assessed


def _assess(bake: Bake, newer: Sequence[Bake], rules: Rules, now: datetime) -> Assessment:
    since, reason = _superfluous(bake, newer, rules)
    if since is None or since > now:
        return Assessment(bake, None, reason)
    if last := _last_regions(bake, newer, rules):
        return Assessment(bake, None, f"it is the last image of {bake.key} in {', '.join(last)}")
    if rules.launched_within and (launched := _launched(bake, now - rules.launched_within)):
        reason = f"{launched.describe()} was launched on {launched.last_launched:%Y-%m-%d}"
        return Assessment(bake, None, reason, is_protected=True)
    if protected := [image for image in bake.images if image.is_protected]:
        reason = f"{protected[0].describe()} has deregistration protection"
        return Assessment(bake, None, reason, is_protected=True)
    if unsettled := [image for image in bake.images if image.state not in ENDED or not image.is_kept]:
        state = unsettled[0].state_at(now)
        more = ": its run is in progress, or `imagepipe clean` deletes it" if state == "unfinished" else ""
        reason = f"{unsettled[0].describe()} is {state}{more}"
        return Assessment(bake, None, reason, is_protected=True)
    step, images, due = _next_step(bake, since, rules, now)
    return Assessment(bake, step, reason, due, images)


def _superfluous(bake: Bake, newer: Sequence[Bake], rules: Rules) -> tuple[datetime | None, str]:
    """Return the time since which a bake is superfluous, with the reason; None and the reason why it is not."""
    if len(newer) < rules.newest:
        among = "it is the last one" if not newer else f"it is among the newest {rules.newest}"
        return None, among
    # The bake left the newest ones when the last of so many newer bakes was made.
    since = newer[len(newer) - rules.newest].created
    reason = f"{len(newer)} newer, {rules.newest} kept"
    if rules.max_age is not None:
        old = bake.created + rules.max_age
        since = max(since, old)
        reason += f"; older than {days(rules.max_age)} since {old:%Y-%m-%d}"
    return since, reason


def _last_regions(bake: Bake, newer: Sequence[Bake], rules: Rules) -> list[str]:
    """Return the regions of the spec in which no newer usable image exists."""
    images = [image for each in newer for image in each.images]
    usable = {image.region for image in images if image.state == "available" and image.is_kept}
    return [region for region in bake.regions if region in rules.regions and region not in usable]


def _launched(bake: Bake, after: datetime) -> BakedImage | None:
    """Return an image that was launched after this time."""
    return next((image for image in bake.images if image.last_launched and image.last_launched > after), None)


def _next_step(
    bake: Bake, since: datetime, rules: Rules, now: datetime
) -> tuple[Step, tuple[BakedImage, ...], datetime]:
    """Return the least advanced step that some image needs, those images, and the time at which it is due."""
    grace = {step: rules.grace.get(step, timedelta()) for step in Step}
    fresh = tuple(image for image in bake.images if image.state == "available" and not image.is_deprecated_at(now))
    if fresh:
        return Step.DEPRECATE, fresh, since + grace[Step.DEPRECATE]
    enabled = [image for image in bake.images if image.state == "available"]
    # An image that somebody else disabled has no such time yet: the step only writes it down, and the waiting begins.
    unmarked = [image for image in bake.images if image.state != "available" and image.disabled_at is None]
    if enabled or unmarked:
        deprecated = max((image.deprecated_at or now for image in enabled), default=since)
        # A deprecation that the spec asked for at publication counts only once the image is superfluous.
        due = max(deprecated, since + grace[Step.DEPRECATE]) + grace[Step.DISABLE]
        return Step.DISABLE, (*enabled, *unmarked), due
    disabled = max(image.disabled_at or now for image in bake.images)
    return Step.DEREGISTER, bake.images, max(disabled, since) + grace[Step.DEREGISTER]


def days(time: timedelta) -> str:
    """Return a duration as text: `90d`, `12h`, `30m`, `45s`."""
    seconds = int(time.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
