"""HTTP requests of every shape, and the answers to them."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, NoReturn

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from imagepipe.local.aws.ec2.actions import OWN
from tests.local.aws.harness import KEY_ID, SECRET, Cloud, refused


def ask(cloud: Cloud, method: str, path: str, body: bytes = b"", /, **headers: str) -> tuple[int, str, bytes]:
    """One request as it stands; gives status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    finally:
        connection.close()


def signed(cloud: Cloud, service: str, method: str, path: str, body: bytes = b"", /, **headers: str) -> dict[str, str]:
    request = AWSRequest(method=method, url=f"{cloud.endpoint}{path}", data=body, headers=headers)
    SigV4Auth(Credentials(KEY_ID, SECRET), service, "us-east-1").add_auth(request)
    return {**headers, **dict(request.headers.items())}


def test_the_health_check_needs_no_signature(cloud: Cloud) -> None:
    assert ask(cloud, "GET", "/_imagepipe/healthz")[::2] == (200, b"ok\n")


def test_anything_else_without_a_signature_is_refused(cloud: Cloud) -> None:
    for path in (
        "/",
        "/bucket/key",
        "/moto-api/data.json",
        "/moto-api/reset",
        "/_imagepipe/clock",
        "/latest/meta-data/",
    ):
        status, _, body = ask(cloud, "GET", path)
        assert (status, b"MissingAuthenticationToken" in body) == (403, True), path


@pytest.mark.parametrize("header", [{"Origin": "https://example.org"}, {"Host": "rebound.example.org"}])
def test_a_web_page_is_refused_even_with_a_good_signature(cloud: Cloud, header: dict[str, str]) -> None:
    body = b"Action=DescribeRegions&Version=2016-11-15"
    headers = signed(cloud, "ec2", "POST", "/", body, **header)
    status, _, answer = ask(cloud, "POST", "/", body, **headers)
    assert (status, b"AccessDenied" in answer) == (403, True)


def test_no_answer_invites_web_pages(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles")
    headers = s3.list_objects_v2(Bucket="bundles")["ResponseMetadata"]["HTTPHeaders"]
    assert not [name for name in headers if name.startswith("access-control")]


OWN_OF_MOTO = (
    "/moto-api/reset",
    "/%6Doto-api/reset",
    "/moto%2Dapi/reset",
    "//moto-api/reset",
    "/moto-api/../moto-api/reset",
    "/./moto-api/reset",
    "/moto-api%2Freset",
    "/latest/meta-data/iam/security-credentials/x",
    "/latest/api/token",
    "/v20180820/accesspoint/x",
    "/favicon.ico",
)
"""Paths that moto's dispatcher takes away from the service that was asked, and ways to write the worst of them."""


@pytest.mark.parametrize("path", OWN_OF_MOTO)
@pytest.mark.parametrize("service", ["s3", "iam", "ec2"])
def test_no_path_leads_to_motos_own_interface(cloud: Cloud, service: str, path: str) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles")
    s3.put_object(Bucket="bundles", Key="part", Body=b"bytes")
    cloud.client("iam").create_user(UserName="builder")
    body = b"Action=ListUsers&Version=2010-05-08" if service == "iam" else b""
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    for host in ({}, {"Host": f"s3-control.localhost:{cloud.port}"}):
        status, _, answer = ask(cloud, "POST", path, body, **signed(cloud, service, "POST", path, body, **kind, **host))
        assert status != 500, answer
        assert b"status" not in answer, "that is what moto answers after a reset"
    s3.put_object(Bucket="bundles", Key="another", Body=b"more")
    cloud.restart()
    s3 = cloud.client("s3")
    assert s3.get_object(Bucket="bundles", Key="part")["Body"].read() == b"bytes"
    assert [user["UserName"] for user in cloud.client("iam").list_users()["Users"]] == ["builder"]


@pytest.mark.parametrize(("bucket", "key"), [("moto-api", "reset"), ("latest", "meta-data/x"), ("v20180820", "a/b")])
def test_a_bucket_can_have_the_name_of_a_path_of_motos(cloud: Cloud, bucket: str, key: str) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key=key, Body=b"bytes")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"bytes"


def test_the_account_in_a_header_of_motos_is_not_believed(cloud: Cloud) -> None:
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    headers = signed(cloud, "sts", "POST", "/", body, **kind, **{"x-moto-account-id": "999999999999"})
    status, _, answer = ask(cloud, "POST", "/", body, **headers)
    assert (status, b"<Account>000000000000</Account>" in answer) == (200, True)


def test_an_unknown_action_is_an_error_that_clients_can_read(cloud: Cloud) -> None:
    body = b"Action=MakeCoffee&Version=2016-11-15"
    status, kind, answer = ask(cloud, "POST", "/", body, **signed(cloud, "ec2", "POST", "/", body))
    assert (status, kind) == (400, "text/xml;charset=UTF-8")
    assert b"<Code>InvalidAction</Code>" in answer


def test_an_action_that_the_cloud_lacks_is_refused_by_name(ec2: Any) -> None:
    with refused("UnsupportedOperation"):
        ec2.create_transit_gateway()
    with refused("UnsupportedOperation"):
        ec2.create_traffic_mirror_filter()


