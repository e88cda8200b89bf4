"""Using the local cloud by hand: other tools in its environment, a login without looking anything up, a fresh start."""

from __future__ import annotations

import configparser
import json
import stat
import sys

import pytest

from imagepipe.local.client import connect
from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

LAUNCH = """\
import boto3, pathlib
ec2 = boto3.client("ec2")
pathlib.Path("me.pem").write_text(ec2.create_key_pair(KeyName="me")["KeyMaterial"])
pathlib.Path("me.pem").chmod(0o600)
here = [{"CidrIp": "127.0.0.1/32"}]
opened = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": here}]
ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=opened)
image = ec2.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
launched = ec2.run_instances(ImageId=image, InstanceType="t3.small", KeyName="me", MinCount=1, MaxCount=1)
id = launched["Instances"][0]["InstanceId"]
ec2.get_waiter("instance_running").wait(InstanceIds=[id], WaiterConfig={"Delay": 1, "MaxAttempts": 600})
print(id)
"""
ENVIRONMENT = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('AWS_')}))"


def test_a_command_finds_the_cloud_and_no_other_account(quick: Bakery) -> None:
    done = quick("local", "run", "--", sys.executable, "-c", ENVIRONMENT, AWS_PROFILE="mine", AWS_SESSION_TOKEN="t")
    found = json.loads(done.out)
    assert found["AWS_ENDPOINT_URL"] == quick.cloud.endpoint_url
    assert found["AWS_ACCESS_KEY_ID"] == quick.cloud.access_key_id
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "us-east-1"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & found.keys()


def test_the_exit_code_is_that_of_the_command(quick: Bakery) -> None:
    assert quick("local", "run", "sh", "-c", "exit 7").code == 7
    assert quick("local", "run", "--", "sh", "-c", "kill -9 $$").code == 128 + 9
    missing = quick("local", "run", "nosuch", "--help")
    assert missing.code == 2
    assert "running nosuch: No such file or directory" in missing.err


def test_an_instance_is_logged_in_to_by_its_id_and_a_reset_deletes_everything(quick_bakery: Bakery) -> None:
    cli = quick_bakery
    instance = cli("local", "run", sys.executable, "-c", LAUNCH).out.strip()
    by_start = cli("local", "ssh", instance[:10], "--", "sudo", "hostname", "&&", "echo", "here")
    assert by_start.code == 0, by_start.err
    assert by_start.out.endswith("here\n")
    assert cli("local", "ssh", "i-", "-i", "me.pem", "--user", "admin", "true").code == 0
    (cli.folder / "me.pem").rename(cli.folder / "other.pem")
    refused = cli("local", "ssh", instance)
    assert refused.code != 0
    assert "the private key of its key pair 'me' was not found" in refused.err
    assert cli("local", "console", instance).code == 0
    unknown = cli("local", "console", "i-9")
    assert unknown.code == 2
    assert instance in unknown.err

    asked = cli("local", "reset")
    assert asked.code == 2
    assert "--yes" in asked.err
    assert cli("local", "reset", "--yes").code == 0
    assert connect.running(cli.store) is None
    count = "import boto3; print(len(boto3.client('ec2').describe_instances()['Reservations']))"
    assert cli("local", "run", sys.executable, "-c", count).out.strip() == "0"


def test_serve_writes_a_profile_that_leads_to_the_cloud(quick: Bakery) -> None:
    serving = quick.start("local", "serve", "--env", "--profile", "here", AWS_CONFIG_FILE=str(quick.folder / "config"))
    while not (quick.folder / "config").exists():
        assert serving.poll() is None
    serving.terminate()
    serving.communicate(timeout=600)
    config = configparser.ConfigParser()
    config.read(quick.folder / "config")
    assert config["profile here"]["endpoint_url"] == quick.cloud.endpoint_url
    assert config["profile here"]["aws_secret_access_key"] == quick.cloud.secret_access_key
    assert stat.S_IMODE((quick.folder / "config").stat().st_mode) == 0o600
