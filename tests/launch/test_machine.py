from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.journal import State
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.launch.access import Key, MakeGroup, MakeKey, Network
from imagepipe.launch.machine import Launch
from tests.account import Account
from tests.local.aws import harness

RUN_TAGS = RunTags("r1", "web")


def _launch(account: Account, **changes: Any) -> Launch:
    values: dict[str, Any] = {
        "ec2": account.ec2,
        "run_tags": RUN_TAGS,
        "source": Ref("source"),
        "key": Ref("key"),
        "network": Ref("network"),
        "after": (),
        "instance_types": ("t3.small",),
        "devices": (),
        "encrypt_root": False,
        "kms_key": None,
        "instance_profile": None,
        "sends_host_key": True,
        "user_data": None,
        "public_address": True,
        **changes,
    }
    return Launch(**values)


def _run(account: Account, **changes: Any) -> dict[str, Any]:
    """What EC2 says of what was launched."""
    ec2 = account.cloud.client()
    ec2.create_key_pair(KeyName="k")
    source = account.ec2.images.by_id(harness.base_image(ec2))
    outputs = {"source": source, "key": Key("k", "/k"), "network": Network((), (None,))}
    instance = _launch(account, **changes).run(account.context(**outputs))
    return dict(harness.instance(ec2, instance.id))


def test_an_instance_needs_imdsv2_and_carries_our_tags_from_its_create_call(account: Account) -> None:
    described = _run(account, tags={"team": "web"})
    assert described["MetadataOptions"]["HttpTokens"] == "required"
    found = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
    assert found["imagepipe:run"] == "r1"
    assert found["imagepipe:state"] == "temporary"
    assert found["team"] == "web"
    [claim] = account.journal.claims()
    assert (claim.state, claim.id, found["imagepipe:token"]) == (State.BOUND, described["InstanceId"], claim.token)


def test_the_root_is_encrypted_at_launch_so_that_no_second_copy_is_needed(account: Account) -> None:
    described = _run(account, encrypt_root=True)
    volume = described["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert account.cloud.client().describe_volumes(VolumeIds=[volume])["Volumes"][0]["Encrypted"] is True


def test_a_device_is_as_the_spec_wants_it(account: Account) -> None:
    device = DeviceWanted("/dev/xvda", size_gib=7, type="gp3", iops=3500)
    described = _run(account, devices=(device,))
    volume = described["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    found = account.cloud.client().describe_volumes(VolumeIds=[volume])["Volumes"][0]
    assert (found["Size"], found["VolumeType"], found["Iops"]) == (7, "gp3", 3500)


def test_every_type_that_was_tried_is_named_when_none_has_capacity(account: Account) -> None:
    account.fault("refuse", "RunInstances", code="InsufficientInstanceCapacity", status=500, times=20)
    with pytest.raises(CloudError, match=r"no capacity: t3\.small: Insuff.*; t3a\.small: Insuff") as failed:
        _run(account, instance_types=("t3.small", "t3a.small"))
    assert failed.value.code == "InsufficientInstanceCapacity"
    assert [claim.state for claim in account.journal.claims()] == [State.RELEASED]
    assert not list(account.folder.glob("**/host_ed25519*"))


def test_the_host_key_is_claimed_before_it_is_written(account: Account) -> None:
    path = account.context().own_file("host_ed25519")
    path.mkdir()
    with pytest.raises(OSError, match="host_ed25519"):
        _run(account)
    [claim] = account.journal.claims()
    assert (claim.state, claim.details["private_key"]) == (State.INTENDED, str(path))


def test_the_private_host_key_goes_by_user_data_and_into_no_value(account: Account) -> None:
    described = _run(account)
    data = account.cloud.client().describe_instance_attribute(InstanceId=described["InstanceId"], Attribute="userData")[
        "UserData"
    ]["Value"]
    import base64

    assert b"OPENSSH PRIVATE KEY" in base64.b64decode(data)
    journal = (account.folder / "r1" / "journal.jsonl").read_text()
    assert "PRIVATE KEY" not in journal + repr(account.seen)


def test_the_group_lets_in_the_caller_alone(account: Account) -> None:
    network = MakeGroup(account.ec2, RUN_TAGS, (), 2222, ("caller",)).run(account.context())
    [group] = account.cloud.client().describe_security_groups(GroupIds=list(network.security_groups))["SecurityGroups"]
    [rule] = group["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], rule["IpRanges"][0]["CidrIp"]) == (2222, 2222, "127.0.0.1/32")


def test_the_key_pairs_private_half_stays_here_for_us_alone(account: Account) -> None:
    key = MakeKey(account.ec2, RUN_TAGS).run(account.context())
    path = Path(key.private_key)
    assert path.stat().st_mode & 0o777 == 0o600
    [pair] = account.cloud.client().describe_key_pairs(KeyNames=[key.name])["KeyPairs"]
    assert pair["KeyType"] == "ed25519"
    [claim] = account.journal.claims()
    account.holdings.key_pair(claim)
    assert not path.exists()


def test_no_volume_of_the_source_image_outlives_the_instance(account: Account) -> None:
    ec2 = account.cloud.client()
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    mappings = [
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}},
        {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": snapshot, "DeleteOnTermination": False}},
    ]
    image = harness.available(ec2, harness.register(ec2, snapshot, "two-disks", BlockDeviceMappings=mappings))
    ec2.create_key_pair(KeyName="k")
    outputs = {
        "source": account.ec2.images.by_id(image),
        "key": Key("k", "/k"),
        "network": Network((), (None,)),
    }
    instance = _launch(account, encrypt_root=True).run(account.context(**outputs))
    found = harness.instance(ec2, instance.id)["BlockDeviceMappings"]
    assert {m["DeviceName"]: m["Ebs"]["DeleteOnTermination"] for m in found} == {"/dev/xvda": True, "/dev/sdf": True}
    volumes = ec2.describe_volumes(VolumeIds=[m["Ebs"]["VolumeId"] for m in found])["Volumes"]
    assert all(volume["Encrypted"] for volume in volumes), "encrypt means all of them"
