"""169.254.169.254 inside an instance that booted, as on EC2."""

from __future__ import annotations

import json

import pytest

from tests.machine.bakery import Bakery

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


def test_a_build_requires_tokens_of_its_instance(bakery: Bakery) -> None:
    step = """
- shell: |
    test "$(curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/)" = 401
    token=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
    curl -fsS -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/instance-type
"""
    baked = bakery.build(bakery.spec("imds", step))
    assert "| t3.small" in baked.err
