"""Deregistration protection, and the day that it lasts after it was disabled (EC2 user guide, "Protect an AMI")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from imagepipe.clock import iso
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Image

COOLDOWN = timedelta(hours=24)
DISABLED = "disabled"
WITH_COOLDOWN = "enabled-with-cooldown"
WITHOUT_COOLDOWN = "enabled-without-cooldown"


def enable_image_deregistration_protection(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Protect the image. A cooldown that is running continues: it cannot be cut short by protecting the image again."""
    image = lookup.own_image(backend, call, call.text("ImageId"))
    word = WITH_COOLDOWN if call.params.get("WithCooldown") else WITHOUT_COOLDOWN
    backend.database.put(replace(image, protection=word))
    return {"Return": word}


def disable_image_deregistration_protection(backend: Backend, call: Call) -> Mapping[str, Any]:
    image = lookup.own_image(backend, call, call.text("ImageId"))
    ends = backend.clock.now() + COOLDOWN if image.protection == WITH_COOLDOWN else image.cooldown_ends
    backend.database.put(replace(image, protection=DISABLED, cooldown_ends=ends))
    return {"Return": DISABLED}


def check_unprotected(backend: Backend, image: Image) -> None:
    """Raise AwsError if the image cannot be deregistered now."""
    if image.protection != DISABLED:
        raise AwsError("OperationNotPermitted", f"The image {image.id} has deregistration protection enabled.")
    if image.cooldown_ends is not None and backend.clock.now() < image.cooldown_ends:
        # EC2 does not document the code of this refusal: it is assumed to be that of a protected image.
        raise AwsError(
            "OperationNotPermitted",
            f"The image {image.id} has deregistration protection until {iso(image.cooldown_ends)}: its cooldown of 24"
            " hours has not ended.",
        )
