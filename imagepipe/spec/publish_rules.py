"""Rules of `publish` that the models cannot check: regions, names of parameters, launch templates, deprecation."""

from __future__ import annotations

from collections.abc import Iterator

from imagepipe import render
from imagepipe.spec.document import Document
from imagepipe.spec.ec2_rules import Finding
from imagepipe.spec.explain import value_at
from imagepipe.spec.models import Spec
from imagepipe.spec.scalars import parameter_name_problem

PUBLIC_SECONDS = 2 * 365 * 86400
"""Longest time until a public image is deprecated: two years (EC2 API reference, EnableImageDeprecation)."""
ONLY_IN_A_BUILD = ("source", "build")
"""Names that `imagepipe publish` does not know: it has neither a source image nor a build."""


def publish_findings(spec: Spec, document: Document) -> Iterator[Finding]:
    """Yield the problems of `publish`, except those of encryption and sharing."""
    yield from _regions(spec)
    yield from _parameter(spec, document)
    yield from _templates(spec)
    publish = spec.publish
    if publish.share.public and (publish.deprecate_after or 0) > PUBLIC_SECONDS:
        yield ("publish", "deprecate_after"), "EC2 deprecates a public image at most two years after its creation"
    if publish.deregistration_protection and spec.output.on_name_taken == "replace":
        message = "a protected image cannot be replaced by the next build: remove output.on_name_taken, or this"
        yield ("publish", "deregistration_protection"), message


def publish_warnings(spec: Spec) -> Iterator[Finding]:
    """Yield what EC2 accepts, but is probably not wanted."""
    publish = spec.publish
    if spec.output.on_name_taken == "replace" and (publish.ssm_parameter or publish.launch_templates):
        key = "ssm_parameter" if publish.ssm_parameter else "launch_templates"
        message = (
            "with on_name_taken: replace, this names an image that is gone while the build replaces it; with"
            " {{ build.timestamp }} in output.name it never does"
        )
        yield ("publish", key), message


def _regions(spec: Spec) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, region in enumerate(spec.publish.regions):
        if region in seen:
            yield ("publish", "regions", index), f"region {region} is listed twice"
        seen.add(region)
    for index, region in enumerate(spec.publish.best_effort):
        if region == spec.launch.region:
            message = f"{region} is the launch region: without its image there is none to copy"
            yield ("publish", "best_effort", index), message
        elif region not in seen:
            yield ("publish", "best_effort", index), f"{region} is not in publish.regions"


def _parameter(spec: Spec, document: Document) -> Iterator[Finding]:
    path = ("publish", "ssm_parameter")
    name = spec.publish.ssm_parameter
    if name is None:
        return
    text = value_at(document.value, path)
    used = render.names_used(text) if isinstance(text, str) else frozenset()
    if wrong := sorted(each for each in used if each.partition(".")[0] in ONLY_IN_A_BUILD):
        message = f"'{wrong[0]}' differs from build to build, but a parameter keeps its name: use var, spec or region"
        yield path, message
    elif isinstance(name, str) and (problem := parameter_name_problem(name)):
        yield path, problem


def _templates(spec: Spec) -> Iterator[Finding]:
    first: dict[tuple[str | None, str | None, str | None], int] = {}
    places = {spec.launch.region, *spec.publish.regions}
    for index, template in enumerate(spec.publish.launch_templates):
        path = ("publish", "launch_templates", index)
        if (template.id is None) == (template.name is None):
            yield path, "exactly one of id and name is needed"
        if template.region is not None and spec.launch.region and template.region not in places:
            yield (*path, "region"), f"{template.region} gets no image: it is not in publish.regions"
        identity = (template.id, template.name, template.region)
        if (before := first.setdefault(identity, index)) != index:
            yield path, f"the template is listed twice; first as entry {before}"
