"""Before anything is launched: whether bundles can be put where the spec says, for these types and this account."""

from __future__ import annotations

import pytest

from imagepipe.capture.instance_store.preconditions import CheckBucket, CheckTypes, check_account
from imagepipe.cloud.images import SourceImage
from imagepipe.cloud.session import Access, Session
from imagepipe.engine.journal import Lifetime, State
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.late import Late
from imagepipe.values import BundlePlace
from tests.account import Account
from tests.local.aws.harness import ACCOUNT, KEY_ID, SECRET

SOURCE = SourceImage("ami-0", "debian-12", "1", "x86_64", "hvm", "/dev/xvda", "ebs", ())
BUCKETS = {"us-east-1": "east", "us-west-2": "west"}


def _check(account: Account, *, is_local: bool = True, owner: str = ACCOUNT) -> BundlePlace:
    everywhere = {region: account.regions[region] for region in BUCKETS}
    session = account.regions.session
    stage = CheckBucket(everywhere, session, Ref("source"), BUCKETS, Late("{{ region }}/b"), owner, is_local=is_local)
    return stage.run(account.context(source=SOURCE))


def _said(account: Account) -> list[str]:
    return [text for event in account.seen if (text := getattr(event, "text", ""))]


def test_the_local_cloud_gets_the_buckets_that_it_has_not_and_says_so_once(account: Account) -> None:
    for _ in range(2):
        _check(account)
    assert [account.regions[region].s3.keys(bucket, "") for region, bucket in BUCKETS.items()] == [[], []]
    assert _said(account) == [
        f"created bucket {bucket} in {region}, because the local cloud had none" for region, bucket in BUCKETS.items()
    ]


def test_a_bucket_that_there_is_not_is_made_nowhere_else(account: Account) -> None:
    with pytest.raises(CloudError, match="bucket east does not exist"):
        _check(account, is_local=False)
    assert not account.s3.has_bucket("east")


def test_the_place_is_claimed_and_what_is_put_elsewhere_to_try_is_cleaned_up(account: Account) -> None:
    place = _check(account)
    claims = account.journal.claims()
    assert [(c.kind, c.region, c.lifetime, c.state) for c in claims] == [
        ("bundle", "us-east-1", Lifetime.PRODUCT, State.INTENDED),
        ("bundle", "us-west-2", Lifetime.RUN, State.RELEASED),
    ]
    assert place == BundlePlace("east", f"us-east-1/b/{claims[0].token}", claims[0].token)
    assert claims[1].details == {"bucket": "west", "prefix": "us-west-2/b"}


def test_what_could_not_be_deleted_again_is_left_to_the_undo(account: Account) -> None:
    account.fault("refuse", "s3:DeleteObjects", code="AccessDenied", status=403)
    with pytest.raises(CloudError, match="s3:DeleteObject is missing"):
        _check(account)
    [claim] = account.journal.claims()
    assert claim.is_open()
    assert account.s3.keys("east", "") == [f"us-east-1/b/{claim.token}/probe"]
    account.holdings.bundle(claim)
    assert account.s3.keys("east", "") == []


def test_leave_to_put_that_is_missing_is_named_before_anything_is_launched(account: Account) -> None:
    account.fault("refuse", "s3:PutObject", code="AccessDenied", status=403)
    with pytest.raises(CloudError, match="s3:PutObject is missing") as failed:
        _check(account)
    assert failed.value.hint is not None
    assert "s3:PutObjectAcl" in failed.value.hint


def test_an_image_for_another_account_than_ours_is_refused_on_aws_alone(account: Account) -> None:
    _check(account, owner="123456789012")
    with pytest.raises(CloudError, match=f"output.account is 123456789012, .* belong to account {ACCOUNT}"):
        _check(account, owner="123456789012", is_local=False)
    _check(account, is_local=False)


def test_an_endpoint_without_sts_is_not_asked_twice(account: Account) -> None:
    account.fault("refuse", "GetCallerIdentity", code="UnsupportedOperation", status=400)
    access = Access(endpoint_url=account.cloud.endpoint, access_key_id=KEY_ID, secret_access_key=SECRET)
    check_account(Session(access), "123456789012")


def test_types_that_can_have_their_root_on_instance_store_will_do(account: Account) -> None:
    CheckTypes(account.ec2, ("m3.medium", "c3.large", "r3.large")).run(account.context())


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("t3.small", "t3.small in us-east-1 cannot have its root on"),
        ("t9.huge", "instance type t9.huge does not exist"),
    ],
)
def test_a_type_that_cannot_is_named(account: Account, kind: str, says: str) -> None:
    with pytest.raises(CloudError, match=says):
        CheckTypes(account.ec2, ("m3.medium", kind)).run(account.context())
