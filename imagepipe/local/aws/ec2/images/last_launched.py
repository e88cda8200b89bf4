"""The time of an image's last launch, which EC2 reports a day late (API reference, Image, `LastLaunchedTime`)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from imagepipe.local.aws.state.records import Image

LAG = timedelta(hours=24)


def with_launch(image: Image, now: datetime) -> Image:
    """Return the image with a launch at this time. One launch of each clock hour is kept, the newest."""
    older = [moment for moment in image.launches if _hour(moment) != _hour(now)]
    reported = [moment for moment in older if moment <= now - LAG]
    recent = [moment for moment in older if moment > now - LAG]
    return replace(image, launches=(*reported[-1:], *recent, now))


def last_launched(image: Image, now: datetime) -> str | None:
    """Format the time of the newest launch that is at least a day ago; None without one."""
    reported = [moment for moment in image.launches if moment <= now - LAG]
    return f"{reported[-1]:%Y-%m-%dT%H:%M:%SZ}" if reported else None


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
