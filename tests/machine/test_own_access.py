"""Accounts that forbid temporary key pairs and groups: the build uses what is there, and leaves it there."""

from __future__ import annotations

import json

import pytest

from imagepipe.communicator import keys
from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

SPEC = """\
imagepipe: 1
name: own
variables: {{word: {{}}}}
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch:
  region: us-east-1
  security_groups: [{group}]
  subnets: [{subnet}]
  tags: {{cost-centre: "42"}}
  ssh: {{key_pair: own, private_key: own.key, address: private_ip, host_key: accept-new}}
provision:
  - shell: echo {{{{ var.word | quote }}}} | sudo tee /etc/word
output: {{name: "own-{{{{ build.id }}}}-{{{{ region }}}}", encrypt: true}}
"""


def test_own_key_pair_group_and_subnet_are_used_and_stay(bakery: Bakery) -> None:
    ec2 = bakery.client(region="eu-west-1")
    pair = keys.generate("own")
    keys.write_private(bakery.folder / "own.key", pair)
    ec2.import_key_pair(KeyName="own", PublicKeyMaterial=pair.public.encode())
    subnet = ec2.describe_subnets()["Subnets"][-1]
    group = ec2.create_security_group(GroupName="own", Description="own", VpcId=subnet["VpcId"])["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.0/8"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    spec = bakery.write("own.yaml", SPEC.format(group=group, subnet=subnet["SubnetId"]))
    (bakery.folder / "vars.yaml").write_text("word: 'from a file'\n")

    baked = bakery.build(spec, "--region", "eu-west-1", "--var-file", "vars.yaml")

    [image] = json.loads(baked.out)["images"]
    assert image["region"] == "eu-west-1", "--region replaces launch.region"
    assert image["name"].endswith("-eu-west-1"), "a late name knows its region"
    snapshot = ec2.describe_snapshots(SnapshotIds=image["snapshots"])["Snapshots"][0]
    assert snapshot["Encrypted"] is True, "encrypted at launch, so the snapshot is"
    kinds = [record["kind"] for record in bakery.journal() if record["type"] == "intended"]
    assert "key-pair" not in kinds
    assert "security-group" not in kinds
    assert ec2.describe_key_pairs(KeyNames=["own"])["KeyPairs"]
    assert (bakery.folder / "own.key").exists()
    ec2.delete_security_group(GroupId=group)
    ec2.delete_key_pair(KeyName="own")
    with bakery.instance(image["image_id"], "eu-west-1") as booted:
        assert booted.sh("cat /etc/word") == "from a file"
        assert pair.public.split()[1] not in booted.sh("cat ~/.ssh/authorized_keys"), "not in the image all the same"
