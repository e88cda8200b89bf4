"""S3 in our words, on the local cloud; and what only a real one says, through botocore's Stubber."""

from __future__ import annotations

import base64
import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from botocore.stub import Stubber

from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.s3 import S3, Stored
from imagepipe.cloud.session import Access, Session
from imagepipe.errors import CloudError
from tests.account import Account
from tests.local.aws.harness import KEY_ID, SECRET

BUCKET = "bundles"
CONTENT = b"a part of a bundle"
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def s3(account: Account) -> S3:
    account.s3.make_bucket(BUCKET)
    return account.s3


def _elsewhere(account: Account, region: str = "eu-west-1") -> S3:
    made = account.regions[region].s3
    made.make_bucket(f"{BUCKET}-{region}")
    return made


def _send(url: str, content: bytes, headers: Mapping[str, str], *, host: str | None = None) -> int:
    """The status of a PUT, as the agent on an instance sends it."""
    more = {"Host": host} if host else {}
    request = urllib.request.Request(url, data=content, method="PUT", headers={**headers, **more})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _readers(account: Account, key: str, bucket: str = BUCKET) -> list[str]:
    grants = account.cloud.client("s3").get_object_acl(Bucket=bucket, Key=key)["Grants"]
    return [grant["Permission"] for grant in grants]


def test_what_was_put_is_read_and_ec2_may_read_it_too(s3: S3, account: Account) -> None:
    s3.put(BUCKET, "a/b c+ü", CONTENT)
    assert s3.stored(BUCKET, "a/b c+ü") == Stored(len(CONTENT), MD5)
    assert s3.read(BUCKET, "a/b c+ü", limit_bytes=len(CONTENT)) == CONTENT
    assert sorted(_readers(account, "a/b c+ü")) == ["FULL_CONTROL", "READ"]


def test_what_is_not_there_is_none_or_an_error(s3: S3) -> None:
    assert s3.stored(BUCKET, "none") is None
    assert s3.stored("no-such-bucket", "none") is None
    with pytest.raises(CloudError, match=f"reading {BUCKET}/none in us-east-1: .*NoSuchKey"):
        s3.read(BUCKET, "none", limit_bytes=10)


def test_what_is_larger_than_expected_is_not_read(s3: S3) -> None:
    s3.put(BUCKET, "k", CONTENT)
    with pytest.raises(CloudError, match="it has 18 bytes, but at most 17 were expected"):
        s3.read(BUCKET, "k", limit_bytes=17)


def test_a_presigned_url_puts_the_one_object_that_it_was_made_for(s3: S3, account: Account) -> None:
    signed = s3.presigned_put(BUCKET, "t/image.part.00", md5=MD5)
    assert signed.url not in repr(signed)
    assert _send(signed.url, CONTENT, signed.headers) == 200
    assert s3.stored(BUCKET, "t/image.part.00") == Stored(len(CONTENT), MD5)
    assert sorted(_readers(account, "t/image.part.00")) == ["FULL_CONTROL", "READ"]


OTHER_MD5 = base64.b64encode(hashlib.md5(b"other").digest()).decode()


@pytest.mark.parametrize(
    ("content", "alter", "headers", "status"),
    [
        (b"other", lambda url: url, {}, 400),
        (b"other", lambda url: url, {"Content-MD5": OTHER_MD5}, 403),
        (CONTENT, lambda url: url, {"x-amz-acl": "public-read"}, 403),
        (CONTENT, lambda url: url, {"x-amz-acl": None}, 403),
        (CONTENT, lambda url: url, {"x-amz-meta-more": "1"}, 403),
        (CONTENT, lambda url: url.replace("part.00", "part.01"), {}, 403),
        (CONTENT, lambda url: url.replace("Expires=900", "Expires=901"), {}, 403),
    ],
    ids=["bytes", "bytes and their digest", "ACL", "no ACL", "a header more", "key", "expiry"],
)
def test_a_presigned_url_puts_nothing_else(
    s3: S3, content: bytes, alter: Callable[[str], str], headers: Mapping[str, str | None], status: int
) -> None:
    signed = s3.presigned_put(BUCKET, "t/image.part.00", md5=MD5)
    changed = {**signed.headers, **headers}
    sent = {name: value for name, value in changed.items() if value is not None}
    assert _send(alter(signed.url), content, sent) == status
    assert s3.keys(BUCKET, "t/") == []


