"""The provisioners that come with imagepipe, and the samples that use them, on instances that boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@example"


def test_the_hardened_base_passes_its_tests_and_its_instances_are_hardened(bakery: Bakery) -> None:
    """Users, time zone, sysctl, unattended upgrades, the CloudWatch agent's configuration, hardening."""
    baked = bakery.build(ROOT / "specs/hardened-base.yaml")
    with bakery.instance(baked.images["us-east-1"], "us-east-1") as booted:
        assert booted.sh("readlink /etc/localtime") == "/usr/share/zoneinfo/Europe/Berlin"
        assert booted.sh("cat /etc/sysctl.d/60-imagepipe.conf") == "net.core.somaxconn = 4096\nvm.swappiness = 10"
        assert "passwordauthentication no" in booted.sh("sudo sshd -T")
        assert booted.sh("sudo cat /etc/sudoers.d/90-imagepipe-operator") == "operator ALL=(ALL) NOPASSWD:ALL"
        assert "linux-image-.*" in booted.sh("apt-config dump Unattended-Upgrade::Package-Blacklist")
        assert '"retention_in_days": 14' in booted.sh("cat /opt/aws/amazon-cloudwatch-agent/etc/*.json")


def test_the_application_server_has_docker_and_its_data_on_a_volume_of_its_own(bakery: Bakery) -> None:
    baked = bakery.build(ROOT / "specs/app-server.yaml")
    image = bakery.client().describe_images(ImageIds=[baked.images["us-east-1"]])["Images"][0]
    root, data = image["BlockDeviceMappings"]
    assert (root["DeviceName"], data["DeviceName"]) == ("/dev/xvda", "/dev/sdf")
    assert (data["Ebs"]["VolumeSize"], data["Ebs"]["DeleteOnTermination"]) == (4, False), "output.block_devices"
    [snapshot] = bakery.client().describe_snapshots(SnapshotIds=[data["Ebs"]["SnapshotId"]])["Snapshots"]
    assert {"Key": "holds", "Value": "data"} in snapshot["Tags"]
    with bakery.instance(baked.images["us-east-1"], "us-east-1") as booted:
        assert booted.sh("docker --version").startswith("Docker version")
        mounted = booted.sh("mountpoint -q /srv/data && sudo cat /srv/data/app/README")
        assert "baked by app-server" in mounted


ALL = f"""
- use: users
  with:
    users:
      - {{name: ada, keys: ["{KEY}"], groups: [adm], sudo: true, comment: "Ada, Countess"}}
      - {{name: bob}}
- use: timezone
  with: {{zone: Etc/UTC}}
- use: sysctl
  with: {{values: {{vm.swappiness: 10, kernel.sysrq: false}}}}
- use: unattended-upgrades
- use: cloudwatch-agent
  with: {{logs: {{/var/log/a.log: a}}}}
- use: docker
  with: {{users: [ada], daemon: {{"bip": "172.26.0.1/16"}}}}
- use: hardening
"""
SUMS = """
- name: sums of everything that they write
  shell: |
    find /etc /opt /home /root -xdev -type f ! -name '*-' ! -name .pwd.lock | sort | xargs sha256sum >/run/sums.{n}
    test ! -e /run/sums.1 || diff /run/sums.1 /run/sums.{n}
  sudo: true
"""


ADA = """
hygiene:
  allow:
    - {path: /home/ada/.ssh/authorized_keys, rule: authorized-keys, reason: Ada may log in to every instance}
"""


def test_every_provisioner_changes_nothing_the_second_time(bakery: Bakery) -> None:
    steps = ALL + SUMS.format(n=1) + ALL + SUMS.format(n=2)
    path = bakery.spec("twice", steps)
    path.write_text(path.read_text() + ADA)
    bakery.build(path)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ("- use: users\n  with: {users: [{name: 'Root Toor'}]}", "not a user"),
        ("- use: users\n  with: {users: [{name: ada, keys: [hello]}]}", "not a public SSH key"),
        ("- use: timezone\n  with: {zone: Europe/Atlantis}", "time zone 'Europe/Atlantis' does not exist"),
        ("- use: sysctl\n  with: {values: {'a b': 1}}", "not a setting"),
        ("- use: cloudwatch-agent\n  with: {retention_days: 8}", "CloudWatch has 1, 3, 5"),
        ("- use: data-volume\n  with: {device: /dev/sdz, mount: /srv}", "no device /dev/sdz"),
        ("- use: hardening\n  with: {umask: '27'}", "not a umask"),
    ],
    ids=lambda value: value.split()[2] if value.startswith("-") else None,
)
def test_a_provisioner_says_what_is_wrong_with_what_it_is_given(quick: Bakery, steps: str, says: str) -> None:
    failed = quick("build", str(quick.spec("wrong", steps)), "--local")
    assert failed.code == 7
    assert says in failed.err
