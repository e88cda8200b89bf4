"""CreateFleet of the type `instant`, and RequestSpotInstances: launches in another form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.instances import run, spot
from imagepipe.local.aws.protocol.errors import AwsError, invalid, missing, unsupported
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call

Pool = tuple[Mapping[str, Any], Mapping[str, Any]]
"""A launch template's name and version, and the values that override its data."""


def create_fleet(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Launch the instances of a fleet in the first pool that has room, as the default strategies of EC2 may do.

    Pools that refuse are in the answer's Errors, each with EC2's code.
    """
    if call.params.get("Type", "maintain") != "instant":
        raise unsupported("The local cloud makes fleets of the type instant only")
    capacity = call.params["TargetCapacitySpecification"]
    left = int(capacity["TotalTargetCapacity"])
    market = str(capacity.get("DefaultTargetCapacityType") or "on-demand")
    if market not in ("spot", "on-demand"):
        raise unsupported(f"The local cloud does not have the capacity type {market}")
    launched: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for pool in pools(call):
        if left == 0:
            break
        described = {"LaunchTemplateSpecification": pool[0], "Overrides": pool[1]}
        try:
            answer = run.run_instances(backend, run.prepare(backend, pool_launch(call, pool, market, left)))
        except AwsError as error:
            errors.append(
                {
                    "LaunchTemplateAndOverrides": described,
                    "Lifecycle": market,
                    "ErrorCode": error.code,
                    "ErrorMessage": error.message,
                }
            )
            continue
        made = answer["Instances"]
        left -= len(made)
        launched.append(
            {
                "LaunchTemplateAndOverrides": described,
                "Lifecycle": market,
                "InstanceIds": [instance["InstanceId"] for instance in made],
                "InstanceType": made[0]["InstanceType"],
                "SubnetId": made[0]["SubnetId"],
                "AvailabilityZone": made[0]["Placement"]["AvailabilityZone"],
            }
        )
    return {"FleetId": f"fleet-{new_id('f')[2:]}", "Errors": errors, "Instances": launched}


def pools(call: Call) -> Iterator[Pool]:
    """Yield the pools of a fleet in the order in which they are tried. Raises AwsError."""
    configs = call.params["LaunchTemplateConfigs"]
    for config in configs:
        template = config.get("LaunchTemplateSpecification")
        if not template:
            raise missing("LaunchTemplateConfigs.LaunchTemplateSpecification")
        overrides = config.get("Overrides") or [{}]
        for override in sorted(overrides, key=lambda each: float(each.get("Priority", 0))):
            if override.get("InstanceRequirements"):
                raise unsupported("The local cloud does not choose instance types by InstanceRequirements: name them")
            yield template, override


def pool_launch(call: Call, pool: Pool, market: str, count: int) -> Call:
    """Make the call of RunInstances for one pool."""
    template, override = pool
    params: dict[str, Any] = {
        "LaunchTemplate": template,
        "MinCount": count,
        "MaxCount": count,
        **{name: override[name] for name in ("InstanceType", "SubnetId", "ImageId", "Placement") if name in override},
    }
    if override.get("AvailabilityZone"):
        params["Placement"] = {**params.get("Placement", {}), "AvailabilityZone": override["AvailabilityZone"]}
    if override.get("BlockDeviceMappings"):
        params["BlockDeviceMappings"] = override["BlockDeviceMappings"]
    if market == "spot":
        price = {"MaxPrice": override["MaxPrice"]} if override.get("MaxPrice") else {}
        params["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": price}
    tags = [each for each in call.params.get("TagSpecifications", []) if each.get("ResourceType") != "fleet"]
    if tags:
        params["TagSpecifications"] = tags
    return replace(call, action="RunInstances", params=params)


def request_spot_instances(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Launch instances on the spot market; each request is fulfilled at once."""
    answer = run.run_instances(backend, run.prepare(backend, spot_launch(call)))
    ids = [instance["SpotInstanceRequestId"] for instance in answer["Instances"]]
    described = replace(call, params={"SpotInstanceRequestIds": ids})
    return {"SpotInstanceRequests": spot.describe_spot_instance_requests(backend, described)["SpotInstanceRequests"]}


def spot_launch(call: Call) -> Call:
    """Make the call of RunInstances for a RequestSpotInstances. Raises AwsError."""
    params = call.params
    specification = dict(params.get("LaunchSpecification", {}))
    if not specification:
        raise missing("LaunchSpecification")
    specification.pop("AddressingType", None)
    count = int(params.get("InstanceCount") or 1)
    if count < 1:
        raise invalid(f"Value ({count}) for parameter instanceCount is invalid.")
    options = {
        "SpotInstanceType": params.get("Type"),
        "MaxPrice": params.get("SpotPrice"),
        "InstanceInterruptionBehavior": params.get("InstanceInterruptionBehavior"),
    }
    launch = {
        **specification,
        "MinCount": count,
        "MaxCount": count,
        "InstanceMarketOptions": {
            "MarketType": "spot",
            "SpotOptions": {name: value for name, value in options.items() if value},
        },
        **{name: params[name] for name in ("ClientToken", "TagSpecifications") if name in params},
    }
    return replace(call, action="RunInstances", params=launch)