def test_a_presigned_url_ends(s3: S3) -> None:
    signed = s3.presigned_put(BUCKET, "k", md5=MD5, seconds=0)
    assert _send(signed.url, CONTENT, signed.headers) == 403


@pytest.mark.parametrize(
    ("region", "bucket", "start"),
    [
        ("us-east-1", "web", "https://web.s3.amazonaws.com/k?"),
        ("eu-west-1", "web", "https://web.s3.eu-west-1.amazonaws.com/k?"),
        ("af-south-1", "web", "https://web.s3.af-south-1.amazonaws.com/k?"),
        ("eu-west-1", "my.web", "https://s3.eu-west-1.amazonaws.com/my.web/k?"),
        ("cn-north-1", "web", "https://web.s3.cn-north-1.amazonaws.com.cn/k?"),
    ],
)
def test_a_url_of_aws_names_the_buckets_own_region(
    region: str, bucket: str, start: str, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint of no region redirects for hours after a bucket was made; an agent would not follow."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    s3 = S3(Session(Access(region=region)), region, account.clock)
    assert s3.presigned_put(bucket, "k", md5=MD5).url.startswith(start)


def test_a_url_names_the_endpoint_that_instances_reach(s3: S3, account: Account) -> None:
    here = account.cloud.endpoint
    there = here.replace("127.0.0.1", "169.254.169.254")
    access = Access(
        endpoint_url=here,
        region="us-east-1",
        access_key_id=KEY_ID,
        secret_access_key=SECRET,
        instance_endpoint_url=there,
    )
    signed = Regions(Session(access), account.clock)["us-east-1"].s3.presigned_put(BUCKET, "k", md5=MD5)
    assert signed.url.startswith(f"{there}/{BUCKET}/k?")
    # From here, an instance's request is one to loopback with the name by which it knows the host.
    reached = signed.url.replace(there, here)
    assert _send(reached, CONTENT, signed.headers, host=there.removeprefix("http://")) == 200
    assert _send(reached, CONTENT, signed.headers) == 403, "the host is signed"


def test_a_copy_comes_from_any_region_and_ec2_may_read_it(s3: S3, account: Account) -> None:
    there = _elsewhere(account)
    s3.put(BUCKET, "a/part", CONTENT)
    there.copy(BUCKET, "a/part", "bundles-eu-west-1", "b/part")
    assert there.stored("bundles-eu-west-1", "b/part") == Stored(len(CONTENT), MD5)
    readers = account.cloud.client("s3", "eu-west-1").get_object_acl(Bucket="bundles-eu-west-1", Key="b/part")
    assert sorted(grant["Permission"] for grant in readers["Grants"]) == ["FULL_CONTROL", "READ"]


def test_all_keys_are_listed_and_deleted_however_many_pages_they_fill(s3: S3) -> None:
    s3._client.meta.events.register("before-parameter-build.s3.ListObjectsV2", _small_pages)
    for number in range(7):
        s3.put(BUCKET, f"t/{number}", b"x")
    s3.put(BUCKET, "tt", b"another's")
    listed = s3.keys(BUCKET, "t/")
    assert listed == [f"t/{number}" for number in range(7)]
    s3.delete(BUCKET, listed)
    assert s3.keys(BUCKET, "") == ["tt"]


def _small_pages(params: dict[str, Any], **_: object) -> None:
    params["MaxKeys"] = 3


def test_deletes_go_in_thousands_and_what_is_left_is_said_at_the_end() -> None:
    s3 = _stubbed()
    keys = [f"k{number}" for number in range(1001)]
    with Stubber(s3._client) as stub:
        for chunk, errors in ((keys[:1000], ["k3", "k4", "k5", "k6"]), (keys[1000:], [])):
            denied = [{"Key": key, "Code": "AccessDenied", "Message": "Access Denied"} for key in errors]
            asked = {"Bucket": BUCKET, "Delete": {"Objects": [{"Key": key} for key in chunk], "Quiet": True}}
            stub.add_response("delete_objects", {"Errors": denied}, asked)
        with pytest.raises(CloudError, match=r"left k3, k4, k5 and 1 more: Access Denied \(AccessDenied\)") as failed:
            s3.delete(BUCKET, keys)
        stub.assert_no_pending_responses()
    assert failed.value.iam_action == "s3:DeleteObject"


def test_gone_already_is_success(s3: S3) -> None:
    s3.delete(BUCKET, ["none"])
    s3.delete("no-such-bucket", ["none"])
    s3.delete(BUCKET, [])


def test_a_bucket_is_made_once_with_acls_enabled(s3: S3, account: Account) -> None:
    assert not s3.has_bucket("another")
    there = _elsewhere(account)
    there.make_bucket("bundles-eu-west-1")
    assert s3.has_bucket("bundles-eu-west-1"), "in whatever region"
    found = account.cloud.client("s3", "eu-west-1").get_bucket_ownership_controls(Bucket="bundles-eu-west-1")
    assert found["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerPreferred"}]


