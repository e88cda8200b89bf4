"""169.254.169.254 inside an instance that booted, as on EC2."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest

from imagepipe.local.machines.driver import Metadata
from imagepipe.local.machines.qemu.driver import QemuDriver
from imagepipe.local.store import Store
from tests.machine.bakery import Bakery
from tests.machine.guests import SSH, NewGuest, until

pytestmark = pytest.mark.machine

TOKEN = "$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)"


def test_an_instance_learns_who_and_where_it_is(bakery: Bakery) -> None:
    [image] = bakery.client(region="us-west-2").describe_images(
        Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}]
    )["Images"]
    with bakery.instance(image["ImageId"], "us-west-2", ports=(80,)) as booted:

        def asked(path: str) -> str:
            return booted.sh(f'curl -fsS -H "X-aws-ec2-metadata-token: {TOKEN}" http://169.254.169.254/latest/{path}')

        assert asked("meta-data/instance-id") == booted.id
        assert asked("meta-data/ami-id") == image["ImageId"]
        assert asked("meta-data/placement/region") == "us-west-2"
        assert asked("meta-data/public-ipv4") == booted.address
        assert asked("meta-data/public-keys/0/openssh-key").startswith("ssh-ed25519 ")
        assert asked("user-data").startswith("#cloud-config")
        identity = json.loads(asked("dynamic/instance-identity/document"))
        assert (identity["instanceId"], identity["region"]) == (booted.id, "us-west-2")
        assert booted.sh("curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/") in (
            "200",
            "401",
        )
        listen = "import socket; socket.create_server(('', 80)); print('free')"
        assert booted.sh(f'sudo python3 -c "{listen}"') == "free", "port 80 is the machine's own"


def test_options_and_roles_take_effect_on_a_running_instance(bakery: Bakery) -> None:
    ec2, iam = bakery.client(), bakery.client("iam")
    [image] = ec2.describe_images(Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}])[
        "Images"
    ]
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}]}
    iam.create_role(RoleName="imds", AssumeRolePolicyDocument=json.dumps(trust))
    iam.create_instance_profile(InstanceProfileName="imds")
    iam.add_role_to_instance_profile(InstanceProfileName="imds", RoleName="imds")
    with bakery.instance(image["ImageId"], "us-east-1") as booted:

        def status(path: str, token: str = "") -> str:
            header = f'-H "X-aws-ec2-metadata-token: {token}" ' if token else ""
            return booted.sh(f"curl -s -o /dev/null -w '%{{http_code}}' {header}http://169.254.169.254/latest/{path}")

        def change(**options: str) -> None:
            ec2.modify_instance_metadata_options(InstanceId=booted.id, **options)
            until(lambda: _options(ec2, booted.id)["State"] == "applied")

        change(HttpTokens="optional")
        assert status("meta-data/instance-id") == "200"
        assert status("meta-data/iam/info") == "404"
        change(HttpTokens="required")
        assert status("meta-data/instance-id") == "401"
        assert status("meta-data/instance-id", TOKEN) == "200"
        ec2.associate_iam_instance_profile(InstanceId=booted.id, IamInstanceProfile={"Name": "imds"})
        until(lambda: status("meta-data/iam/security-credentials/imds", TOKEN) == "200")
        text = booted.sh(
            f'curl -fsS -H "X-aws-ec2-metadata-token: {TOKEN}"'
            " http://169.254.169.254/latest/meta-data/iam/security-credentials/imds"
        )
        keys = json.loads(text)
        sts = boto3.client(
            "sts",
            region_name="us-east-1",
            endpoint_url=bakery.cloud.endpoint_url,
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["Token"],
        )
        assert sts.get_caller_identity()["Arn"].endswith(f":assumed-role/imds/{booted.id}")
        booted.sh("sync")
        [volume] = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [booted.id]}])["Volumes"]
        disk = bakery.store.disks / "volumes" / f"{volume['VolumeId']}.raw"
        assert not _is_in_file(disk, keys["SecretAccessKey"].encode())
        change(HttpEndpoint="disabled")
        assert status("meta-data/instance-id", "x") == "403"


def _options(ec2: Any, instance_id: str) -> Any:
    found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    return found["MetadataOptions"]


def _is_in_file(path: Path, text: bytes) -> bool:
    return subprocess.run(["grep", "-qaF", text, str(path)], check=False).returncode == 0


@pytest.mark.emulated
def test_a_running_virtual_machine_serves_changed_metadata(store: Store, new_guest: NewGuest) -> None:
    guest = new_guest()
    driver = QemuDriver(store.machines)
    try:
        driver.start(guest.machine, [SSH])
        ask = "curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/iam/info"
        assert guest.run(ask, within=300) == "401"
        driver.set_metadata(guest.id, Metadata(values={"iam/info": "{}"}, tokens_required=False))
        assert guest.run(ask) == "200"
        driver.set_metadata(guest.id, Metadata(is_enabled=False))
        assert guest.run(ask) == "403"
    finally:
        driver.stop(guest.id, force=True)
        driver.close()


def test_a_build_requires_tokens_of_its_instance(bakery: Bakery) -> None:
    step = """
- shell: |
    test "$(curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/)" = 401
    token=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
    curl -fsS -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/instance-type
"""
    baked = bakery.build(bakery.spec("imds", step))
    assert "| t3.small" in baked.err
