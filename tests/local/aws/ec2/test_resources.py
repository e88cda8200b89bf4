"""Launches, volumes, keys, groups and tags: that what was asked for is what comes about."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagepipe.local.machines.driver import Ingress
from tests.local.aws.harness import (
    Cloud,
    instance,
    launch,
    refused,
    root_volume,
    running,
    state,
    stopped,
    until,
)


def tcp(port: int, cidr: str = "127.0.0.1/32") -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": cidr}]}


# launches


def test_the_machine_gets_the_callers_user_data_and_the_public_key(cloud: Cloud, ec2: Any) -> None:
    made = ec2.create_key_pair(KeyName="key", KeyType="ed25519")
    assert made["KeyMaterial"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    machine = cloud.driver.machines[running(ec2, KeyName="key", UserData=b"\x1f\x8b\0gzip")]
    assert machine.seed.user_data == b"\x1f\x8b\0gzip"
    [line] = machine.seed.public_keys
    assert line.startswith("ssh-ed25519 ")
    assert (machine.seed.region, machine.seed.instance_id) == ("us-east-1", machine.id)


def test_the_key_of_a_deleted_pair_still_opens_a_restarted_instance(cloud: Cloud, ec2: Any) -> None:
    ec2.create_key_pair(KeyName="key", KeyType="ed25519")
    made = running(ec2, KeyName="key")
    keys = cloud.driver.machines[made].seed.public_keys
    ec2.delete_key_pair(KeyName="key")
    ec2.stop_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "stopped")
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "running")
    assert cloud.driver.machines[made].seed.public_keys == keys != ()


def test_tags_go_to_the_instance_and_its_volumes(ec2: Any) -> None:
    def tags(name: str) -> list[dict[str, str]]:
        return [{"Key": "Name", "Value": name}]

    made = running(
        ec2,
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": tags("machine")},
            {"ResourceType": "volume", "Tags": tags("disk")},
        ],
    )
    assert instance(ec2, made)["Tags"] == tags("machine")
    [volume] = ec2.describe_volumes(VolumeIds=[root_volume(ec2, made)])["Volumes"]
    assert volume["Tags"] == tags("disk")
    by_tag = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["mach*"]}])
    assert len(by_tag["Reservations"]) == 1


def test_the_network_interface_form_of_a_launch_is_understood(cloud: Cloud, ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    subnet = ec2.describe_subnets()["Subnets"][2]
    made = running(
        ec2,
        NetworkInterfaces=[
            {
                "DeviceIndex": 0,
                "SubnetId": subnet["SubnetId"],
                "Groups": [group],
                "AssociatePublicIpAddress": False,
            }
        ],
    )
    found = instance(ec2, made)
    assert (found["SubnetId"], found["Placement"]["AvailabilityZone"]) == (
        subnet["SubnetId"],
        subnet["AvailabilityZone"],
    )
    assert [one["GroupId"] for one in found["SecurityGroups"]] == [group]
    assert "PublicIpAddress" not in found
    assert found["PrivateIpAddress"] == cloud.driver.machines[made].address


def test_an_instance_in_a_created_network_is_reached_by_its_public_address(cloud: Cloud, ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.7.0/24", AvailabilityZone="us-east-1a")["Subnet"]["SubnetId"]
    made = running(ec2, NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet, "AssociatePublicIpAddress": True}])
    found = instance(ec2, made)
    assert found["PrivateIpAddress"] == "10.0.7.4"
    assert found["PublicIpAddress"] == cloud.driver.machines[made].address
    assert found["PublicIpAddress"].startswith("127.42.")


def test_an_empty_profile_or_zone_is_ignored(ec2: Any) -> None:
    """Packer sends it."""
    made = running(ec2, IamInstanceProfile={"Name": ""}, Placement={"AvailabilityZone": ""})
    assert "IamInstanceProfile" not in instance(ec2, made)


def test_a_known_profile_is_the_instances(cloud: Cloud, ec2: Any) -> None:
    cloud.client("iam").create_instance_profile(InstanceProfileName="builder")
    found = instance(ec2, running(ec2, IamInstanceProfile={"Name": "builder"}))
    assert found["IamInstanceProfile"]["Arn"].endswith(":instance-profile/builder")


def test_spot_and_metadata_options_are_recorded(ec2: Any) -> None:
    found = instance(
        ec2,
        running(
            ec2,
            InstanceMarketOptions={"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.02"}},
            MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        ),
    )
    assert found["InstanceLifecycle"] == "spot"
    assert (found["MetadataOptions"]["HttpTokens"], found["MetadataOptions"]["HttpPutResponseHopLimit"]) == (
        "required",
        2,
    )


def test_volumes_that_are_to_stay_stay(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}])
    root, data = (one["Ebs"]["VolumeId"] for one in instance(ec2, made)["BlockDeviceMappings"])
    ec2.modify_instance_attribute(
        InstanceId=made,
        BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": False}}],
    )
    ec2.terminate_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "terminated")
    [left] = ec2.describe_volumes()["Volumes"]
    assert (left["VolumeId"], left["State"]) == (data, "available")
    assert [path.stem for path in (cloud.disks / "volumes").iterdir()] == [data]
    assert root != data


@pytest.mark.parametrize(
    ("attribute", "change", "name", "after"),
    [
        ("disableApiTermination", {"DisableApiTermination": {"Value": True}}, "DisableApiTermination", True),
        (
            "instanceInitiatedShutdownBehavior",
            {"InstanceInitiatedShutdownBehavior": {"Value": "terminate"}},
            "InstanceInitiatedShutdownBehavior",
            "terminate",
        ),
        ("instanceType", {"InstanceType": {"Value": "t3.micro"}}, "InstanceType", "t3.micro"),
        ("enaSupport", {"EnaSupport": {"Value": False}}, "EnaSupport", False),
        ("sourceDestCheck", {"SourceDestCheck": {"Value": False}}, "SourceDestCheck", False),
        ("disableApiStop", {"Attribute": "disableApiStop", "Value": "true"}, "DisableApiStop", True),
    ],
)
def test_attributes_of_a_stopped_instance_can_be_changed(
    ec2: Any, attribute: str, change: dict[str, Any], name: str, after: object
) -> None:
    made = stopped(ec2)
    ec2.modify_instance_attribute(InstanceId=made, **change)
    answer = ec2.describe_instance_attribute(InstanceId=made, Attribute=attribute)
    assert answer[name]["Value"] == after


def test_user_data_can_be_changed_while_stopped(cloud: Cloud, ec2: Any) -> None:
    made = stopped(ec2, UserData="first")
    ec2.modify_instance_attribute(InstanceId=made, UserData={"Value": b"second"})
    answer = ec2.describe_instance_attribute(InstanceId=made, Attribute="userData")
    assert base64.b64decode(answer["UserData"]["Value"]) == b"second"
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "running")
    assert cloud.driver.machines[made].seed.user_data == b"second"


def test_status_is_of_running_instances_unless_all_are_asked_for(ec2: Any) -> None:
    up, down = running(ec2), stopped(ec2)
    [status] = ec2.describe_instance_status()["InstanceStatuses"]
    assert (status["InstanceId"], status["InstanceStatus"]["Status"]) == (up, "ok")
    everything = ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert {one["InstanceId"] for one in everything} == {up, down}


# volumes


def test_a_volume_moves_between_stopped_instances(cloud: Cloud, ec2: Any) -> None:
    first = stopped(ec2)
    zone = instance(ec2, first)["Placement"]["AvailabilityZone"]
    second = stopped(ec2, Placement={"AvailabilityZone": zone})
    volume = root_volume(ec2, first)
    ec2.detach_volume(VolumeId=volume)
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available"
    ec2.attach_volume(VolumeId=volume, InstanceId=second, Device="/dev/sdf")
    ec2.start_instances(InstanceIds=[second])
    until(lambda: state(ec2, second) == "running")
    disks = cloud.driver.machines[second].disks
    assert [disk.device for disk in disks] == ["/dev/xvda", "/dev/sdf"]
    assert disks[1].path.stem == volume
    with refused("IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[first])  # it has no root any more


def test_a_volume_is_made_of_a_snapshot_once_per_token_and_deleted(cloud: Cloud, ec2: Any) -> None:
    [base] = ec2.describe_images(Owners=["136693071363"])["Images"]
    snapshot = base["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    request = {"AvailabilityZone": "us-east-1a", "SnapshotId": snapshot, "Size": 2, "ClientToken": "once"}
    made, again = (ec2.create_volume(**request)["VolumeId"] for _ in range(2))
    assert made == again
    until(lambda: ec2.describe_volumes(VolumeIds=[made])["Volumes"][0]["State"] == "available")
    assert (cloud.disks / "volumes" / f"{made}.raw").stat().st_size == 2 << 30
    ec2.delete_volume(VolumeId=made)
    until(lambda: not ec2.describe_volumes()["Volumes"])
    assert not (cloud.disks / "volumes" / f"{made}.raw").exists()


# key pairs


def test_a_made_rsa_key_is_one_that_ssh_can_use(ec2: Any, tmp_path: Path) -> None:
    made = ec2.create_key_pair(KeyName="key")
    assert made["KeyMaterial"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    path = tmp_path / "key.pem"
    path.touch(mode=0o600)
    path.write_text(made["KeyMaterial"])
    public = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True).stdout
    [pair] = ec2.describe_key_pairs(KeyNames=["key"], IncludePublicKey=True)["KeyPairs"]
    assert pair["PublicKey"].split()[:2] == public.split()[:2]
    assert len(made["KeyFingerprint"].split(":")) == 20


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_key_is_imported_with_the_fingerprint_that_ec2_gives(ec2: Any, kind: str) -> None:
    key: Any = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if kind == "rsa"
        else ed25519.Ed25519PrivateKey.generate()
    )
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    made = ec2.import_key_pair(KeyName="key", PublicKeyMaterial=line + b" a comment")
    [pair] = ec2.describe_key_pairs(KeyPairIds=[made["KeyPairId"]])["KeyPairs"]
    assert (pair["KeyType"], pair["KeyFingerprint"]) == (kind, made["KeyFingerprint"])
    how = ["-E", "md5"] if kind == "rsa" else ["-E", "sha256"]
    shown = subprocess.run(["ssh-keygen", "-l", *how, "-f", "-"], input=line, capture_output=True, check=True).stdout
    if kind == "ed25519":
        assert made["KeyFingerprint"].rstrip("=") in shown.decode()
    else:
        assert len(made["KeyFingerprint"].split(":")) == 16  # of the DER, not of the SSH form that ssh-keygen hashes


def test_a_key_of_a_kind_that_ec2_does_not_take_is_refused(ec2: Any) -> None:
    line = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    with refused("InvalidKey.Format"):
        ec2.import_key_pair(KeyName="key", PublicKeyMaterial=line)


def test_deleting_a_key_that_is_not_there_is_success(ec2: Any) -> None:
    ec2.delete_key_pair(KeyName="nobody's")


# security groups


def test_a_rule_opens_the_ports_of_machines_that_run_before_it_is_answered(cloud: Cloud, ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    made = running(ec2, SecurityGroupIds=[group])
    assert cloud.driver.ingress[made] == ()
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(22), tcp(80, "0.0.0.0/0")])
    ssh, http = Ingress("tcp", 22, 22, "127.0.0.1/32"), Ingress("tcp", 80, 80, "0.0.0.0/0")
    assert set(cloud.driver.ingress[made]) == {ssh, http}
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[tcp(22)])
    assert cloud.driver.ingress[made] == (http,)


def test_a_machine_starts_with_the_rules_of_all_its_groups(cloud: Cloud, ec2: Any) -> None:
    groups = []
    for port in (22, 443):
        group = ec2.create_security_group(GroupName=f"g{port}", Description="x")["GroupId"]
        ec2.authorize_security_group_ingress(
            GroupId=group, IpProtocol="tcp", FromPort=port, ToPort=port, CidrIp="127.0.0.1/32"
        )
        groups.append(group)
    made = running(ec2, SecurityGroupIds=groups)
    assert {one.from_port for one in cloud.driver.ingress[made]} == {22, 443}


def test_a_group_as_source_means_its_members(cloud: Cloud, ec2: Any) -> None:
    client = ec2.create_security_group(GroupName="client", Description="x")["GroupId"]
    server = ec2.create_security_group(GroupName="server", Description="x")["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=server,
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [{"GroupId": client}]}],
    )
    member = running(ec2, SecurityGroupIds=[client])
    made = running(ec2, SecurityGroupIds=[server])
    address = cloud.driver.machines[member].address
    assert cloud.driver.ingress[made] == (Ingress("tcp", 80, 80, f"{address}/32"),)


def test_rules_are_numbered_tagged_and_revoked_by_number(ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    tags = [{"ResourceType": "security-group-rule", "Tags": [{"Key": "run", "Value": "1"}]}]
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(22)], TagSpecifications=tags)
    [rule] = made["SecurityGroupRules"]
    by_group = [{"Name": "group-id", "Values": [group]}]
    listed = ec2.describe_security_group_rules(Filters=by_group)["SecurityGroupRules"]
    assert rule["SecurityGroupRuleId"] in {one["SecurityGroupRuleId"] for one in listed}
    assert [one["Tags"] for one in listed if not one["IsEgress"]] == [[{"Key": "run", "Value": "1"}]]
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
    [found] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert found["IpPermissions"] == []
    assert found["IpPermissionsEgress"][0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    ec2.revoke_security_group_egress(
        GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )
    [found] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert found["IpPermissionsEgress"] == []


def test_a_group_can_be_deleted_once_its_instances_are_terminated(ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    made = running(ec2, SecurityGroupIds=[group])
    ec2.terminate_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "terminated")
    ec2.delete_security_group(GroupId=group)
    assert len(ec2.describe_security_groups()["SecurityGroups"]) == 1


def test_a_new_network_has_a_default_group_and_can_be_deleted_with_it(ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    here = [{"Name": "vpc-id", "Values": [vpc]}]
    assert [one["GroupName"] for one in ec2.describe_security_groups(Filters=here)["SecurityGroups"]] == ["default"]
    ec2.delete_vpc(VpcId=vpc)
    assert ec2.describe_security_groups(Filters=here)["SecurityGroups"] == []


# tags


def test_tags_are_set_found_and_taken_away_on_everything(ec2: Any) -> None:
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    key = ec2.create_key_pair(KeyName="key", KeyType="ed25519")["KeyPairId"]
    made = launch(ec2)
    things = [vpc, group, key, made]
    ec2.create_tags(Resources=things, Tags=[{"Key": "run", "Value": "1"}, {"Key": "team", "Value": "web"}])
    runs = ec2.describe_tags(Filters=[{"Name": "key", "Values": ["run"]}])["Tags"]
    assert {(one["ResourceId"], one["ResourceType"]) for one in runs} == {
        (vpc, "vpc"),
        (group, "security-group"),
        (key, "key-pair"),
        (made, "instance"),
    }
    assert ec2.describe_vpcs(Filters=[{"Name": "tag:run", "Values": ["1"]}])["Vpcs"][0]["VpcId"] == vpc
    ec2.delete_tags(Resources=things, Tags=[{"Key": "run", "Value": "2"}])
    assert len(ec2.describe_tags(Filters=[{"Name": "key", "Values": ["run"]}])["Tags"]) == 4, "another value"
    ec2.delete_tags(Resources=things, Tags=[{"Key": "run"}])
    left = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": things}])["Tags"]
    assert {one["Key"] for one in left} == {"team"}


def test_a_tag_on_an_unknown_thing_is_put_on_none(ec2: Any) -> None:
    made = launch(ec2)
    with refused("InvalidInstanceID.NotFound"):
        ec2.create_tags(Resources=[made, "i-0123456789abcdef0"], Tags=[{"Key": "run", "Value": "1"}])
    assert ec2.describe_tags(Filters=[{"Name": "key", "Values": ["run"]}])["Tags"] == []
