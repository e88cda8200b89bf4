"""Nothing is published untested: the test stage, launch permissions and replacement."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from imagepipe.local.client import admin
from tests.machine.bakery import Bakery, until

pytestmark = pytest.mark.machine

SPEC = """\
imagepipe: 1
name: {name}
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch: {{region: us-east-1, ssh: {{timeout: {timeout}}}}}
provision:
  - shell: {step}
    sudo: true
test:
{tests}
output: {{name: "{image}", on_name_taken: {taken}}}
publish: {{regions: [us-west-2], share: {{accounts: [{share}]}}}}
"""


DEFAULTS = {"step": "echo one >/etc/stamp", "taken": "fail", "share": "", "timeout": "60s"}


def _spec(bakery: Bakery, name: str, tests: str, **values: str) -> Any:
    """Write a spec with these tests; `values` replace DEFAULTS, and `image` the name of the image."""
    values = DEFAULTS | {"image": f"{name}-{{{{ build.id }}}}"} | values
    return bakery.write(f"{name}.yaml", SPEC.format(name=name, tests=tests, **values))


def test_a_second_instance_of_the_new_image_runs_the_tests_and_is_cleaned_up(quick: Bakery) -> None:
    before = quick.inventory()
    tests = "  - name: the stamp\n    shell: grep one /etc/stamp\n  - shell: test ! -e /run/imagepipe"
    baked = quick.build(_spec(quick, "tested", tests), "--junit", "tests.xml")
    assert set(baked.images) == {"us-east-1", "us-west-2"}
    launched = [r["id"] for r in quick.journal() if r["type"] == "bound" and r["id"].startswith("i-")]
    assert len(launched) == 2
    assert quick.inventory()["us-east-1 instances"] == before["us-east-1 instances"]
    kinds = [r["kind"] for r in quick.journal() if r["type"] == "intended"]
    assert kinds.count("key-pair") == 2, "a fresh key for the test instance"
    suite = ET.parse(quick.folder / "tests.xml").getroot()[0]
    assert [case.get("name") for case in suite] == [
        "build",
        "boot the new image",
        "the stamp",
        "test ! -e /run/imagepipe",
    ]
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "0")


KINDS = """\
  - name: not so
    shell: grep two /etc/stamp
  - port: 22
  - port: {port: 80, state: closed}
  - http: http://localhost:8000/etc/stamp
    within: 2s
  - package: {name: openssh-server, version: "1:*"}
  - service: {name: page, enabled: true}
  - service: {name: no-such-service, state: stopped}
    within: 0s
  - http: {url: "http://localhost:8000/stamp", matches: ^one$}
  - path: {path: /etc/stamp, type: file, mode: "0644", owner: root:root, contains: one}
  - path: {path: /root/.ssh/id_rsa, absent: true}
    sudo: true
  - command: {command: [cat, /etc/stamp, /nothing], exit_code: 1, stdout: {equals: one}, stderr: {contains: No such}}
