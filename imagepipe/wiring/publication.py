"""Translate `publish:` into stages, for a new image and for one that exists already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from imagepipe.engine.stage import Ref
from imagepipe.launch.source import CheckNames
from imagepipe.publish.reuse import CollectPublished, ExistingText, UseExisting
from imagepipe.publish.share import ShareImage
from imagepipe.publish.test import UseImage
from imagepipe.values import Image
from imagepipe.wiring.build import Baked, ImageBuild
from imagepipe.wiring.capture import capture_for
from imagepipe.wiring.existing import Existing


def publish_existing(build: ImageBuild, existing: Existing) -> Baked:
    """Add the stages of a spec whose image exists already: copies and permissions that it lacks, and nothing else."""
    add = build.stages.add
    images = {
        region: add(f"image-{region}", UseExisting(build.everywhere[region], id))
        for region, id in existing.images.items()
    }
    at_home = images[build.region]
    missing = [region for region in build.copies if region not in images]
    unshared = [*missing, *existing.unshared]
    checks: tuple[Ref[Any], ...] = ()
    if missing or unshared:
        source = add("source", UseImage(build.ec2, at_home))
        checks = tuple(build.check_sharing(source))
    if missing:
        text = add("name", ExistingText(build.ec2, at_home, tuple(missing)))
        capture = capture_for(build, source, add("names", CheckNames(build.everywhere, text)))
        for region in missing:
            images[region] = add(f"copy-{region}", capture.copy(at_home, region))
    published = share(build, images, unshared, after=checks)
    copies = add("keep", build.keep([published[region] for region in missing], ())) if missing else None
    earlier = tuple(published[region] for region in existing.images)
    final = add("published", CollectPublished(earlier, copies))
    stages = frozenset(build.stages.names)
    return Baked(str(build.loaded.key), final, final, (), stages, images, build.base, is_unchanged=True)


def share(
    build: ImageBuild, images: Mapping[str, Ref[Image]], regions: Iterable[str], *, after: tuple[Ref[Any], ...]
) -> dict[str, Ref[Image]]:
    """Share the images in these regions, if the spec shares any; return the images of all regions."""
    published = dict(images)
    for region in regions if build.audience else ():
        stage = ShareImage(build.everywhere[region], images[region], build.audience, after=after)
        published[region] = build.stages.add(f"share-{region}", stage)
    return published
