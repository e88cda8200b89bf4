"""How an instance is launched and reached: spot, subnets, user data, the console's host key, a bastion, roles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.communicator.sshd import Sshd, sshd
from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

SPEC = """\
imagepipe: 1
name: {name}
source: {{ami: {source}}}
launch:
  region: us-east-1
  {launch}
provision:
  - shell: {step}
    sudo: true
output: {{name: "{name}-{{{{ build.id }}}}"}}
"""
DEBIAN = '{name: "debian-12-amd64-*", owners: ["136693071363"]}'


def _spec(bakery: Bakery, name: str, launch: str, *, step: str = "echo made >/etc/made", source: str = DEBIAN) -> Any:
    return bakery.write(f"{name}.yaml", SPEC.format(name=name, launch=launch, step=step, source=source))


def _instance(bakery: Bakery) -> dict[str, Any]:
    """Return EC2's description of the newest run's instance."""
    id = next(r["id"] for r in bakery.journal() if r["type"] == "bound" and r["id"].startswith("i-"))
    [row] = bakery.client().describe_instances(InstanceIds=[id])["Reservations"]
    return dict(row["Instances"][0])


def test_a_spot_instance_is_captured_with_its_file_systems_frozen(bakery: Bakery) -> None:
    baked = bakery.build(_spec(bakery, "spot", "spot: {max_price: '0.02'}"))
    assert _instance(bakery)["InstanceLifecycle"] == "spot"
    assert "its file systems are frozen for the capture" in baked.err
    with bakery.instance(baked.images["us-east-1"], "us-east-1") as booted:
        assert booted.sh("cat /etc/made") == "made"
        assert "errors" not in booted.sh("sudo dmesg 2>/dev/null | grep -i ext4 || true")


def test_without_spot_capacity_it_is_launched_on_demand_and_said(quick: Bakery) -> None:
    spec = _spec(quick, "fallback", "spot: true")
    where = {"InstanceMarketOptions.MarketType": "spot"}
    code = "InsufficientInstanceCapacity"
    with quick.fault(effect="refuse", action="RunInstances", code=code, status=500, times=50, where=where):
        baked = quick.build(spec)
    assert "InstanceLifecycle" not in _instance(quick)
    assert "InsufficientInstanceCapacity" in baked.err


def test_no_capacity_anywhere_lists_every_type_and_subnet_that_was_tried(quick: Bakery) -> None:
    ec2 = quick.client()
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]][:2]
    ec2.create_tags(Resources=[subnets[1]], Tags=[{"Key": "tier", "Value": "build"}])
    before = quick.inventory()
    launch = f"instance_types: [t3.small, t3a.small]\n  subnets: [{subnets[0]}, {{tags: {{tier: build}}}}]"
    code = "InsufficientInstanceCapacity"
    with quick.fault(effect="refuse", action="RunInstances", code=code, status=500, times=99):
        failed = quick("build", str(_spec(quick, "nowhere", launch)), "--local")
    assert failed.code == 3
    for subnet in subnets:
        for instance_type in ("t3.small", "t3a.small"):
            assert f"{instance_type} in {subnet}: InsufficientInstanceCapacity" in failed.err
    assert quick.inventory() == before


def test_user_data_of_the_specs_own_runs_beside_our_host_key(bakery: Bakery) -> None:
    launch = 'user_data: "#!/bin/sh\\necho from user data >/etc/own"'
    baked = bakery.build(_spec(bakery, "merged", launch, step="grep 'from user data' /etc/own"))
    assert "host key verified" in baked.err


def test_the_host_key_is_read_from_the_console(bakery: Bakery) -> None:
    baked = bakery.build(_spec(bakery, "console", "ssh: {host_key: console}"))
    assert "waiting for its host key on the console" in baked.err
    assert "host key verified" in baked.err


def test_an_ssm_parameter_names_the_source(quick: Bakery) -> None:
    [image] = quick.client().describe_images(
        Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}]
    )["Images"]
    quick.client("ssm").put_parameter(Name="/test/base", Value=image["ImageId"], Type="String", Overwrite=True)
    baked = quick.build(_spec(quick, "parameter", "tags: {a: b}", source="{ssm: /test/base}"))
    assert f"SSM parameter /test/base in us-east-1 is {image['ImageId']}" in baked.err


@pytest.fixture
def jump(quick: Bakery) -> Iterator[Sshd]:
    """A jump host: OpenSSH's sshd on this machine's loopback."""
    folder = quick.folder / "jump"
    folder.mkdir(exist_ok=True)
    with sshd(folder, "AllowTcpForwarding=yes") as server:
        yield server


def _bastion(server: Sshd, *, host_key: str = "", private_key: str = "") -> str:
    at = server.endpoint
    key = host_key or str(at.host_key)
    words = f"host: {at.host}, port: {at.port}, user: {at.user}, private_key: {private_key or at.private_key}"
    return f'ssh: {{allow_from: [127.0.0.1/32], bastion: {{{words}, host_key: "{key}"}}}}'


def test_a_build_goes_through_a_bastion_both_verified(quick: Bakery, jump: Sshd) -> None:
    baked = quick.build(_spec(quick, "bastion", _bastion(jump)))
    assert "host key verified" in baked.err
    assert _instance(quick).get("PrivateIpAddress", "") != jump.endpoint.host


def test_a_bastion_with_another_host_key_is_refused_at_once(quick: Bakery, jump: Sshd) -> None:
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    before = quick.inventory()
    failed = quick("build", str(_spec(quick, "wrong", _bastion(jump, host_key=other))), "--local")
    assert failed.code == 6
    assert "bastion" in failed.err
    assert "which is not the expected one" in failed.err
    assert quick.inventory() == before


def test_a_bastion_that_lets_nobody_through_is_said(quick: Bakery) -> None:
    folder = quick.folder / "closed"
    folder.mkdir(exist_ok=True)
    with sshd(folder, "AllowTcpForwarding=no") as closed:
        failed = quick("build", str(_spec(quick, "closed", _bastion(closed))), "--local")
    assert failed.code == 6
    assert "the bastion does not allow forwarding" in failed.err
    assert "sshd must allow TCP forwarding" in failed.err


def test_a_role_is_assumed_and_everything_is_done_as_it(quick: Bakery) -> None:
    account = quick.client("sts").get_caller_identity()["Account"]
    ours = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [ours]}
    role = quick.client("iam").create_role(RoleName="baker", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    spec = _spec(quick, "assumed", "tags: {a: b}")
    baked = quick.build(spec, "--assume-role", role)
    assert baked.images
    refused = quick("build", str(spec), "--local", "--assume-role", role.replace("baker", "nobody"))
    assert refused.code == 3
    assert "nobody" in refused.err
