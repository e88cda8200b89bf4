"""Launches on the spot market."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.faults.common import no_capacity
from tests.local.aws.harness import Cloud, available, instance, launch, refused, running, state, until


def spot(**options: Any) -> dict[str, Any]:
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}}


def test_a_spot_instance_says_so_and_has_a_request(ec2: Any) -> None:
    made = running(ec2, **spot(MaxPrice="0.05", SpotInstanceType="one-time"))
    found = instance(ec2, made)
    assert found["InstanceLifecycle"] == "spot"
    [request] = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert request["SpotInstanceRequestId"] == found["SpotInstanceRequestId"]
    assert (request["InstanceId"], request["State"], request["Type"]) == (made, "active", "one-time")
    by_filter = ec2.describe_instances(Filters=[{"Name": "instance-lifecycle", "Values": ["spot"]}])
    assert by_filter["Reservations"]
    ec2.terminate_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "terminated")
    assert ec2.describe_spot_instance_requests()["SpotInstanceRequests"][0]["State"] == "closed"


def test_an_instance_on_demand_has_no_lifecycle(ec2: Any) -> None:
    assert "InstanceLifecycle" not in instance(ec2, launch(ec2))
    assert ec2.describe_spot_instance_requests()["SpotInstanceRequests"] == []


def test_only_instances_of_persistent_requests_can_be_stopped(ec2: Any) -> None:
    once = running(ec2, **spot())
    with refused("UnsupportedOperation"):
        ec2.stop_instances(InstanceIds=[once])
    assert state(ec2, once) == "running"
    again = running(ec2, **spot(SpotInstanceType="persistent", InstanceInterruptionBehavior="stop"))
    ec2.stop_instances(InstanceIds=[again])
    until(lambda: state(ec2, again) == "stopped")


def test_an_image_is_made_of_a_spot_instance(ec2: Any) -> None:
    made = running(ec2, **spot())
    available(ec2, ec2.create_image(InstanceId=made, Name="web-1")["ImageId"])
    assert state(ec2, made) == "running"


def test_a_cancelled_request_leaves_its_instance(ec2: Any) -> None:
    made = running(ec2, **spot())
    request = instance(ec2, made)["SpotInstanceRequestId"]
    answer = ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])
    assert answer["CancelledSpotInstanceRequests"] == [{"SpotInstanceRequestId": request, "State": "cancelled"}]
    assert state(ec2, made) == "running"
    with refused("InvalidSpotInstanceRequestID.NotFound"):
        ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=["sir-00000000"])


@pytest.mark.parametrize(
    ("code", "options"),
    [
        pytest.param("SpotMaxPriceTooLow", {"MaxPrice": "0.0001"}, id="a price too low"),
        pytest.param("InvalidParameterValue", {"MaxPrice": "cheap"}, id="a price that is none"),
        pytest.param("InvalidParameterValue", {"MaxPrice": "-1"}, id="a price below zero"),
        pytest.param("InvalidParameterValue", {"SpotInstanceType": "twice"}, id="a type that is none"),
        pytest.param(
            "InvalidParameterCombination", {"InstanceInterruptionBehavior": "stop"}, id="a one-time one to be stopped"
        ),
    ],
)
def test_ec2_refuses_of_spot(ec2: Any, code: str, options: dict[str, str]) -> None:
    with refused(code):
        launch(ec2, **spot(**options))


def test_the_spot_market_alone_can_lack_capacity(cloud: Cloud, ec2: Any) -> None:
    for fault in no_capacity("t3.small", market="spot"):
        cloud.gateway.backend.faults.add(fault)
    with refused("InsufficientInstanceCapacity"):
        launch(ec2, **spot())
    launch(ec2)


def test_a_subnet_alone_can_lack_capacity(cloud: Cloud, ec2: Any) -> None:
    first, second = (one["SubnetId"] for one in ec2.describe_subnets()["Subnets"][:2])
    cloud.admin(
        "POST",
        "faults",
        {
            "effect": "refuse",
            "action": "RunInstances",
            "where": {"SubnetId": first},
            "code": "InsufficientInstanceCapacity",
            "status": 500,
        },
    )
    with refused("InsufficientInstanceCapacity"):
        launch(ec2, SubnetId=first)
    with refused("InsufficientInstanceCapacity"):
        launch(ec2, NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": first}])
    launch(ec2, SubnetId=second)
    launch(ec2)
