"""Faults on demand."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from imagepipe.local.aws.faults.catalogue import fault_of
from imagepipe.local.aws.faults.faults import Fault, Faults
from imagepipe.local.aws.protocol.errors import AwsError
from tests.local.aws.faults.common import no_capacity, throttled
from tests.local.aws.harness import Cloud, base_image, image, launch, refused, register, snapshot_of, stopped, until


@pytest.fixture
def faults(cloud: Cloud) -> Faults:
    return cloud.gateway.backend.faults


def test_a_type_without_capacity_is_refused_and_others_are_not(ec2: Any, faults: Faults) -> None:
    for fault in no_capacity("t3.small"):
        faults.add(fault)
    with refused("InsufficientInstanceCapacity"):
        launch(ec2, InstanceType="t3.small")
    launch(ec2, InstanceType="t3a.small")


def test_throttling_ends_after_so_many_calls_and_clients_get_over_it(cloud: Cloud, ec2: Any, faults: Faults) -> None:
    faults.add(throttled("Describe*", times=1))
    with refused("RequestLimitExceeded"):
        ec2.describe_images(Owners=["self"])
    ec2.describe_images(Owners=["self"])
    faults.add(throttled(times=1))
    cloud.client(retries=2).describe_images(Owners=["self"])


def test_a_connection_cut_before_the_effect_changes_nothing(ec2: Any, faults: Faults) -> None:
    image_id = base_image(ec2)
    faults.add(Fault(effect="cut-before", action="RunInstances", times=1))
    with pytest.raises(ConnectionClosedError):
        launch(ec2, ImageId=image_id)
    assert ec2.describe_instances()["Reservations"] == []


def test_a_connection_cut_after_the_effect_loses_the_answer_alone(cloud: Cloud, ec2: Any, faults: Faults) -> None:
    image_id = base_image(ec2)
    faults.add(Fault(effect="cut-after", action="RunInstances", times=1))
    with pytest.raises(ConnectionClosedError):
        launch(ec2, ImageId=image_id, ClientToken="once")
    [reservation] = ec2.describe_instances()["Reservations"]
    assert launch(ec2, ImageId=image_id, ClientToken="once") == reservation["Instances"][0]["InstanceId"]
    faults.add(Fault(effect="cut-after", action="RunInstances", times=1))
    answer = cloud.client(retries=2).run_instances(ImageId=image_id, InstanceType="t3.small", MinCount=1, MaxCount=1)
    assert len(answer["Instances"]) == 1, "the client's own token made it once"
    assert len(ec2.describe_instances()["Reservations"]) == 2


@pytest.mark.parametrize("effect", ["delay", "delay-after"])
def test_an_action_can_be_slow_while_others_are_not(ec2: Any, cloud: Cloud, faults: Faults, effect: Any) -> None:
    faults.add(Fault(effect=effect, action="CreateSecurityGroup", seconds=1.0, times=1))
    begun = time.monotonic()
    slow = threading.Thread(target=lambda: cloud.client().create_security_group(GroupName="web", Description="web"))
    slow.start()
    ec2.describe_images(Owners=["self"])
    assert slow.is_alive()
    slow.join()
    assert time.monotonic() - begun >= 1.0
    assert len(ec2.describe_security_groups()["SecurityGroups"]) == 2


def test_an_image_goes_to_failed_with_the_reason(ec2: Any, faults: Faults) -> None:
    snapshot_id = snapshot_of(ec2, stopped(ec2))
    faults.add(Fault(effect="fail", action="RegisterImage", message="the moon is full", times=1))
    failed = register(ec2, snapshot_id, "web-1")
    until(lambda: image(ec2, failed)["State"] == "failed")
    assert image(ec2, failed)["StateReason"]["Message"] == "the moon is full"
    with refused("InvalidAMIID.Unavailable"):
        launch(ec2, ImageId=failed)
    register(ec2, snapshot_id, "web-1")  # a failed image holds no name


def test_a_fault_that_cannot_be_is_refused() -> None:
    with pytest.raises(AwsError, match="unknown field 'colour'"):
        fault_of({"effect": "delay", "seconds": 1, "colour": "red"})
    with pytest.raises(AwsError, match="explode"):
        fault_of({"effect": "explode"})