"""
STEP = """|
      echo one >/etc/stamp
      printf '%s\\n' '[Service]' 'WorkingDirectory=/etc' 'ExecStart=/usr/bin/python3 -m http.server 8000' \\
        '[Install]' 'WantedBy=multi-user.target' >/etc/systemd/system/page.service
      systemctl enable --quiet page"""


def test_all_tests_run_and_failed_ones_publish_nothing_and_their_instance_can_be_entered(bakery: Bakery) -> None:
    before = bakery.inventory()
    spec = _spec(bakery, "failing", KINDS, step=STEP)
    failed = bakery("build", str(spec), "--local", "--junit", "tests.xml", "--keep-on-failure")
    assert failed.code == 7, failed.err
    assert "error: test-01: step 'not so'" in failed.err
    assert "GET http://localhost:8000/etc/stamp: expected status 200, got 404" in failed.err
    assert "service no-such-service: systemd has no such service (not-found)" in failed.err
    assert "3 of 11 tests of failing failed" in failed.err
    suite = ET.parse(bakery.folder / "tests.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("13", "3", "0"), failed.err
    stages = {event.get("stage") for event in bakery.events() if event["event"] == "StageStarted"}
    assert not {"copy-us-west-2", "keep"} & stages

    entered = bakery("ssh", "latest", "--", "cat", "/etc/stamp")
    assert (entered.code, entered.out) == (0, "one\n"), entered.err
    assert bakery("clean", "latest", "--local").code == 0
    assert bakery.inventory() == before
    assert "has no machine that was kept" in bakery("ssh", "latest").err


def test_a_test_that_hangs_ends_at_its_timeout(quick: Bakery) -> None:
    before = quick.inventory()
    tests = "  - name: sleepy\n    shell: sleep 600\n    timeout: 2s"
    failed = quick("build", str(_spec(quick, "hanging", tests)), "--local")
    assert failed.code == 7
    assert "step 'sleepy'" in failed.err
    assert "not done within 2 s" in failed.err
    assert quick.inventory() == before


def test_an_image_that_does_not_boot_shows_the_last_lines_of_its_console(bakery: Bakery) -> None:
    before = bakery.inventory()
    step = "systemctl mask --quiet ssh.service ssh.socket"
    spec = _spec(bakery, "deaf", "  - shell: 'true'", step=step, timeout="40s")
    failed = bakery("build", str(spec), "--local", "--junit", "tests.xml")
    assert failed.code == 6, failed.err
    assert "the new image does not come up" in failed.err
    assert "within 40 s (launch.ssh.timeout)" in failed.err
    console = failed.err.partition("console:\n")[2]
    assert "cloud-init" in console.lower() or "login:" in console, failed.err
    assert "status checks: system" in failed.err
    assert bakery.inventory() == before
    suite = ET.parse(bakery.folder / "tests.xml").getroot()[0]
    assert suite[1].find("failure") is not None, "the boot is the first case after the build"
    assert suite[0].find("error") is None


def _as(bakery: Bakery, other: Any, region: str) -> Any:
    return boto3.client(
        "ec2",
        region_name=region,
        endpoint_url=bakery.cloud.endpoint_url,
        aws_access_key_id=other.access_key_id,
        aws_secret_access_key=other.secret_access_key,
    )


def test_a_second_account_can_describe_and_launch_what_is_shared_with_it_and_nothing_else(quick: Bakery) -> None:
    other = admin.add_account(quick.cloud)
    shared = quick.build(_spec(quick, "shared", "  - shell: 'true'", share=f'"{other.id}"')).images
    unshared = quick.build(_spec(quick, "unshared", "  - shell: 'true'")).images
    for region in ("us-east-1", "us-west-2"):
        theirs = _as(quick, other, region)
        [seen] = theirs.describe_images(ImageIds=[shared[region]])["Images"]
        assert seen["OwnerId"] != other.id
        with pytest.raises(ClientError, match=r"InvalidAMIID\.NotFound"):
            theirs.describe_images(ImageIds=[unshared[region]])
        with pytest.raises(ClientError, match=r"InvalidAMIID\.NotFound"):
            theirs.run_instances(ImageId=unshared[region], InstanceType="t3.small", MinCount=1, MaxCount=1)
    theirs = _as(quick, other, "us-west-2")
    launched = theirs.run_instances(ImageId=shared["us-west-2"], InstanceType="t3.small", MinCount=1, MaxCount=1)
    id = launched["Instances"][0]["InstanceId"]
    try:
        until(lambda: _runs(theirs, id), "their instance of our image runs")
    finally:
        theirs.terminate_instances(InstanceIds=[id])
        until(lambda: _runs(theirs, id, "terminated"), "it is gone")


def _runs(ec2: Any, id: str, state: str = "running") -> bool | None:
    [row] = ec2.describe_instances(InstanceIds=[id])["Reservations"]
    return True if row["Instances"][0]["State"]["Name"] == state else None


def test_replace_bakes_tests_and_copies_first_and_only_then_retires_the_old_image(quick: Bakery) -> None:
    first = quick.build(_spec(quick, "again", "  - shell: 'true'", image="always-this", taken="replace")).images
    wrong = _spec(quick, "again", "  - shell: 'false'", image="always-this", taken="replace")
    assert quick("build", str(wrong), "--local").code == 7
    images = quick.client().describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": ["always-this"]}])
    assert [image["ImageId"] for image in images["Images"]] == [first["us-east-1"]], "a failed build replaces nothing"

    step = "echo two >/etc/stamp"
    right = _spec(quick, "again", "  - shell: grep two /etc/stamp", step=step, image="always-this", taken="replace")
    second = quick.build(right).images
    for region in ("us-east-1", "us-west-2"):
        ec2 = quick.client(region=region)
        found = ec2.describe_images(Owners=["self"])["Images"]
        names = {image["ImageId"]: image["Name"] for image in found}
        assert names.get(second[region]) == "always-this"
        assert first[region] not in names
        assert not [name for name in names.values() if name.startswith("always-this-")], "the name of its own is gone"
    with quick.instance(second["us-west-2"], "us-west-2") as booted:
        assert booted.sh("cat /etc/stamp") == "two"


EVERYWHERE = """\
imagepipe: 1
name: everywhere
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1}
provision: [{shell: "true"}]
output: {name: everywhere-1, tags: {team: web}}
publish:
  regions: [us-west-2, eu-west-1]
  best_effort: [eu-west-1]
  share: {accounts: ["210987654321"]}
  deprecate_after: 90d
  deregistration_protection: true
  launch_templates: [{name: web, region: us-east-1}]
  ssm_parameter: /images/{{ spec.name }}