def test_a_bucket_that_will_do_is_left_as_it_was(s3: S3) -> None:
    s3.check_bucket(BUCKET, "web/token")
    assert s3.keys(BUCKET, "") == []


def _enforce(s3: S3) -> None:
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3._client.put_bucket_ownership_controls(Bucket=BUCKET, OwnershipControls=rules)


def _encrypt(s3: S3) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    s3._client.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})


@pytest.mark.parametrize(
    ("harm", "message", "hint"),
    [
        (_enforce, "has ACLs disabled", "aws s3api put-bucket-ownership-controls --bucket bundles --region us-east-1"),
        (_encrypt, "encrypts its objects with aws:kms", "SSE-S3"),
    ],
    ids=["ACLs disabled", "KMS"],
)
def test_a_bucket_that_ec2_could_not_read_from_is_refused(
    s3: S3, harm: Callable[[S3], None], message: str, hint: str
) -> None:
    harm(s3)
    with pytest.raises(CloudError, match=message) as failed:
        s3.check_bucket(BUCKET, "t")
    assert failed.value.hint is not None
    assert hint in failed.value.hint


def test_acls_that_were_disabled_unseen_are_told_by_the_probe(s3: S3, account: Account) -> None:
    _enforce(s3)
    account.fault("refuse", "s3:GetBucketOwnershipControls", code="AccessDenied", status=403)
    with pytest.raises(CloudError, match=r"putting bundles/t/probe .* \(AccessControlListNotSupported\)") as failed:
        s3.check_bucket(BUCKET, "t")
    assert failed.value.hint is not None
    assert "BucketOwnerPreferred" in failed.value.hint


def test_a_setting_that_is_not_for_us_to_see_is_no_problem(s3: S3, account: Account) -> None:
    for operation in ("GetBucketOwnershipControls", "GetBucketEncryption"):
        account.fault("refuse", f"s3:{operation}", code="AccessDenied", status=403)
    s3.check_bucket(BUCKET, "t")


def test_a_bucket_that_there_is_not_comes_with_the_command_that_makes_it(account: Account) -> None:
    with pytest.raises(CloudError, match="bucket none does not exist") as failed:
        account.regions["eu-west-1"].s3.check_bucket("none", "t")
    assert failed.value.hint == (
        "aws s3api create-bucket --bucket none --region eu-west-1 --object-ownership BucketOwnerPreferred"
        " --create-bucket-configuration LocationConstraint=eu-west-1"
    )


def test_a_bucket_of_another_region_is_named_with_both(s3: S3, account: Account) -> None:
    _elsewhere(account)
    with pytest.raises(CloudError, match="bucket bundles-eu-west-1 is in eu-west-1, but the image will be in us-east"):
        s3.check_bucket("bundles-eu-west-1", "t")


