"""Texts that several formats of a report share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagepipe.report.model import Outcome, RunReport

SENTENCES: dict[Outcome, str] = {
    "succeeded": "The run succeeded.",
    "failed": "The run failed.",
    "cancelled": "The run was cancelled.",
    "running": "The run is in progress. This report shows it as it was when the report was made.",
    "died": "The process of the run died before the run ended.",
}


def related_image(image: Mapping[str, Any]) -> str:
    """Return the line of an image that another one is built on, or that is built on it; unknown parts are left out."""
    name = f" '{image['name']}'" if image.get("name") else ""
    place = f" in {image['region']}" if image.get("region") else ""
    spec = f" (spec {image['spec']})" if image.get("spec") else ""
    return f"{image['image_id']}{name}{place}{spec}"


def short_duration(seconds: float) -> str:
    """Return `8s`, `4m 07s` or `2h 05m`, for tables and terminals."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m {whole % 60:02}s" if whole < 3600 else f"{whole // 3600}h {whole % 3600 // 60:02}m"


def duration(seconds: float | None) -> str:
    """Return `0.4 s`, `12 s`, `4 m 07 s` or `2 h 05 m`; a dash if the duration is not known."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} m {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} m"


def facts(report: RunReport) -> str:
    """Return the run's id, start and duration in one line."""
    took = "so far" if report.outcome == "running" else "until its last event" if report.outcome == "died" else "in all"
    return f"Run {report.run}, started {report.started:%Y-%m-%d %H:%M:%S} UTC, {duration(report.seconds)} {took}"


def outputs(report: RunReport) -> dict[str, str]:
    """Return the values for later jobs of a pipeline, by name: run, outcome, and the images' ids.

    A run of one spec has `image_id`, the first of its images, and `image_id_REGION` with underscores. With several
    specs, the names are `image_id_SPEC_REGION`.
    """
    found = {"run": report.run, "outcome": report.outcome}
    is_alone = len(report.specs) == 1
    if is_alone and report.images:
        found["image_id"] = report.images[0].id
    for image in report.images:
        place = image.region if is_alone else f"{image.spec}_{image.region}"
        found.setdefault("image_id_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in place), image.id)
    return {name: value.replace("\n", " ") for name, value in found.items()}