reuse: unchanged
"""


def test_a_build_publishes_everything_and_an_unchanged_one_makes_good_only_what_failed(quick_bakery: Bakery) -> None:
    bakery, spec = quick_bakery, quick_bakery.write("everywhere.yaml", EVERYWHERE)
    ec2, late = bakery.client(region="us-east-1"), bakery.client(region="eu-west-1")
    base = ec2.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"ImageId": base})
    source = late.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    taken = late.copy_image(SourceImageId=source, SourceRegion="eu-west-1", Name="everywhere-1")["ImageId"]
    until(lambda: late.describe_images(ImageIds=[taken])["Images"][0]["State"] == "available" or None, "the copy")

    baked = bakery.build(spec)
    assert set(baked.images) == {"us-east-1", "us-west-2"}
    assert "warning: everywhere: eu-west-1 failed alone: copy-eu-west-1" in baked.err
    home = baked.images["us-east-1"]
    [described] = ec2.describe_images(ImageIds=[home])["Images"]
    assert described["DeregistrationProtection"] == "enabled-without-cooldown"
    assert described["DeprecationTime"]
    [version] = ec2.describe_launch_template_versions(LaunchTemplateName="web", Versions=["$Default"])[
        "LaunchTemplateVersions"
    ]
    assert version["LaunchTemplateData"]["ImageId"] == home
    for region, image in baked.images.items():
        found = bakery.client("ssm", region).get_parameter(Name="/images/everywhere")["Parameter"]
        assert (found["Value"], found["DataType"]) == (image, "aws:ec2:image")

    late.deregister_image(ImageId=taken)
    again = bakery.build(spec)
    assert set(again.images) == {"us-east-1", "us-west-2", "eu-west-1"}
    assert again.images["us-east-1"] == home
    calls = bakery.admin("GET", "calls")
    assert bakery.build(spec).images == again.images
    more = {name for name, count in bakery.admin("GET", "calls").items() if count > calls.get(name, 0)}
    assert all(name.rpartition(":")[2].startswith(("Describe", "Get", "List")) for name in more), more