def test_an_unknown_parameter_is_refused(cloud: Cloud) -> None:
    body = b"Action=DescribeImages&Version=2016-11-15&Colour=red"
    status, _, answer = ask(cloud, "POST", "/", body, **signed(cloud, "ec2", "POST", "/", body))
    assert (status, b"<Code>UnknownParameter</Code>" in answer) == (400, True)


def test_a_value_that_is_not_a_number_is_refused(cloud: Cloud) -> None:
    body = b"Action=DescribeImages&Version=2016-11-15&MaxResults=many"
    status, _, answer = ask(cloud, "POST", "/", body, **signed(cloud, "ec2", "POST", "/", body))
    assert (status, b"<Code>InvalidParameterValue</Code>" in answer) == (400, True)


def test_a_service_that_the_cloud_lacks_is_refused_by_name(cloud: Cloud) -> None:
    with refused("UnsupportedOperation"):
        cloud.client("sqs").list_queues()


def test_an_unknown_region_is_refused(cloud: Cloud) -> None:
    with refused("AuthFailure"):
        cloud.client(region="us-middle-1").describe_images()


def test_errors_of_json_services_are_json(cloud: Cloud) -> None:
    client = boto3.client(
        "ssm",
        region_name="us-east-1",
        endpoint_url=cloud.endpoint,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key="wrong",
    )
    with refused("SignatureDoesNotMatch"):
        client.get_parameter(Name="/x")


def test_an_error_inside_is_xml_and_not_html(cloud: Cloud, ec2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> NoReturn:
        raise RuntimeError("a bug")

    monkeypatch.setitem(OWN, "DescribeImages", broken)
    with refused("InternalError"):
        ec2.describe_images()


def presigning(cloud: Cloud) -> Any:
    return boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=cloud.endpoint,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=Config(signature_version="s3v4"),
    )


def test_a_presigned_put_as_pythons_own_library_sends_it_keeps_the_bytes(cloud: Cloud) -> None:
    """Stock moto fails this: it takes the object for a form, and keeps an empty one."""
    s3 = presigning(cloud)
    s3.create_bucket(Bucket="bundles")
    url = s3.generate_presigned_url("put_object", Params={"Bucket": "bundles", "Key": "part"})
    request = urllib.request.Request(url, data=b"a=1&b=2" * 1000, method="PUT")
    assert request.get_header("Content-type") is None  # urllib adds its own when it sends
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    assert s3.get_object(Bucket="bundles", Key="part")["Body"].read() == b"a=1&b=2" * 1000


def test_a_presigned_get_gives_the_object_and_another_key_is_refused(cloud: Cloud) -> None:
    s3 = presigning(cloud)
    s3.create_bucket(Bucket="bundles")
    s3.put_object(Bucket="bundles", Key="part", Body=b"bytes")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "bundles", "Key": "part"})
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"bytes"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("/part?", "/other?"), timeout=10)
    assert caught.value.code == 403
    caught.value.close()


def test_buckets_by_host_name_work_too(cloud: Cloud) -> None:
    s3 = presigning(cloud)
    s3.create_bucket(Bucket="bundles")
    s3.put_object(Bucket="bundles", Key="part", Body=b"bytes")
    headers = signed(cloud, "s3", "GET", "/part", b"", Host=f"bundles.localhost:{cloud.port}")
    headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
    request = AWSRequest(method="GET", url=f"http://bundles.localhost:{cloud.port}/part")
    from botocore.auth import S3SigV4Auth

    S3SigV4Auth(Credentials(KEY_ID, SECRET), "s3", "us-east-1").add_auth(request)
    sent = {**dict(request.headers.items()), "Host": f"bundles.localhost:{cloud.port}"}
    assert ask(cloud, "GET", "/part", b"", **sent)[::2] == (200, b"bytes")


def test_head_object_has_the_size(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles")
    s3.put_object(Bucket="bundles", Key="part", Body=b"x" * 12345)
    assert s3.head_object(Bucket="bundles", Key="part")["ContentLength"] == 12345
    with refused("404"):
        s3.head_object(Bucket="bundles", Key="none")


def test_the_clock_is_set_forward_by_authorized_callers(cloud: Cloud) -> None:
    body = json.dumps({"advance": 3600}).encode()
    headers = signed(cloud, "imagepipe", "POST", "/_imagepipe/clock", body)
    status, _, answer = ask(cloud, "POST", "/_imagepipe/clock", body, **headers)
    assert status == 200
    first = json.loads(answer)["now"]
    cloud.restart()
    headers = signed(cloud, "imagepipe", "GET", "/_imagepipe/clock")
    assert json.loads(ask(cloud, "GET", "/_imagepipe/clock", b"", **headers)[2])["now"] >= first


def test_moto_has_every_action_that_is_passed_to_it() -> None:
    from moto.core.utils import camelcase_to_underscores
    from moto.ec2.responses import EC2Response

    from imagepipe.local.aws.ec2.actions import MOTO, OWN
    from imagepipe.local.aws.protocol import query

    assert not [action for action in MOTO if not hasattr(EC2Response, camelcase_to_underscores(action))]
    assert not [action for action in {*MOTO, *OWN} if not query.is_action(action)]
    assert not MOTO & OWN.keys()
