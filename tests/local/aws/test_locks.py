"""Who waits for whom: nobody for a service that was not asked, and no two for each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.local.aws.harness import Cloud, base_image, launch

SECONDS = 30
CALLS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "DescribeKeyPairs": ("ec2", lambda ec2: ec2.describe_key_pairs()),
    "CreateKeyPair": ("ec2", lambda ec2: ec2.create_key_pair(KeyName="k")),
    "RunInstances": ("ec2", lambda ec2: launch(ec2)),
    "DescribeImages": ("ec2", lambda ec2: base_image(ec2)),
    "DescribeVpcs": ("ec2", lambda ec2: ec2.describe_vpcs()),
    "CreateVpc": ("ec2", lambda ec2: ec2.create_vpc(CidrBlock="10.9.0.0/16")),
    "PutParameter": ("ssm", lambda ssm: ssm.put_parameter(Name="/a", Value="1", Type="String")),
    "GetCallerIdentity": ("sts", lambda sts: sts.get_caller_identity()),
    "CreateUser": ("iam", lambda iam: iam.create_user(UserName="builder")),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_a_call_does_not_wait_while_s3_is_busy(cloud: Cloud, name: str) -> None:
    service, call = CALLS[name]
    client = cloud.client(service, read_timeout=SECONDS)
    with cloud.gateway.backend.moto.lock("s3"):
        call(client)


def test_s3_does_not_wait_while_records_change(cloud: Cloud) -> None:
    s3 = cloud.client("s3", read_timeout=SECONDS)
    with cloud.gateway.backend.database.change():
        s3.create_bucket(Bucket="bundles")
        s3.put_object(Bucket="bundles", Key="k", Body=b"1")


def test_s3_does_not_wait_while_a_network_changes(cloud: Cloud) -> None:
    s3 = cloud.client("s3", read_timeout=SECONDS)
    with cloud.gateway.backend.moto.lock("ec2"):
        s3.create_bucket(Bucket="bundles")


def test_a_change_that_waits_for_s3_and_a_write_to_s3_do_not_wait_for_each_other(cloud: Cloud) -> None:
    """As registering an instance-store image beside a PutObject: the one reads S3 within a change of records."""
    moto, database = cloud.gateway.backend.moto, cloud.gateway.backend.database
    both = threading.Barrier(2, timeout=SECONDS)

    def register() -> None:
        with database.change():
            both.wait()
            with moto.lock("s3"):
                pass

    def put() -> None:
        with moto.lock("s3"):
            both.wait()
            moto.save("s3", "000000000000", "aws")
            database.write_blobs({"blob": b"1"})

    cloud.client("s3").create_bucket(Bucket="bundles")
    with ThreadPoolExecutor(2) as sides:
        for side in [sides.submit(register), sides.submit(put)]:
            side.result(SECONDS)


def test_tagging_of_several_services_waits_for_them_and_is_kept(cloud: Cloud) -> None:
    cloud.client("s3").create_bucket(Bucket="bundles")
    arn = "arn:aws:s3:::bundles"
    tagging = cloud.client("resourcegroupstaggingapi")
    failed = tagging.tag_resources(ResourceARNList=[arn], Tags={"team": "web"})["FailedResourcesMap"]
    assert not failed
    cloud.restart()
    found = cloud.client("resourcegroupstaggingapi").get_resources()["ResourceTagMappingList"]
    assert [each["Tags"] for each in found if each["ResourceARN"] == arn] == [[{"Key": "team", "Value": "web"}]]
