"""Translate `publish:` into stages, for a new image and for one that exists already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from imagepipe.engine.stage import Ref
from imagepipe.publish.keep import CollectImages
from imagepipe.publish.reuse import ExistingText, UseExisting
from imagepipe.publish.test import UseImage
from imagepipe.values import Image
from imagepipe.wiring.attributes import (
    Named,
    additions,
    announcements,
    deprecations,
    lasting_tags,
    shares,
    withdrawals,
)
from imagepipe.wiring.build import Baked, BestEffort, ImageBuild
from imagepipe.wiring.capture import capture_for
from imagepipe.wiring.existing import Existing


def prepare(build: ImageBuild, region: str, image: Ref[Image]) -> Ref[Image]:
    """Set the attributes of a new image that undo can delete: permissions, and the time of its deprecation.

    An image that takes over a name is registered again, and a deprecation would be lost: it is set after that.
    """
    ec2 = build.everywhere[region]
    image = _add(build, region, image, shares(build.spec, ec2, image))
    return image if build.replaces else _add(build, region, image, deprecations(build.spec, ec2, image))


def keep(build: ImageBuild, images: Mapping[str, Ref[Image]], after: Iterable[Ref[Any]]) -> dict[str, Ref[Any]]:
    """Keep the images of all required regions together, then each of the others alone; return the stages by region."""
    kept = build.stages.add(
        "keep", build.keep([images[region] for region in images if region in build.required], [*after])
    )
    found: dict[str, Ref[Any]] = {}
    for region, image in images.items():
        is_required = region in build.required
        found[region] = kept if is_required else build.add_in(region, "keep", build.keep([image], [kept]))
    return found


def announce(build: ImageBuild, region: str, image: Ref[Image], *, after: Ref[Any]) -> Ref[Image]:
    """Protect a kept image, and name it in launch templates and, last, in the SSM parameter."""
    ec2 = build.everywhere[region]
    attributes = [*announcements(build.loaded, ec2, image, home=build.region)]
    if build.replaces:
        attributes = [*deprecations(build.spec, ec2, image), *attributes]
    return _add(build, region, image, attributes, after=(after,))


def _add(
    build: ImageBuild, region: str, image: Ref[Image], attributes: Iterable[Named], *, after: tuple[Ref[Any], ...] = ()
) -> Ref[Image]:
    """Add stages that set attributes, one after another; return the image with all of them."""
    for name, stage in attributes:
        image = build.add_in(region, name, replace(stage, image=image, after=after))
    return image


def finish(build: ImageBuild, images: Mapping[str, Ref[Image]]) -> Ref[tuple[Image, ...]]:
    """Collect the images of the required regions, once everything about them is done."""
    return build.stages.add(
        "published", CollectImages(tuple(images[region] for region in images if region in build.required))
    )


def best_effort(build: ImageBuild, source: Ref[Image], images: Mapping[str, Ref[Image]]) -> dict[str, BestEffort]:
    """Return the regions that may fail alone. `source` is the image that is copied there."""
    return {
        region: BestEffort(source, images[region], frozenset(part.names))
        for region, part in build.parts.items()
        if part.names
    }


def publish_existing(build: ImageBuild, existing: Existing) -> Baked:
    """Add the stages of a spec whose image exists already: copies and attributes that it lacks, and nothing else."""
    add = build.stages.add
    images = {
        region: build.add_in(region, "image", UseExisting(build.everywhere[region], id))
        for region, id in existing.images.items()
    }
    at_home = images[build.region]
    missing = existing.missing(build.copies)
    checks: tuple[Ref[Any], ...] = ()
    if missing or existing.changes:
        source = add("source", UseImage(build.ec2, at_home))
        checks = tuple(build.check_publication(source))
    for region in existing.images:
        ec2, wanted = build.everywhere[region], existing.stages(region)
        every = [
            *withdrawals(build.loaded, ec2, at_home),
            *additions(build.loaded, ec2, at_home, home=build.region),
        ]
        attributes = [(name, stage) for name, stage in every if name in wanted]
        images[region] = _add(build, region, images[region], attributes, after=checks)
    kept: dict[str, Ref[Any]] = {}
    if missing:
        text = add("name", ExistingText(build.ec2, at_home, tuple(missing), lasting_tags(build.loaded), checks))
        capture = capture_for(build, source, add("names", build.check_names(text)))
        copies = {region: build.add_in(region, "copy", capture.copy(at_home, region)) for region in missing}
        ready = {region: prepare(build, region, copy) for region, copy in copies.items()}
        kept = keep(build, ready, ())
        for region, stage in kept.items():
            images[region] = announce(build, region, ready[region], after=stage)
    final = finish(build, images)
    stages = frozenset(build.stages.names)
    return Baked(
        str(build.loaded.key),
        final,
        next((kept[region] for region in missing if region in build.required), final),
        (),
        stages,
        best_effort(build, at_home, images),
        images,
        build.base,
        is_unchanged=True,
    )
