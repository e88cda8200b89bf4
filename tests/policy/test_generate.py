"""The policies of specs: held against the facts of IAM, the graphs of `pipeline`, and policies made by hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from imagepipe.assembly import plan
from imagepipe.cleanup.undoers import Undoers
from imagepipe.clock import SystemClock
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.s3 import EXEC_READ
from imagepipe.cloud.session import Access, Session
from imagepipe.communicator.ssh import Connections
from imagepipe.iam.document import Statement, document
from imagepipe.iam.facts import ACTIONS, family, keys_of, kind_of
from imagepipe.planning.actions import DESCRIBED, SILENT
from imagepipe.policy import storage
from imagepipe.policy.context import EXPIRES, KEPT, RUN, SPEC, STATE, UNFINISHED, PolicyContext
from imagepipe.policy.generate import For, reasons, statements
from imagepipe.policy.retention import DISABLED
from imagepipe.policy.stages import PUBLISHING, STAGES, STEPS, publishing_stages_of, stages_of
from imagepipe.policy.undo import UNDO
from imagepipe.publish.copy_ebs import CopyLimits
from imagepipe.wiring.tools import Tools
from tests.bundle.samples import recipients
from tests.policy.specs import BUNDLE, FULL, LAYER, OWN_ACCESS, PLAIN, SPECS, context_of, loaded


@pytest.mark.parametrize("name", SPECS)
def test_every_stage_of_a_graph_has_its_place_in_the_policy_and_no_other_has(name: str, tmp_path: Path) -> None:
    one = loaded(tmp_path, SPECS[name])
    regions = Regions(Session(Access(region="us-east-1", access_key_id="x", secret_access_key="y")), SystemClock())
    tools = Tools(regions, Connections(), CopyLimits(), tmp_path, "r1", lambda *_: recipients())
    specs = [one, *one.bases()]
    baked = plan(specs, tools, region=lambda spec: "us-east-1")
    own = next(build.stages for build in baked.baked if build.spec == one.checked().name)
    classes = {type(baked.graph.stages[name]).__name__ for name in own}
    assert classes - STEPS.keys() == set(stages_of(PolicyContext(one.checked(), "us-east-1")))


def test_all_stages_are_in_some_graph(tmp_path: Path) -> None:
    assert {name for text in SPECS.values() for name in stages_of(context_of(tmp_path, text))} == STAGES.keys()


def test_all_stages_of_published_images_are_in_some_graph(tmp_path: Path) -> None:
    named = {name for text in SPECS.values() for name in publishing_stages_of(context_of(tmp_path, text))}
    assert PUBLISHING.keys() <= named <= STAGES.keys() | PUBLISHING.keys()


def test_every_stage_that_asks_for_permissions_is_an_action_of_a_plan_or_silent() -> None:
    assert STAGES.keys() | PUBLISHING.keys() | STEPS.keys() <= DESCRIBED.keys() | SILENT
    assert not DESCRIBED.keys() & SILENT


def test_publishing_needs_no_instance(tmp_path: Path) -> None:
    for text in SPECS.values():
        actions = {each for one in statements([context_of(tmp_path, text)], "publish") for each in one.actions}
        assert not {each for each in actions if "Instance" in each and "Describe" not in each}


def test_every_kind_of_claim_is_cleaned_up() -> None:
    regions = Regions(Session(Access(region="us-east-1", access_key_id="x", secret_access_key="y")), SystemClock())
    assert Undoers(regions, SystemClock()).undoers().keys() == UNDO.keys()


def test_words_of_the_cloud_are_the_same_here() -> None:
    assert (RUN, SPEC, STATE, EXPIRES, UNFINISHED, KEPT, DISABLED) == (
        tags.RUN,
        tags.SPEC,
        tags.STATE,
        tags.EXPIRES,
        tags.UNFINISHED,
        tags.KEPT,
        tags.DISABLED,
    )
    assert storage.EXEC_READ == EXEC_READ


@pytest.mark.parametrize("wanted", ["build", "publish", "clean", "prune"])
@pytest.mark.parametrize("name", SPECS)
def test_every_condition_is_one_that_its_action_has(name: str, wanted: For, tmp_path: Path) -> None:
    for reason in reasons(context_of(tmp_path, SPECS[name]), wanted):
        one = reason.statement
        assert one.actions
        assert one.resources
        for action, resource in product(one.actions, one.resources):
            kind = kind_of(resource)
            assert kind in ACTIONS[action], f"{action} on {kind}"
            assert {family(key) for keys in one.conditions.values() for key in keys} <= keys_of(action, kind)


def _reach(one: Statement) -> set[tuple[str, str]]:
    """Actions and resources that a statement can allow: where an action has no such condition, it never does."""
    wanted = {family(key) for operator, keys in one.conditions.items() if "IfExists" not in operator for key in keys}
    return {
        (action, resource)
        for action, resource in product(one.actions, one.resources)
        if kind_of(resource) in ACTIONS[action] and wanted <= keys_of(action, kind_of(resource))
    }


@pytest.mark.parametrize("wanted", ["build", "publish", "clean", "prune"])
@pytest.mark.parametrize("name", SPECS)
def test_statements_put_together_allow_no_more_than_each_for_itself(name: str, wanted: For, tmp_path: Path) -> None:
    one = context_of(tmp_path, SPECS[name])
    asked: dict[str, set[tuple[str, str]]] = {}
    for reason in reasons(one, wanted):
        asked.setdefault(reason.statement.sid, set()).update(_reach(reason.statement))
    for made in statements([one], wanted):
        assert _reach(made) <= asked[made.sid.rstrip("0123456789")], made.sid


def _sids(one: PolicyContext, wanted: For = "build") -> dict[str, dict[str, object]]:
    return {each["Sid"]: each for each in document(statements([one], wanted))["Statement"]}


def test_a_layer_may_be_launched_only_from_the_images_of_its_base(tmp_path: Path) -> None:
    source = _sids(context_of(tmp_path, LAYER))["LaunchFromSource"]
    assert source["Condition"] == {"StringEquals": {"aws:ResourceTag/imagepipe:spec": "plain"}}


def test_the_policy_of_a_plain_spec_as_it_is_made_by_hand(tmp_path: Path) -> None:
    found = _sids(context_of(tmp_path, PLAIN))
    assert sorted(found) == [
        "ChangeOurImages",
        "EndOurs",
        "InNetwork",
        "LaunchFromSource",
        "LaunchInstances",
        "MakeOurs",
        "ReadOnly",
        "RegisterOurs",
        "TagOnCreate",
        "TagOurs",
        "WorkOnOurs",
    ]
    assert found["LaunchFromSource"] == {
        "Sid": "LaunchFromSource",
        "Effect": "Allow",
        "Action": "ec2:RunInstances",
        "Resource": "arn:aws:ec2:us-east-1::image/ami-12345678",
    }
    assert found["LaunchInstances"] == {
        "Sid": "LaunchInstances",
        "Effect": "Allow",
        "Action": "ec2:RunInstances",
        "Resource": "arn:aws:ec2:us-east-1:*:instance/*",
        "Condition": {
            "Null": {"aws:RequestTag/imagepipe:run": "false"},
            "StringEquals": {
                "aws:RequestTag/imagepipe:spec": "plain",
                "ec2:InstanceType": "t3.small",
                "ec2:MetadataHttpTokens": "required",
            },
        },
    }
    assert found["EndOurs"] == {
        "Sid": "EndOurs",
        "Effect": "Allow",
        "Action": ["ec2:DeleteSnapshot", "ec2:DeregisterImage"],
        "Resource": ["arn:aws:ec2:us-east-1::image/*", "arn:aws:ec2:us-east-1::snapshot/*"],
        "Condition": {
            "StringEquals": {
                "aws:ResourceTag/imagepipe:spec": "plain",
                "aws:ResourceTag/imagepipe:state": "unfinished",
            }
        },
    }


def test_what_a_spec_names_is_all_that_may_be_used(tmp_path: Path) -> None:
    found = _sids(context_of(tmp_path, OWN_ACCESS))
    assert found["InNetwork"]["Resource"] == [
        "arn:aws:ec2:us-east-1:*:key-pair/ours",
        "arn:aws:ec2:us-east-1:*:network-interface/*",
        "arn:aws:ec2:us-east-1:*:security-group/sg-12345678",
        "arn:aws:ec2:us-east-1:*:subnet/*",
    ]
    parameter = "arn:aws:ssm:us-east-1:*:parameter/aws/service/debian/release/12/latest/amd64"
    assert found["ReadParameter"]["Resource"] == parameter
    actions = str(found)
    for absent in ("ImportKeyPair", "CreateSecurityGroup", "DeleteKeyPair", "GetInstanceUefiData", "ModifyImage"):
        assert absent not in actions


def test_a_full_spec_has_conditions_for_all_that_it_says(tmp_path: Path) -> None:
    found = _sids(context_of(tmp_path, FULL))

    def condition(sid: str) -> object:
        return found[sid]["Condition"]

    owners = ["${aws:PrincipalAccount}", "136693071363", "amazon"]
    assert condition("LaunchFromSource") == {"StringEquals": {"ec2:Owner": owners}}
    assert found["LaunchFromSnapshots"]["Resource"] == "arn:aws:ec2:us-east-1::snapshot/snap-12345678"
    assert condition("InSubnets") == {"StringLike": {"aws:ResourceTag/tier": "build-*"}}, (
        "as in the filter of the subnets"
    )
    assert condition("PassRole") == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    assert found["PassRole"]["Resource"] == "arn:aws:iam::*:role/reader"
    assert condition("ShareSnapshots") == {
        "ForAllValues:StringEquals": {"ec2:Add/userId": "123456789012"},
        "Null": {"ec2:Add/userId": "false"},
        "StringEquals": {"aws:ResourceTag/imagepipe:spec": "full"},
    }
    assert condition("EndOurs") == {"StringEquals": {"aws:ResourceTag/imagepipe:spec": "full"}}, "it may retire"
    assert found["LetEbsUseKey"]["Resource"] == "arn:aws:kms:us-east-1:*:key/11111111-2222-3333-4444-555555555555"
    assert condition("LetEbsUseKey2") == {
        "Bool": {"kms:GrantIsForAWSResource": "true"},
        "ForAnyValue:StringEquals": {"kms:ResourceAliases": ["alias/data", "alias/images"]},
    }
    assert condition("TagVolumes")["ForAllValues:StringEquals"] == {"aws:TagKeys": "use"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("device", "test", "sid"),
    [
        ("{device: /dev/sdf, tags: {use: data}}", "", "MakeEncrypted"),
        ("{device: /dev/sdg, size_gib: 1, encrypted: true}", "", "MakeEncrypted"),
        ("{device: /dev/sdg, size_gib: 1}", "", "MakeOurs"),
        ("{device: /dev/sdg, snapshot: snap-87654321}", "", "MakeOurs"),
        ("{device: /dev/sdg, size_gib: 1}", "no ", "MakeEncrypted"),
    ],
)
def test_only_encrypted_volumes_may_be_made_where_the_test_instance_has_no_others(
    tmp_path: Path, device: str, test: str, sid: str
) -> None:
    text = FULL.replace("{device: /dev/sdg, snapshot: snap-87654321}", "").replace(
        "{device: /dev/sdf, tags: {use: data}}, ", device
    )
    if test:
        text = text.replace('test: [{shell: "true"}]\n', "")
    found = _sids(context_of(tmp_path, text))
    makes = [name for name, each in found.items() if "arn:aws:ec2:us-east-1:*:volume/*" in each["Resource"]]  # type: ignore[operator]
    assert [name for name in makes if name in ("MakeEncrypted", "MakeOurs")] == [sid]


def test_a_bundle_is_put_under_its_prefix_with_the_acl_that_ec2_reads_by(tmp_path: Path) -> None:
    found = _sids(context_of(tmp_path, BUNDLE))
    assert found["PutBundles"] == {
        "Sid": "PutBundles",
        "Effect": "Allow",
        "Action": ["s3:PutObject", "s3:PutObjectAcl"],
        "Resource": ["arn:aws:s3:::east/p/*/us-east-1/*/*", "arn:aws:s3:::west/p/*/us-west-2/*/*"],
        "Condition": {"StringEquals": {"s3:x-amz-acl": "aws-exec-read"}},
    }
    assert "snapshot" not in str({sid: found[sid] for sid in found if sid != "ReadOnly"}).lower()


def test_a_clean_up_makes_and_launches_nothing(tmp_path: Path) -> None:
    found = _sids(context_of(tmp_path, FULL), "clean")
    assert sorted(found) == ["EndOurs", "ReadOnly", "WorkOnOurs"]
    assert found["WorkOnOurs"]["Action"] == [
        "ec2:DeleteKeyPair",
        "ec2:DeleteSecurityGroup",
        "ec2:TerminateInstances",
    ]


def test_who_builds_several_specs_may_do_what_each_needs(tmp_path: Path) -> None:
    both = [context_of(tmp_path, PLAIN), context_of(tmp_path, OWN_ACCESS)]
    made = {one.sid: one for one in statements(both)}
    assert made["LaunchInstances"].conditions["StringEquals"]["aws:RequestTag/imagepipe:spec"] == ("own", "plain")


def test_regions_of_china_have_their_own_partition_and_service(tmp_path: Path) -> None:
    one = PolicyContext(context_of(tmp_path, FULL).spec, "cn-north-1")
    found = _sids(one)
    assert str(found["LaunchInstances"]["Resource"]).startswith("arn:aws-cn:ec2:cn-north-1:")
    assert found["PassRole"]["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com.cn"}}