def test_a_bucket_of_another_region_is_said_where_it_cannot_be_followed(s3: S3) -> None:
    with Stubber(s3._client) as stub:
        meta = {"HTTPHeaders": {"x-amz-bucket-region": "eu-west-1"}}
        stub.add_client_error("put_object", "PermanentRedirect", "elsewhere", 301, response_meta=meta)
        with pytest.raises(CloudError, match=r"the bucket is in eu-west-1 \(PermanentRedirect\)"):
            s3.put("bundles-eu-west-1", "k", CONTENT)


@pytest.mark.parametrize(
    ("operation", "action", "call"),
    [
        ("PutObject", "s3:PutObject", lambda s3: s3.put(BUCKET, "k", b"")),
        ("HeadObject", "s3:GetObject", lambda s3: s3.stored(BUCKET, "k")),
        ("GetObject", "s3:GetObject", lambda s3: s3.read(BUCKET, "k", limit_bytes=9)),
        ("CopyObject", "s3:PutObject", lambda s3: s3.copy(BUCKET, "k", BUCKET, "l")),
        ("ListObjectsV2", "s3:ListBucket", lambda s3: s3.keys(BUCKET, "")),
        ("DeleteObjects", "s3:DeleteObject", lambda s3: s3.delete(BUCKET, ["k"])),
        ("HeadBucket", "s3:ListBucket", lambda s3: s3.has_bucket(BUCKET)),
        ("CreateBucket", "s3:CreateBucket", lambda s3: s3.make_bucket("other")),
    ],
)
def test_a_permission_that_is_missing_is_named_as_iam_names_it(
    s3: S3, account: Account, operation: str, action: str, call: Callable[[S3], object]
) -> None:
    s3.put(BUCKET, "k", b"")
    account.fault("refuse", f"s3:{operation}", code="AccessDenied", message="Access Denied", status=403)
    with pytest.raises(CloudError, match=f"{action} is missing") as failed:
        call(s3)
    assert failed.value.iam_action == action


def test_a_bucket_that_there_is_not_is_an_error_to_put_and_to_list(s3: S3) -> None:
    for call in (lambda: s3.put("none", "k", b""), lambda: s3.keys("none", "")):
        with pytest.raises(CloudError) as failed:
            call()
        assert failed.value.code == "NoSuchBucket"
        assert failed.value.hint is not None


def test_throttling_is_got_over_and_said_where_it_goes_on(s3: S3, account: Account) -> None:
    account.fault("refuse", "s3:PutObject", code="SlowDown", status=503, where={"Key": "t/*"}, times=2)
    s3.put(BUCKET, "t/k", CONTENT)
    assert s3.stored(BUCKET, "t/k") is not None
    with Stubber(s3._client) as stub:
        stub.add_client_error("put_object", "SlowDown", "Please reduce your request rate.", 503)
        with pytest.raises(CloudError) as failed:
            s3.put(BUCKET, "t/k", CONTENT)
    assert failed.value.code == "SlowDown"
    assert failed.value.hint is not None
    assert "fewer requests" in failed.value.hint


@pytest.mark.parametrize("effect", ["cut-before", "cut-after"])
def test_a_put_whose_answer_is_lost_is_put_again(s3: S3, account: Account, effect: str) -> None:
    account.fault(effect, "s3:PutObject")
    s3.put(BUCKET, "k", CONTENT)
    assert s3.stored(BUCKET, "k") == Stored(len(CONTENT), MD5)


def test_a_build_without_bundles_makes_no_client_of_s3(account: Account) -> None:
    _ = account.ec2
    assert not [key for key in account.regions.session._clients if key[0] == "s3"]
    assert account.ec2.s3 is account.ec2.s3
    assert len([key for key in account.regions.session._clients if key[0] == "s3"]) == 1


def _stubbed() -> S3:
    session = Session(Access(endpoint_url="http://127.0.0.1:9", access_key_id="a", secret_access_key="b"))
    return S3(session, "us-east-1", SystemClock())
