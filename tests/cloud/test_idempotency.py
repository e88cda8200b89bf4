"""Creates that EC2 has no client token for, when their answer is lost; and those that have one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from botocore.stub import Stubber

from imagepipe.cloud import tags
from imagepipe.cloud.idempotency import IdempotentCreate
from imagepipe.cloud.images import Images
from imagepipe.cloud.instances import LaunchRequest
from imagepipe.cloud.rate_limit import RetryBudget
from imagepipe.cloud.registration import Registration
from imagepipe.cloud.tags import ImageRequest
from imagepipe.communicator import keys
from imagepipe.errors import CloudError
from tests import bundled
from tests.account import Account
from tests.local.aws import harness

TAGS = {"imagepipe:token": "t1", "imagepipe:run": "r1"}
WEB = ImageRequest("web", "d", "t1", TAGS)
REGISTRATION = Registration("x86_64", "hvm", "/dev/xvda", True, "simple", None, None, None, "v2.0")


def _snapshot(account: Account) -> str:
    ec2 = account.cloud.client()
    return harness.snapshot_of(ec2, harness.stopped(ec2))


@pytest.mark.parametrize("effect", ["cut-before", "cut-after"])
def test_a_key_pair_is_imported_once_though_the_answer_is_lost(account: Account, effect: str) -> None:
    account.fault(effect, "ImportKeyPair")
    id = account.ec2.keys.import_public("k", keys.generate("x").public, token="t1", tags=TAGS)
    pairs = account.cloud.client().describe_key_pairs()["KeyPairs"]
    assert [pair["KeyPairId"] for pair in pairs] == [id]


@pytest.mark.parametrize("effect", ["cut-before", "cut-after"])
def test_a_security_group_is_made_once_though_the_answer_is_lost(account: Account, effect: str) -> None:
    account.fault(effect, "CreateSecurityGroup")
    vpc = account.ec2.subnets.default_vpc() or ""
    id = account.ec2.groups.create("g", vpc=vpc, description="d", token="t1", tags=TAGS)
    assert account.ec2.groups.of_token("t1") == [id]


@pytest.mark.parametrize("effect", ["cut-before", "cut-after"])
def test_an_image_is_registered_once_though_the_answer_is_lost(account: Account, effect: str) -> None:
    mappings = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": _snapshot(account)}}]
    account.fault(effect, "RegisterImage")
    id = account.ec2.images.register(WEB, REGISTRATION, mappings)
    assert [image.id for image in account.ec2.images.own_named("web")] == [id]


@pytest.mark.parametrize("effect", ["cut-before", "cut-after"])
def test_snapshots_are_made_once_though_the_answer_is_lost(account: Account, effect: str) -> None:
    instance = harness.stopped(account.cloud.client())
    account.fault(effect, "CreateSnapshots")
    made = account.ec2.snapshots.create(instance, description="d", token="t1", tags=TAGS)
    assert [snapshot.device for snapshot in made] == ["/dev/xvda"]
    assert account.ec2.snapshots.of_token("t1") == [made[0].id]


def test_an_instance_is_launched_once_though_the_answer_is_lost(account: Account) -> None:
    ec2 = account.cloud.client()
    key = ec2.create_key_pair(KeyName="k")["KeyName"]
    image = harness.base_image(ec2)
    request = LaunchRequest(image, "t3.small", None, (), key, b"", ())
    account.fault("cut-after", "RunInstances")
    launched = account.ec2.instances.launch(request, client_token="t1", instance_tags=TAGS, volume_tags=TAGS)
    assert account.ec2.instances.of_token("t1") == [launched["InstanceId"]]


def test_a_name_that_somebody_else_has_taken_is_not_adopted(account: Account) -> None:
    mappings = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": _snapshot(account)}}]
    account.ec2.images.register(replace(WEB, token="t0", tags={"imagepipe:token": "t0"}), REGISTRATION, mappings)
    with pytest.raises(CloudError) as failed:
        account.ec2.images.register(WEB, REGISTRATION, mappings)
    assert failed.value.code == "InvalidAMIName.Duplicate"
    assert failed.value.hint is not None
    assert "build.timestamp" in failed.value.hint


def test_throttling_is_waited_out(account: Account) -> None:
    account.fault("refuse", "ImportKeyPair", code="RequestLimitExceeded", status=503)
    assert account.ec2.keys.import_public("k", keys.generate("x").public, token="t1", tags=TAGS)


def test_register_image_is_told_all_that_the_machine_has(account: Account) -> None:
    mappings = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": _snapshot(account), "DeleteOnTermination": True}}]
    id = account.ec2.images.register(WEB, REGISTRATION, mappings)
    account.ec2.await_image(id, deadline=account.deadline(), cancel=account.cancel)
    source = account.ec2.images.by_id(id)
    assert source.architecture == "x86_64"
    assert source.virtualization_type == "hvm"
    assert source.root_device_name == "/dev/xvda"
    assert source.ena_support is True
    assert source.sriov_net_support == "simple"
    assert source.imds_support == "v2.0"


@pytest.mark.parametrize("effect", ["cut-before", "cut-after"])
def test_a_bundle_is_registered_once_though_the_answer_is_lost(account: Account, effect: str) -> None:
    location = bundled.put(account)
    account.fault(effect, "RegisterImage")
    id = account.ec2.images.register_bundle(WEB, REGISTRATION, location, [])
    assert [image.id for image in account.ec2.images.own_registered_from(location)] == [id]


def test_a_bundle_is_registered_with_its_virtualization_and_nothing_of_an_ebs_root(account: Account) -> None:
    mappings: list[dict[str, Any]] = [
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-1"}},
        {"DeviceName": "/dev/sda1", "VirtualName": "ami"},
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
    ]
    uefi = Registration("x86_64", "hvm", "/dev/xvda", True, "simple", "uefi", "v2.0", "blob", "v2.0")
    wanted = {
        "Name": "web",
        "TagSpecifications": [{"ResourceType": "image", "Tags": tags.pairs(TAGS)}],
        "ImageLocation": "bundles/web/image.manifest.xml",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "EnaSupport": True,
        "SriovNetSupport": "simple",
        "ImdsSupport": "v2.0",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}],
    }
    plain = Registration("i386", "paravirtual", "", None, None, None, None, None, None)
    least = {key: wanted[key] for key in ("Name", "TagSpecifications", "ImageLocation")}
    with Stubber(account.ec2.images._creates.client) as stub:  # its model checks what is sent
        stub.add_response("register_image", {"ImageId": "ami-1"}, wanted)
        stub.add_response(
            "register_image",
            {"ImageId": "ami-2"},
            {**least, "Description": "d", "Architecture": "i386", "VirtualizationType": "paravirtual"},
        )
        for description, registration, some in (("", uefi, mappings), ("d", plain, [])):
            new = replace(WEB, description=description)
            account.ec2.images.register_bundle(new, registration, "bundles/web/image.manifest.xml", some)
        stub.assert_no_pending_responses()


def test_images_are_found_by_a_manifest_whose_name_has_what_filters_give_a_meaning(account: Account) -> None:
    one, other = (bundled.put(account, folder) for folder in ("web*/t1", "webX/t1"))
    first, second = bundled.registered(account, one, "one"), bundled.registered(account, other, "other")
    assert [image.id for image in account.ec2.images.own_registered_from(one)] == [first.id]
    assert [image.bundle for image in account.ec2.images.own_named("other")] == [second.bundle]


def _hide(account: Account, action: str) -> None:
    account.fault("hide", action, seconds=1.0)


def test_what_was_made_and_is_not_shown_yet_is_looked_for_again_where_the_answer_is_lost(account: Account) -> None:
    """Or it would be made twice, and one of them leak."""
    account.fault("cut-after", "CreateSnapshots")
    _hide(account, "CreateSnapshots")
    ec2 = account.cloud.client()
    instance = harness.stopped(ec2)
    [made] = account.ec2.snapshots.create(instance, description="d", token="t1", tags=TAGS)
    assert account.ec2.snapshots.of_token("t1") == [made.id]


def test_a_name_that_our_own_image_took_is_ours_though_it_is_not_shown_yet(account: Account) -> None:
    mappings = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": _snapshot(account)}}]
    account.fault("cut-after", "RegisterImage")
    _hide(account, "RegisterImage")
    id = account.ec2.images.register(WEB, REGISTRATION, mappings)
    assert [image.id for image in account.ec2.images.own_named("web")] == [id]


def test_a_group_that_is_not_known_yet_is_opened_and_launched_into_once_it_is(account: Account) -> None:
    _hide(account, "CreateSecurityGroup")
    vpc = account.ec2.subnets.default_vpc() or ""
    group = account.ec2.groups.create("g", vpc=vpc, description="d", token="t1", tags=TAGS)
    account.ec2.groups.allow_ssh_from(group, port=22, cidrs=["127.0.0.1/32"])
    _hide(account, "ImportKeyPair")
    account.ec2.keys.import_public("k", keys.generate("x").public, token="t2", tags=TAGS)
    request = LaunchRequest(
        image=harness.base_image(account.cloud.client()),
        instance_type="t3.small",
        subnet=None,
        security_groups=(group,),
        key_pair="k",
        user_data=b"",
        mappings=(),
    )
    assert account.ec2.instances.launch(request, client_token="c1", instance_tags=TAGS, volume_tags=TAGS)["InstanceId"]


def test_an_image_of_a_snapshot_that_is_not_known_yet_is_registered_and_tagged_once_it_is(account: Account) -> None:
    snapshot = _snapshot(account)
    account.cloud.gateway.backend.faults.hidden.hide({"SnapshotId": snapshot}, seconds=1.0, calls=None)
    mappings = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}]
    _hide(account, "RegisterImage")
    id = account.ec2.images.register(WEB, REGISTRATION, mappings)
    account.ec2.images.tag([id], {"colour": "red"})
    [image] = account.ec2.images.own_named("web")
    assert image.tags["colour"] == "red"


def test_what_is_hidden_after_an_error_of_the_service_is_not_made_twice(account: Account) -> None:
    """EC2 may have made it all the same."""
    made: list[str] = []
    looks = iter([None, None, "i-1"])

    def create() -> str:
        made.append("i-1")
        raise CloudError("making it: An internal error has occurred", code="InternalError")

    creates = IdempotentCreate(None, account.clock, RetryBudget())
    assert creates.once(create, lambda: next(looks)) == "i-1"
    assert made == ["i-1"]


class _Disabled:
    """An EC2 with an image that was disabled: it is shown to who asks for such alone (API reference, DisableImage)."""

    def describe_images(self, *, IncludeDisabled: bool = False, **_: Any) -> dict[str, Any]:  # noqa: N803
        image = {"ImageId": "ami-1", "Name": "web", "State": "disabled", "ImageLocation": "b/f/web.manifest.xml"}
        return {"Images": [image] if IncludeDisabled else []}


def test_an_image_that_is_disabled_has_its_bundle_still(account: Account) -> None:
    images = Images(_Disabled(), account.ec2.images._creates, "us-east-1")
    assert [image.id for image in images.own_registered_from("b/f/web.manifest.xml")] == ["ami-1"]
