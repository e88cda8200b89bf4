"""Disable images, and enable them again (EC2 user guide, "Disable an AMI")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Image


def disable_image(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Disable an available image, which takes away all its launch permissions. Disabling it again changes nothing."""
    image = _settled_image(backend, call)
    backend.database.put(replace(image, state="disabled", users=()))
    return {"Return": True}


def enable_image(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Make a disabled image available again, without its earlier launch permissions."""
    image = _settled_image(backend, call)
    backend.database.put(replace(image, state="available"))
    return {"Return": True}


def check_enabled(image: Image) -> None:
    """Raise AwsError for a disabled image, which cannot be shared. EC2 does not document the code: this is a guess."""
    if image.state == "disabled":
        raise AwsError("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is disabled, and cannot be shared")


def _settled_image(backend: Backend, call: Call) -> Image:
    """Find the caller's image. Raises AwsError for one that is pending or failed."""
    image = lookup.own_image(backend, call, call.text("ImageId"))
    return image if image.state == "disabled" else lookup.check_available(image)
