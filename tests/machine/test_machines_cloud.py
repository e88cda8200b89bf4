"""The local cloud as a process: real machines behind it, killed and taken over, ended in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from imagepipe.local.client import connect
from imagepipe.local.client.connect import LocalCloud
from imagepipe.local.daemon import rendezvous
from imagepipe.local.disks.base_image import BaseImage
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.machines.driver import Machine, Seed
from imagepipe.local.store import Store
from tests.machine.guests import SECONDS, Guest, KeyPair, host_key_user_data, leftovers, until

pytestmark = pytest.mark.machine


@pytest.fixture
def cloud_store(store: Store, base: BaseImage) -> Iterator[Store]:
    """A store whose cloud, if a test leaves it up, is ended with all its instances."""
    yield store
    if rendezvous.is_locked(store.lock):
        connect.stop(store, terminate=terminate_all)


def ec2(cloud: LocalCloud, region: str = "us-east-1") -> Any:
    return boto3.client(
        "ec2",
        region_name=region,
        endpoint_url=cloud.endpoint_url,
        aws_access_key_id=cloud.access_key_id,
        aws_secret_access_key=cloud.secret_access_key,
    )


def terminate_all(cloud: LocalCloud) -> None:
    for region in ("us-east-1", "us-west-2"):
        client = ec2(cloud, region)
        for reservation in client.describe_instances()["Reservations"]:
            client.terminate_instances(InstanceIds=[each["InstanceId"] for each in reservation["Instances"]])


def state(client: Any, instance_id: str) -> str:
    described = client.describe_instances(InstanceIds=[instance_id])
    found: str = described["Reservations"][0]["Instances"][0]["State"]["Name"]
    return found


def run_instance(client: Any, *, image_id: str | None = None, **more: Any) -> Guest:
    """An instance of the base image, with keys of ours, whose SSH port is open to this computer."""
    login, host = KeyPair(), KeyPair()
    if image_id is None:
        image_id = client.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    name = os.urandom(4).hex()
    client.import_key_pair(KeyName=name, PublicKeyMaterial=login.public_line.encode())
    group = client.create_security_group(GroupName=name, Description="ssh")["GroupId"]
    client.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="127.0.0.1/32"
    )
    (made,) = client.run_instances(
        ImageId=image_id, InstanceType="t3.small", MinCount=1, MaxCount=1, KeyName=name,
        SecurityGroupIds=[group], UserData=host_key_user_data(host), **more,
    )["Instances"]  # fmt: skip
    seed = Seed(made["InstanceId"], "", "us-east-1", b"", ())
    return Guest(Machine(made["InstanceId"], made["PrivateIpAddress"], (), seed), login, host)


def test_an_instance_outlives_its_killed_cloud_and_the_next_client_finds_it(cloud_store: Store, tmp_path: Path) -> None:
    with connect.connect(cloud_store) as cloud:
        guest = run_instance(ec2(cloud))
        guest.run("echo here > here")
        init = MachineGroup(guest.id).init()
        killed = rendezvous.current(cloud_store)
        assert killed is not None
        os.kill(killed.pid, signal.SIGKILL)
        until(lambda: not rendezvous.is_locked(cloud_store.lock))
        with connect.connect(cloud_store) as again:
            assert again.endpoint_url == cloud.endpoint_url
            client = ec2(again)
            assert state(client, guest.id) == "running"
            assert MachineGroup(guest.id).init() == init
            assert guest.run("cat here") == "here\n"
            client.terminate_instances(InstanceIds=[guest.id])
            until(lambda: state(client, guest.id) == "terminated")
    connect.stop(cloud_store)
    assert leftovers(tmp_path) == []


def test_a_cloud_killed_between_launch_and_boot_boots_the_instance_the_next_time(
    cloud_store: Store, tmp_path: Path
) -> None:
    with connect.connect(cloud_store) as cloud:
        guest = run_instance(ec2(cloud))
        killed = rendezvous.current(cloud_store)
        assert killed is not None
        os.kill(killed.pid, signal.SIGKILL)
        until(lambda: not rendezvous.is_locked(cloud_store.lock))
        with connect.connect(cloud_store) as again:
            assert guest.run("cloud-init status --wait").strip().endswith("status: done")
            assert state(ec2(again), guest.id) == "running"


def test_an_image_of_an_instance_boots_with_its_changes_in_another_region(cloud_store: Store) -> None:
    with connect.connect(cloud_store) as cloud:
        east, west = ec2(cloud), ec2(cloud, "us-west-2")
        guest = run_instance(east)
        guest.run("echo changed | sudo tee /srv/changed; cloud-init status --wait; sync")
        image = east.create_image(InstanceId=guest.id, Name="changed")["ImageId"]
        until(lambda: east.describe_images(ImageIds=[image])["Images"][0]["State"] == "available")
        copy = west.copy_image(SourceRegion="us-east-1", SourceImageId=image, Name="changed")["ImageId"]
        until(lambda: west.describe_images(ImageIds=[copy])["Images"][0]["State"] == "available")
        twin = run_instance(west, image_id=copy)
        assert twin.run("cat /srv/changed") == "changed\n"
        assert twin.run("ls /var/lib/cloud/instances").split().count(twin.id) == 1


def test_an_instance_that_powers_itself_off_is_stopped_and_starts_again(cloud_store: Store) -> None:
    with connect.connect(cloud_store) as cloud:
        client = ec2(cloud)
        guest = run_instance(client)
        guest.run("echo kept > kept; sudo nohup sh -c 'sleep 0.2; systemctl poweroff' >/dev/null 2>&1 &")
        until(lambda: state(client, guest.id) == "stopped")
        client.start_instances(InstanceIds=[guest.id])
        assert guest.run("cat kept") == "kept\n"


def test_a_cloud_that_is_asked_to_end_powers_its_instances_off_and_keeps_them(
    cloud_store: Store, tmp_path: Path
) -> None:
    with connect.connect(cloud_store) as cloud:
        guest = run_instance(ec2(cloud))
        guest.run("echo kept > kept; sync")
        serves = rendezvous.current(cloud_store)
        assert serves is not None
        os.kill(serves.pid, signal.SIGTERM)
        until(lambda: not serves.is_alive())
        assert leftovers(tmp_path) == []
        with connect.connect(cloud_store) as again:
            client = ec2(again)
            until(lambda: state(client, guest.id) == "stopped")
            client.start_instances(InstanceIds=[guest.id])
            assert guest.run("cat kept") == "kept\n"


def test_the_command_serves_says_how_and_ends_in_order_at_ctrl_c(
    cloud_store: Store, base_cache: Path, tmp_path: Path
) -> None:
    command = [str(Path(sys.executable).with_name("imagepipe")), "local", "--store", str(cloud_store.root)]
    environment = os.environ | {"IMAGEPIPE_LOCAL_BASE_CACHE": str(base_cache)}
    with subprocess.Popen([*command, "serve", "--env"], stdout=subprocess.PIPE, env=environment, text=True) as cloud:
        assert cloud.stdout is not None
        exports = dict(cloud.stdout.readline().removeprefix("export ").rstrip().split("=", 1) for _ in range(4))
        assert exports.keys() == {
            "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"
        }  # fmt: skip
        listed = subprocess.run([*command, "images"], capture_output=True, env=environment, text=True, check=True)
        assert "debian-12-amd64-" in listed.stdout
        said = subprocess.run([*command, "status"], capture_output=True, env=environment, text=True, check=True)
        assert exports["AWS_ENDPOINT_URL"] in said.stdout
        cloud.send_signal(signal.SIGINT)
        assert cloud.wait(SECONDS) == 0
    assert leftovers(tmp_path) == []


def test_stop_by_force_terminates_what_is_there(cloud_store: Store, tmp_path: Path) -> None:
    with connect.connect(cloud_store) as cloud:
        run_instance(ec2(cloud))
        run_instance(ec2(cloud, "us-west-2"))
    command = [str(Path(sys.executable).with_name("imagepipe")), "local", "--store", str(cloud_store.root), "stop"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 9
    assert "2 instances still there" in refused.stderr
    assert "Traceback" not in refused.stderr
    subprocess.run([*command, "--force"], check=True, capture_output=True)
    assert not rendezvous.is_locked(cloud_store.lock)
    assert leftovers(tmp_path) == []


def test_the_cloud_ends_by_itself_when_its_last_client_and_instance_have_gone(cloud_store: Store) -> None:
    with connect.connect(cloud_store) as cloud:
        client = ec2(cloud)
        guest = run_instance(client)
        client.terminate_instances(InstanceIds=[guest.id])
        serves = rendezvous.current(cloud_store)
        assert serves is not None
    until(lambda: not serves.is_alive())
