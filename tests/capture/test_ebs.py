from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from imagepipe.capture.ebs import CaptureEbs
from imagepipe.capture.stop import Stop, TerminateInstance
from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.journal import Lifetime
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.values import Image, ImageText, Instance, Sealed, Stopped
from tests.account import Account
from tests.local.aws import harness


def _instance(id: str) -> Instance:
    return Instance(id, "us-east-1", "t3.small", "/dev/xvda", None)


def _capture(account: Account, instance: str, **changes: Any) -> Image:
    ec2 = account.cloud.client()
    source = account.ec2.images.by_id(harness.base_image(ec2))
    values: dict[str, Any] = {
        "boot_mode": None,
        "imds_v2": True,
        **changes,
    }
    stage = CaptureEbs(account.ec2, RunTags("r1", "web"), Ref("machine"), Ref("source"), Ref("text"), **values)
    text = ImageText("web-1", f"from {source.name}", {"team": "web", "where": "us-east-1"})
    outputs = {"machine": Stopped(_instance(instance)), "source": source, "text": {"us-east-1": text}}
    return stage.run(account.context(**outputs))


def test_the_image_has_what_the_machine_had_and_what_the_spec_says(account: Account) -> None:
    ec2 = account.cloud.client()
    image = _capture(account, harness.stopped(ec2))
    described = harness.image(ec2, image.id)
    assert described["State"] == "available"
    assert described["Name"] == "web-1"
    assert described["Description"] == "from debian-12-amd64-20261123-local"
    assert described["EnaSupport"] is True
    assert described["ImdsSupport"] == "v2.0"
    assert described["RootDeviceName"] == "/dev/xvda"
    source = harness.image(ec2, harness.base_image(ec2))
    for key in ("Architecture", "VirtualizationType", "BootMode", "SriovNetSupport"):
        assert described.get(key) == source.get(key)
    found = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
    assert (found["team"], found["where"], found["imagepipe:state"]) == ("web", "us-east-1", "unfinished")


def test_all_volumes_are_captured_and_mapped_the_root_first(account: Account) -> None:
    ec2 = account.cloud.client()
    more = [{"DeviceName": device, "Ebs": {"VolumeSize": 1}} for device in ("/dev/sdf", "/dev/sdb")]
    image = _capture(account, harness.stopped(ec2, BlockDeviceMappings=more))
    mappings = harness.image(ec2, image.id)["BlockDeviceMappings"]
    assert [m["DeviceName"] for m in mappings] == ["/dev/xvda", "/dev/sdb", "/dev/sdf"]
    assert {m["Ebs"]["SnapshotId"] for m in mappings} == set(image.snapshots)


def test_snapshots_are_claimed_before_their_image_so_that_undo_finds_them_free(account: Account) -> None:
    image = _capture(account, harness.stopped(account.cloud.client()))
    kinds = [(claim.kind, claim.lifetime) for claim in account.journal.claims()]
    assert kinds == [("snapshots", Lifetime.PRODUCT), ("image", Lifetime.PRODUCT)]
    for claim in reversed(account.journal.claims()):
        account.holdings.undoers()[claim.kind](claim)
    assert account.ec2.images.own_named(image.name) == []
    assert account.ec2.snapshots.describe_many(list(image.snapshots)) == {}


def test_an_image_that_goes_to_failed_says_why(account: Account) -> None:
    instance = harness.stopped(account.cloud.client())
    account.fault("fail", "RegisterImage", message="the disk is bad")
    with pytest.raises(CloudError, match="is in state failed"):
        _capture(account, instance)


def test_a_machine_that_was_terminated_meanwhile_is_no_stopped_one(account: Account) -> None:
    ec2 = account.cloud.client()
    instance = harness.running(ec2)
    ec2.terminate_instances(InstanceIds=[instance])
    with pytest.raises(CloudError):
        Stop(account.ec2, Ref("machine")).run(account.context(machine=Sealed(_instance(instance))))


def test_the_instance_is_cleaned_up_and_its_claim_released(account: Account) -> None:
    instance = harness.stopped(account.cloud.client())
    claim = account.journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
    account.journal.bind(claim, instance)
    outputs = {"instance": _instance(instance), "image": Image("ami-1", "us-east-1", "x", ())}
    TerminateInstance(account.ec2, Ref("instance"), Ref("image")).run(account.context(**outputs))
    assert harness.state(account.cloud.client(), instance) == "terminated"
    assert not any(claim.is_open() for claim in account.journal.claims())


def test_a_volume_stays_or_goes_with_its_instance_as_the_source_or_the_spec_says(account: Account) -> None:
    ec2 = account.cloud.client()
    more = [{"DeviceName": device, "Ebs": {"VolumeSize": 1}} for device in ("/dev/sdb", "/dev/sdc")]
    image = _capture(account, harness.stopped(ec2, BlockDeviceMappings=more), delete_on_termination={"/dev/sdc": False})
    mappings = harness.image(ec2, image.id)["BlockDeviceMappings"]
    found = {m["DeviceName"]: m["Ebs"]["DeleteOnTermination"] for m in mappings}
    assert found == {"/dev/xvda": True, "/dev/sdb": True, "/dev/sdc": False}


def test_an_instance_that_cannot_be_cleaned_up_yet_does_not_cost_the_image(account: Account) -> None:
    instance = harness.stopped(account.cloud.client())
    claim = account.journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
    account.journal.bind(claim, instance)
    account.fault("refuse", "TerminateInstances", code="UnauthorizedOperation", status=403, times=1)
    outputs = {"instance": _instance(instance), "image": Image("ami-1", "us-east-1", "x", ())}
    TerminateInstance(account.ec2, Ref("instance"), Ref("image")).run(account.context(**outputs))
    assert any(claim.is_open() for claim in account.journal.claims()), "the end of the run tries again"
    account.holdings.instance(account.journal.claims()[0])
    assert harness.state(account.cloud.client(), instance) == "terminated"


