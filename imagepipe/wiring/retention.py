"""Translate `retention:` into a stage, the last one of a spec that is baked."""

from __future__ import annotations

from typing import Any

from imagepipe.engine.stage import Ref
from imagepipe.wiring.build import ImageBuild


def retire_older(build: ImageBuild, published: Ref[Any]) -> None:
    """Add the stage that retires older images, if the spec has a retention. Nothing waits for it."""
    if build.spec.retention is None:
        return
    from imagepipe.retention.rules import rules_of
    from imagepipe.retention.stage import RetireImages

    if (rules := rules_of(build.spec, build.region)) is None:
        return
    tools = build.tools
    stage = RetireImages(
        tools.regions,
        build.spec.name,
        build.loaded.key.variant,
        rules,
        tools.cloud,
        tools.source_of,
        published,
    )
    build.stages.add("retire", stage)
