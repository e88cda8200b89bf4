"""The images that a build would retire, because its new image makes them superfluous."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.errors import CloudError
from imagepipe.planning.actions import Action
from imagepipe.retention.bakes import BakedImage
from imagepipe.retention.decide import decide
from imagepipe.retention.rules import RuleBook, Rules
from imagepipe.retention.survey import SourceOf, Survey, survey
from imagepipe.spec.keys import SpecKey

NEW = "the new image"


def retired_by(
    baked: Mapping[SpecKey, Rules], regions: Regions, source_of: SourceOf, now: datetime
) -> Iterator[Action]:
    """Yield the steps of retention for specs that are baked, with their reasons. Makes only calls that read.

    If the uses of images cannot be read, one action for each spec says so: the build would retire nothing either.
    """
    if not baked:
        return
    names = sorted({region for rules in baked.values() for region in rules.regions})
    try:
        seen = survey(regions, names, source_of)
        new = [image for key, rules in baked.items() for image in _new_images(key, rules, now)]
        book = RuleBook({(key.name, key.variant): rules for key, rules in baked.items()})
        decisions = decide(regions, Survey((*seen.images, *new), seen.failed, seen.built_on), book, now)
    except CloudError as error:
        yield from (Action(str(key), "retire", f"no older image: {error}") for key in baked)
        return
    for each in decisions:
        if each.verdict == "retire" and each.assessment.step:
            for image in each.assessment.images:
                what = f"{image.id} '{image.name}' ({each.assessment.step}: {each.assessment.reason})"
                yield Action(each.bake.key, "retire", what, image.region)


def _new_images(key: SpecKey, rules: Rules, now: datetime) -> Iterator[BakedImage]:
    """Yield stand-ins for the images that the build would make."""
    own = {tags.SPEC: key.name, tags.RUN: NEW, tags.STATE: tags.KEPT}
    if key.variant:
        own[tags.VARIANT] = key.variant
    for region in rules.regions:
        yield BakedImage(f"{NEW} of {key}", region, NEW, "available", now, own)