def _described(account: Account, image: Image) -> dict[str, dict[str, Any]]:
    mappings = harness.image(account.cloud.client(), image.id)["BlockDeviceMappings"]
    return {mapping["DeviceName"]: mapping.get("Ebs") or {"name": mapping.get("VirtualName")} for mapping in mappings}


def test_what_the_spec_says_of_a_device_goes_over_what_was_captured(account: Account) -> None:
    more = [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}, {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 1}}]
    wanted = (
        DeviceWanted("/dev/xvda", size_gib=9, type="io2", iops=200, tags={"holds": "root"}),
        DeviceWanted("/dev/sdf", no_device=True),
        DeviceWanted("/dev/sdg", delete_on_termination=False),
        DeviceWanted("/dev/sdh", size_gib=5, type="gp3", throughput=200),
        DeviceWanted("/dev/sdi", virtual_name="ephemeral0"),
    )
    image = _capture(account, harness.stopped(account.cloud.client(), BlockDeviceMappings=more), devices=wanted)
    found = _described(account, image)
    assert next(iter(found)) == "/dev/xvda", "the root first"
    assert set(found) == {"/dev/xvda", "/dev/sdg", "/dev/sdh", "/dev/sdi"}
    assert {key: found["/dev/xvda"][key] for key in ("VolumeSize", "VolumeType", "Iops")} == {
        "VolumeSize": 9,
        "VolumeType": "io2",
        "Iops": 200,
    }
    assert found["/dev/sdg"]["DeleteOnTermination"] is False
    assert (found["/dev/sdh"]["VolumeSize"], "SnapshotId" in found["/dev/sdh"]) == (5, False)
    assert found["/dev/sdi"] == {"name": "ephemeral0"}
    assert len(image.snapshots) == 2, "no snapshot of what is left out"
    [root] = account.cloud.client().describe_snapshots(SnapshotIds=[found["/dev/xvda"]["SnapshotId"]])["Snapshots"]
    assert {"Key": "holds", "Value": "root"} in root["Tags"]


def test_the_root_cannot_be_left_out(account: Account) -> None:
    with pytest.raises(CloudError, match="/dev/xvda is the root device and cannot be left out"):
        _capture(account, harness.stopped(account.cloud.client()), devices=(DeviceWanted("/dev/xvda", no_device=True),))
    assert account.journal.claims() == ()


def test_instance_store_mappings_of_the_launch_are_the_images_too(account: Account) -> None:
    names = {"/dev/sdb": "ephemeral0", "/dev/sdc": None}
    image = _capture(account, harness.stopped(account.cloud.client()), virtual_names=names)
    assert _described(account, image)["/dev/sdb"] == {"name": "ephemeral0"}


def test_a_volume_that_the_spec_adds_to_an_image_of_create_image_has_no_snapshot(account: Account) -> None:
    ec2 = account.cloud.client()
    sold = replace(account.ec2.images.by_id(harness.base_image(ec2)), product_codes=("abc123",))
    stage = CaptureEbs(
        account.ec2,
        RunTags("r1", "web"),
        Ref("machine"),
        Ref("source"),
        Ref("text"),
        boot_mode=None,
        imds_v2=True,
        devices=(DeviceWanted("/dev/sdf", size_gib=2, tags={"holds": "data"}),),
    )
    text = {"us-east-1": ImageText("web-1", "d", {})}
    outputs = {"machine": Stopped(_instance(harness.stopped(ec2))), "source": sold, "text": text}
    image = stage.run(account.context(**outputs))
    assert _described(account, image)["/dev/sdf"]["VolumeSize"] == 2
    assert len(image.snapshots) == 1, "that of the root"


def test_create_image_is_taken_where_register_image_would_lose_the_billing_and_it_is_said(account: Account) -> None:
    ec2 = account.cloud.client()
    instance = harness.stopped(ec2, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}])
    source = account.ec2.images.by_id(harness.base_image(ec2))
    sold = replace(source, product_codes=("abc123",))
    stage = CaptureEbs(
        account.ec2,
        RunTags("r1", "web"),
        Ref("machine"),
        Ref("source"),
        Ref("text"),
        boot_mode=None,
        imds_v2=True,
        devices=(DeviceWanted("/dev/sdf", size_gib=2, tags={"holds": "data"}),),
    )
    text = {"us-east-1": ImageText("web-1", "d", {"team": "web"})}
    outputs = {"machine": Stopped(_instance(instance)), "source": sold, "text": text}
    image = stage.run(account.context(**outputs))
    assert any(
        "using CreateImage, because RegisterImage cannot keep product code abc123" in getattr(event, "text", "")
        for event in account.seen
    )
    described = harness.image(ec2, image.id)
    assert (described["State"], described["ImdsSupport"]) == ("available", "v2.0")
    assert _described(account, image)["/dev/sdf"]["VolumeSize"] == 2
    assert len(image.snapshots) == 2
    kinds = [(claim.kind, claim.lifetime, claim.id is not None) for claim in account.journal.claims()]
    assert kinds == [("snapshots", Lifetime.PRODUCT, True), ("image", Lifetime.PRODUCT, True)]
    for claim in reversed(account.journal.claims()):
        account.holdings.undoers()[claim.kind](claim)
    assert account.ec2.snapshots.describe_many(list(image.snapshots)) == {}
