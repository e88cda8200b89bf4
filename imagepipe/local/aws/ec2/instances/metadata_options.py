"""The metadata options of an instance: at its launch, and changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.instances import metadata
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Image, Instance

MAX_HOPS = 64
CHOICES = {
    "HttpTokens": ("optional", "required"),
    "HttpEndpoint": ("enabled", "disabled"),
    "HttpProtocolIpv6": ("disabled", "enabled"),
    "InstanceMetadataTags": ("disabled", "enabled"),
}
"""The values of an option, the default first."""
HOPS = "HttpPutResponseHopLimit"


def at_launch(given: Mapping[str, Any], image: Image) -> dict[str, str]:
    """Return the options of a new instance, with the defaults of its image. Raises AwsError."""
    defaults = {name: choices[0] for name, choices in CHOICES.items()}
    defaults["HttpTokens"] = "required" if image.imds_support == "v2.0" else "optional"
    defaults[HOPS] = "2" if image.imds_support else "1"
    return _checked({name: str(given.get(name, default)) for name, default in defaults.items()})


def modify_instance_metadata_options(backend: Backend, call: Call) -> Mapping[str, Any]:
    instance = lookup.instance(backend, call, call.text("InstanceId"))
    if instance.state not in ("pending", "running", "stopping", "stopped"):
        text = f"The instance '{instance.id}' is {instance.state}"
        raise AwsError("IncorrectInstanceState", text)
    given = _checked({name: str(call.params[name]) for name in (*CHOICES, HOPS) if name in call.params})
    state = "pending" if instance.state in ("pending", "running") else "applied"
    changed = replace(instance, metadata_options={**instance.metadata_options, **given}, metadata_state=state)
    backend.database.put(changed)
    metadata.refresh_later(backend, changed)
    return {"InstanceId": changed.id, "InstanceMetadataOptions": {**to_api(changed), "State": "pending"}}


def _checked(options: dict[str, str]) -> dict[str, str]:
    for name, value in options.items():
        allowed = CHOICES.get(name)
        if value not in allowed if allowed else not 1 <= int(value) <= MAX_HOPS:
            raise invalid(f"Value ({value}) for parameter {name} is invalid.")
    return options


def to_api(instance: Instance) -> dict[str, Any]:
    """Describe the options as DescribeInstances does."""
    options = instance.metadata_options
    return {
        "State": instance.metadata_state,
        "HttpTokens": options.get("HttpTokens"),
        HOPS: int(options.get(HOPS, "1")),
        "HttpEndpoint": options.get("HttpEndpoint"),
        "HttpProtocolIpv6": options.get("HttpProtocolIpv6"),
        "InstanceMetadataTags": options.get("InstanceMetadataTags"),
    }
