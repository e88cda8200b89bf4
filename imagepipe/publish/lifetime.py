"""The lifetime of an image: its deprecation, and its protection against deregistration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context
from imagepipe.publish.attribute import ImageAttribute
from imagepipe.values import Image

ROUNDING = timedelta(minutes=1)
"""EC2 rounds the time of a deprecation to minutes (API reference, EnableImageDeprecation)."""
PROTECTED, PROTECTED_WITH_COOLDOWN = "enabled-without-cooldown", "enabled-with-cooldown"
UNPROTECTED = "disabled"


@dataclass(frozen=True)
class DeprecateImage(ImageAttribute):
    """Deprecate the image so long after its creation: users no longer find it, but those who know its id launch it."""

    after_seconds: float

    def differences(self, image: Mapping[str, Any]) -> list[str]:
        at, now = self._time(image), self.ec2.clock.now()
        present = _moment(image["DeprecationTime"]) if image.get("DeprecationTime") else None
        if present is not None and (abs(present - at) <= ROUNDING or max(present, at) <= now):
            return []
        return [f"~ deprecated at {_shown(at)}" + (f", not {_shown(present)}" if present else "")]

    def apply(self, ctx: Context, image: Image) -> None:
        # EC2 refuses a time in the past: an image that is too old already is deprecated at once.
        at = max(self._time(self.ec2.images.describe(image.id)), self.ec2.clock.now() + ROUNDING)
        self.ec2.images.deprecate(image.id, at)

    def _time(self, image: Mapping[str, Any]) -> datetime:
        return _moment(image["CreationDate"]) + timedelta(seconds=self.after_seconds)

    def title(self) -> str:
        return f"set the time of the deprecation in {self.ec2.region}"


@dataclass(frozen=True)
class RemoveDeprecation(ImageAttribute):
    """Remove the deprecation of the image."""

    def differences(self, image: Mapping[str, Any]) -> list[str]:
        present = image.get("DeprecationTime")
        return [f"- no longer deprecated at {_shown(_moment(present))}"] if present else []

    def apply(self, ctx: Context, image: Image) -> None:
        self.ec2.images.undeprecate(image.id)

    def title(self) -> str:
        return f"remove the deprecation in {self.ec2.region}"


@dataclass(frozen=True)
class ProtectImage(ImageAttribute):
    """Protect the image against deregistration.

    An image is protected only after it is kept: a build that fails must be able to deregister it.
    """

    has_cooldown: bool
    """True if the protection lasts for a day after it is disabled."""

    def differences(self, image: Mapping[str, Any]) -> list[str]:
        wanted = PROTECTED_WITH_COOLDOWN if self.has_cooldown else PROTECTED
        if image.get("DeregistrationProtection", UNPROTECTED) == wanted:
            return []
        return ["+ protected against deregistration" + (", with a cooldown" if self.has_cooldown else "")]

    def apply(self, ctx: Context, image: Image) -> None:
        self.ec2.images.protect(image.id, with_cooldown=self.has_cooldown)

    def title(self) -> str:
        return f"protect the image in {self.ec2.region}"


@dataclass(frozen=True)
class RemoveProtection(ImageAttribute):
    """Remove the image's protection against deregistration."""

    def differences(self, image: Mapping[str, Any]) -> list[str]:
        # While a cooldown runs, EC2 describes the protection as "disabled after" a time.
        is_protected = str(image.get("DeregistrationProtection", UNPROTECTED)).startswith("enabled")
        return ["- no longer protected against deregistration"] if is_protected else []

    def apply(self, ctx: Context, image: Image) -> None:
        self.ec2.images.unprotect(image.id)

    def title(self) -> str:
        return f"remove the protection in {self.ec2.region}"


def _moment(text: Any) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
