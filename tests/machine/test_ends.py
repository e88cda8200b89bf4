"""How runs end: the tags of all they created, the lines that tell, and specs that fail beside others that do not."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import pytest

from tests.machine.bakery import Bakery, without_boot
from tests.machine.under_policy import Baker

pytestmark = pytest.mark.machine

TAGGED = """\
imagepipe: 1
name: tagged
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch:
  region: us-east-1
  tags: {cost-center: "42", base: "{{ source.name }}"}
provision: [{shell: echo hello}]
test: [{shell: echo tested}]
output: {name: "tagged-{{ build.id }}", tags: {cost-center: "43"}}
publish: {regions: [us-west-2]}
"""
TESTED = """\
imagepipe: 1
name: {name}
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch: {{region: us-east-1}}
provision: [{{shell: echo hello}}]
test: [{{name: the page, shell: {test}}}]
output: {{name: "{name}-{{{{ build.id }}}}"}}
"""
CREATES = {
    "ec2:ImportKeyPair": "key-pair",
    "ec2:CreateSecurityGroup": "security-group",
    "ec2:RunInstances": "instance",
    "ec2:CreateSnapshots": "snapshot",
    "ec2:RegisterImage": "image",
    "ec2:CopyImage": "snapshot",  # its source is an image, too, which gets no tags
}
"""The calls of a build that create something, and the resource whose tags an account can ask for in them."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bakery]:
    with without_boot(tmp_path_factory.mktemp("ends")) as bakery:
        yield bakery


def _enforced(policy: dict[str, Any]) -> dict[str, Any]:
    """The policy, without any create call that does not carry the tag."""
    missing = {"Null": {"aws:RequestTag/cost-center": "true"}}
    denied = [
        {"Sid": f"Tagged{number}", "Effect": "Deny", "Action": action, "Condition": missing}
        | {"Resource": f"arn:aws:ec2:*:*:{kind}/*"}
        for number, (action, kind) in enumerate(CREATES.items())
    ]
    volume = {"Sid": "TaggedVolume", "Effect": "Deny", "Action": "ec2:RunInstances", "Condition": missing}
    return {**policy, "Statement": [*policy["Statement"], *denied, volume | {"Resource": "arn:aws:ec2:*:*:volume/*"}]}


def test_an_account_that_enforces_tags_takes_every_create_call_of_a_build(bench: Bakery) -> None:
    baker = Baker(bench, bench.write("tagged.yaml", TAGGED))
    built = baker.build(policy=_enforced(baker.policy))
    assert built.code == 0, built.err
    asked = {each.action for each in baker.asked()}
    verbs = ("ec2:Create", "ec2:Import", "ec2:Run", "ec2:Register", "ec2:Copy")
    creates = {action for action in asked if action.startswith(verbs)}
    assert creates - {"ec2:CreateTags"} == set(CREATES), "each create call is in the table above"


def test_the_enforcing_account_refuses_a_build_without_its_tag(bench: Bakery) -> None:
    untagged = TAGGED.replace('cost-center: "42", ', "").replace("name: tagged", "name: untagged")
    baker = Baker(bench, bench.write("untagged.yaml", untagged))
    refused = baker.build(policy=_enforced(baker.policy))
    assert refused.code == 3
    assert "UnauthorizedOperation" in refused.err


def test_a_failed_test_of_one_spec_leaves_the_image_of_another(bench: Bakery) -> None:
    before = bench.inventory()
    good = bench.write("good.yaml", TESTED.format(name="good", test="sleep 3"))
    bad = bench.write("bad.yaml", TESTED.format(name="bad", test='"exit 3"'))
    built = bench("build", str(good), str(bad), "--local", "--format", "json", "--junit", "report.xml")
    assert built.code == 7, built.err
    result = json.loads(built.out)
    assert [image["spec"] for image in result["images"]] == ["good"]
    assert result["failed"] == ["bad"]
    assert "error: bad/test-" in built.err
    suites = {suite.get("name"): suite for suite in ET.parse(bench.folder / "report.xml").getroot()}
    assert [suites["good"].get(count) for count in ("errors", "failures")] == ["0", "0"]
    assert [suites["bad"].get(count) for count in ("errors", "failures")] == ["0", "1"]
    [image] = result["images"]
    after = bench.inventory()
    assert set(after["us-east-1 images"]) - set(before["us-east-1 images"]) == {image["image_id"]}
    assert len(after["us-east-1 snapshots"]) - len(before["us-east-1 snapshots"]) == 1
    for kind in ("instances", "keys", "groups"):
        assert after[f"us-east-1 {kind}"] == before[f"us-east-1 {kind}"]
    shown = bench("show", result["run"]).out
    assert image["image_id"] in shown
    assert bench("clean", "--all").out == "nothing to delete\n"


def test_a_failed_test_of_one_spec_withdraws_the_others_with_fail_fast(bench: Bakery) -> None:
    before = bench.inventory()
    good = bench.write("good.yaml", TESTED.format(name="good", test="sleep 30"))
    bad = bench.write("bad.yaml", TESTED.format(name="bad", test='"exit 3"'))
    built = bench("build", str(good), str(bad), "--local", "--format", "json", "--fail-fast")
    assert built.code == 7, built.err
    assert bench.inventory() == before
    assert "--fail-fast" in bench("build", "--help").out


def test_show_tells_all_that_the_build_told_and_how_to_get_into_a_kept_machine(bench: Bakery) -> None:
    before = bench.inventory()
    spec = bench.spec("kept", "- shell: echo 'the last words' >&2; exit 3")
    failed = bench("build", str(spec), "--local", "--keep-on-failure")
    assert failed.code == 7
    run = bench.journal()[0]["id"]
    shown = bench("show", run).out
    closing = failed.err[failed.err.index("error: step-1: ") :]
    assert closing in shown
    assert "ssh -i " in closing
    assert "the last words" in closing
    assert f"delete what it holds: imagepipe clean {run}" in shown
    dry = bench("resume", run, "--dry-run").out
    assert "step-1 failed, and cannot be repeated on the same machine" in dry
    assert bench("clean", run).code == 0
    assert bench.inventory() == before


def test_what_was_never_created_is_not_reported_as_deleted(bench: Bakery) -> None:
    spec = bench.spec("uncreated", "- shell: echo hello")
    with bench.fault(effect="refuse", action="RunInstances", code="UnauthorizedOperation", times=1):
        failed = bench("build", str(spec), "--local")
    assert failed.code == 3, failed.err
    released = [event["kind"] for event in bench.events() if event["event"] == "Released"]
    assert sorted(released) == ["key-pair", "security-group"]
    assert "deleted         instance" not in failed.out
