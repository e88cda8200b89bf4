"""What moto keeps: written as it changes, read again by the next process, and by nobody who could be harmed by it."""

from __future__ import annotations

import datetime
import io
import json
import os
import pathlib
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.backends import get_backend

from imagepipe.errors import LocalCloudError
from imagepipe.local.aws.moto import pickling
from imagepipe.local.aws.moto.pickling import Unpickler
from tests.local.aws.harness import ACCOUNT, Cloud, refused

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"}],
}
ALLOWS = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
TAGS = [{"Key": "team", "Value": "web"}]


def use_iam(cloud: Cloud) -> Callable[[Cloud], object]:
    iam = cloud.client("iam")
    iam.create_user(UserName="builder", Tags=TAGS)
    iam.create_access_key(UserName="builder")
    iam.create_group(GroupName="builders")
    iam.add_user_to_group(GroupName="builders", UserName="builder")
    iam.create_role(RoleName="web", AssumeRolePolicyDocument=json.dumps(TRUST), Tags=TAGS)
    arn = iam.create_policy(PolicyName="read", PolicyDocument=json.dumps(ALLOWS))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="web", PolicyArn=arn)
    iam.put_role_policy(RoleName="web", PolicyName="inline", PolicyDocument=json.dumps(ALLOWS))
    iam.create_instance_profile(InstanceProfileName="web")
    iam.add_role_to_instance_profile(InstanceProfileName="web", RoleName="web")
    cloud.client("sts").assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/web", RoleSessionName="session")
    return lambda cloud: cloud.client("iam").get_account_authorization_details()["RoleDetailList"]


def use_kms(cloud: Cloud) -> Callable[[Cloud], object]:
    kms = cloud.client("kms")
    for spec in ("SYMMETRIC_DEFAULT", "RSA_2048", "ECC_NIST_P256"):
        usage = "ENCRYPT_DECRYPT" if spec == "SYMMETRIC_DEFAULT" else "SIGN_VERIFY"
        key = kms.create_key(KeySpec=spec, KeyUsage=usage, Tags=[{"TagKey": "team", "TagValue": "web"}])["KeyMetadata"]
        kms.create_alias(AliasName=f"alias/{spec}", TargetKeyId=key["KeyId"])
        kms.create_grant(KeyId=key["KeyId"], GranteePrincipal=f"arn:aws:iam::{ACCOUNT}:root", Operations=["Decrypt"])
    kms.schedule_key_deletion(KeyId=key["KeyId"])
    return lambda cloud: cloud.client("kms").list_aliases()["Aliases"]


def use_parameters(cloud: Cloud) -> Callable[[Cloud], object]:
    ssm, secrets = cloud.client("ssm"), cloud.client("secretsmanager")
    ssm.put_parameter(Name="/a", Value="1", Type="String", Tags=TAGS)
    ssm.put_parameter(Name="/a", Value="2", Type="String", Overwrite=True)
    ssm.put_parameter(Name="/s", Value="secret", Type="SecureString")
    secrets.create_secret(Name="token", SecretString="secret", Tags=TAGS)
    secrets.put_secret_value(SecretId="token", SecretString="another")
    secrets.delete_secret(SecretId="token", RecoveryWindowInDays=7)
    return lambda cloud: cloud.client("ssm").get_parameter_history(Name="/a")["Parameters"]


def use_networks(cloud: Cloud) -> Callable[[Cloud], object]:
    ec2 = cloud.client()
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(VpcId=vpc, InternetGatewayId=gateway)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    acl = ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"]
    entry = {"NetworkAclId": acl, "RuleNumber": 9, "Protocol": "-1", "RuleAction": "allow", "Egress": True}
    ec2.create_network_acl_entry(**entry, CidrBlock="0.0.0.0/0")
    ec2.create_dhcp_options(DhcpConfigurations=[{"Key": "domain-name", "Values": ["example.org"]}])
    ec2.create_tags(Resources=[vpc, subnet], Tags=TAGS)
    return lambda cloud: [
        sorted(cloud.client().describe_vpcs()["Vpcs"], key=str),
        sorted(cloud.client().describe_route_tables()["RouteTables"], key=str),
        cloud.client().describe_network_acls()["NetworkAcls"],
    ]


def use_buckets(cloud: Cloud) -> Callable[[Cloud], object]:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles", ObjectLockEnabledForBucket=True, ObjectOwnership="ObjectWriter")
    s3.put_bucket_tagging(Bucket="bundles", Tagging={"TagSet": TAGS})
    s3.delete_public_access_block(Bucket="bundles")
    s3.put_bucket_acl(Bucket="bundles", ACL="public-read")
    s3.put_bucket_policy(Bucket="bundles", Policy=json.dumps({**ALLOWS, "Statement": []}))
    s3.put_bucket_lifecycle_configuration(
        Bucket="bundles",
        LifecycleConfiguration={"Rules": [{"ID": "r", "Status": "Enabled", "Prefix": "", "Expiration": {"Days": 9}}]},
    )
    rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}
    s3.put_bucket_cors(Bucket="bundles", CORSConfiguration={"CORSRules": [rule]})
    s3.put_public_access_block(Bucket="bundles", PublicAccessBlockConfiguration={"BlockPublicAcls": True})
    sse = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    s3.put_bucket_encryption(Bucket="bundles", ServerSideEncryptionConfiguration=sse)
    until = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    s3.put_object(
        Bucket="bundles",
        Key="locked",
        Body=b"1",
        Metadata={"dash-ed": "y"},
        Tagging="team=web",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=until,
        ChecksumAlgorithm="SHA256",
    )
    s3.put_object(Bucket="bundles", Key="cold", Body=b"1", StorageClass="GLACIER")
    s3.restore_object(Bucket="bundles", Key="cold", RestoreRequest={"Days": 1})
    s3.put_object(Bucket="bundles", Key="gone", Body=b"1")
    s3.delete_object(Bucket="bundles", Key="gone")
    s3.create_multipart_upload(Bucket="bundles", Key="large", Metadata={"a": "b"}, Tagging="team=web")

    def told(cloud: Cloud) -> object:
        s3 = cloud.client("s3")
        found = [
            s3.get_bucket_lifecycle_configuration(Bucket="bundles")["Rules"],
            s3.get_bucket_tagging(Bucket="bundles")["TagSet"],
            s3.list_object_versions(Bucket="bundles"),
            s3.get_object_tagging(Bucket="bundles", Key="locked")["TagSet"],
            s3.list_multipart_uploads(Bucket="bundles")["Uploads"],
            s3.head_object(Bucket="bundles", Key="locked", ChecksumMode="ENABLED"),
        ]
        for each in found:
            if isinstance(each, dict):
                del each["ResponseMetadata"]
        return found

    return told


USES = (use_iam, use_kms, use_parameters, use_networks, use_buckets)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__.removeprefix("use_"))
def test_the_state_of_a_service_is_read_by_the_next_process(
    cloud: Cloud, use: Callable[[Cloud], Callable[[Cloud], object]]
) -> None:
    told = use(cloud)
    before = told(cloud)
    assert before
    for _ in range(2):
        cloud.restart()
        assert told(cloud) == before


class _Harm:
    """Runs a command where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def harms(canary: Path) -> dict[str, bytes]:
    """Pickles that do harm, by what they go through."""
    touch = f"touch {canary}".encode()
    return {
        "os": pickle.dumps(_Harm(canary)),
        "a module of moto's that imports os": b"cmoto.core.utils\nos.system\n(V" + touch + b"\ntR.",
        "eval": b"cbuiltins\neval\n(V__import__('os').mknod('" + str(canary).encode() + b"')\ntR.",
        "getattr": b"cbuiltins\ngetattr\n(cbuiltins\nstr\nV__subclasses__\ntR.",
        "a function of moto's": b"cmoto.core.utils\nget_service_model\n(Vec2\ntR.",
        "a module of ours": b"cimagepipe.local.gateway.pickles\nos.system\n(V" + touch + b"\ntR.",
        "a dotted name": b"\x80\x04\x8c\x10moto.core.models\x8c\x0fre.sys.modules.x\x93.",
    }


@pytest.mark.parametrize("name", list(harms(Path())))
def test_a_pickle_of_somebody_else_runs_nothing(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    body = harms(canary)[name]
    with pytest.raises((pickle.UnpicklingError, AttributeError)):
        Unpickler(body, tmp_path).load()
    assert not canary.exists()


def test_our_own_functions_are_found(tmp_path: Path) -> None:
    body = f"c{pickling.__name__}\n_set_key\n.".encode()
    assert Unpickler(body, tmp_path).load() is pickling.OWN["_set_key"]


def test_the_pickles_of_the_test_do_harm_where_nobody_looks(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.load(io.BytesIO(harms(canary)["os"]))
    assert canary.exists()


def change_blob(root: Path, name: str, body: bytes | None) -> None:
    with sqlite3.connect(root / "state" / "gateway.sqlite") as db:
        if body is None:
            db.execute("DELETE FROM blob WHERE name = ?", (name,))
        else:
            db.execute("INSERT OR REPLACE INTO blob (name, body) VALUES (?, ?)", (name, body))
    db.close()


@pytest.mark.parametrize("name", ["iam/000000000000/aws", "s3/000000000000/aws", "s3-key/000000000000/aws/bundles/k"])
@pytest.mark.parametrize(
    "body",
    [
        b"cmoto.s3.models\nGoneInThisVersion\n.",
        b"cmoto.gone.models\nFakeKey\n.",
        b"",
        b"\x80\x04K\x01.",
        b"cos\nsystem\n(Vtrue\ntR.",
    ],
    ids=["class", "module", "empty", "another shape", "harm"],
)
def test_state_of_another_moto_is_refused_with_a_way_forward(
    cloud: Cloud, tmp_path: Path, name: str, body: bytes
) -> None:
    cloud.client("iam").create_user(UserName="builder")
    cloud.client("s3").create_bucket(Bucket="bundles")
    cloud.client("s3").put_object(Bucket="bundles", Key="k", Body=b"1")
    cloud.stop()
    kept = dict(sqlite3.connect(tmp_path / "state" / "gateway.sqlite").execute("SELECT name, body FROM blob"))
    change_blob(tmp_path, name, body)
    change_blob(tmp_path, "moto", b"5.1.7")
    with pytest.raises(LocalCloudError, match=r"written with moto 5\.1\.7, and this is moto 5\.\d") as caught:
        cloud.start()
    assert "pip install 'moto[ec2,s3,server]==5.1.7'" in str(caught.value.hint)
    assert f"mv {tmp_path} {tmp_path}.old" in str(caught.value.hint)
    assert len(list((tmp_path / "state" / "objects").iterdir())) == 1, "nothing is deleted"
    change_blob(tmp_path, name, kept[name])
    cloud.start()
    assert cloud.client("s3").get_object(Bucket="bundles", Key="k")["Body"].read() == b"1"


def test_state_that_this_moto_wrote_and_cannot_read_is_called_damaged(cloud: Cloud, tmp_path: Path) -> None:
    cloud.client("iam").create_user(UserName="builder")
    cloud.stop()
    change_blob(tmp_path, "iam/000000000000/aws", b"")
    with pytest.raises(LocalCloudError, match="it is damaged"):
        cloud.start()
    change_blob(tmp_path, "iam/000000000000/aws", None)
    cloud.start()


def forget_buckets() -> None:
    """What moto's reset does, or a bug."""
    backends: Any = get_backend("s3")
    backends[ACCOUNT]["aws"].reset()


def forget_objects() -> None:
    backends: Any = get_backend("s3")
    dict.clear(backends[ACCOUNT]["aws"].buckets["bundles"].keys)


WRITES: dict[str, Callable[[Any], object]] = {
    "PutObject": lambda s3: s3.put_object(Bucket="bundles", Key="part", Body=b"new", IfNoneMatch=""),
    "PutObjectTagging": lambda s3: s3.put_object_tagging(Bucket="bundles", Key="part", Tagging={"TagSet": TAGS}),
    "CreateBucket": lambda s3: s3.create_bucket(Bucket="another"),
    "PutBucketTagging": lambda s3: s3.put_bucket_tagging(Bucket="bundles", Tagging={"TagSet": TAGS}),
    "DeleteObject": lambda s3: s3.delete_object(Bucket="bundles", Key="other"),
    "DeleteBucket": lambda s3: s3.delete_bucket(Bucket="second"),
    "DeleteBucket of that one": lambda s3: s3.delete_bucket(Bucket="bundles"),
}


@pytest.mark.parametrize("forget", [forget_buckets, forget_objects])
@pytest.mark.parametrize("write", list(WRITES))
def test_a_write_after_moto_forgot_everything_deletes_nothing(
    cloud: Cloud, forget: Callable[[], None], write: str
) -> None:
    s3 = cloud.client("s3")
    for bucket in ("bundles", "second"):
        s3.create_bucket(Bucket=bucket)
    for key in ("part", "kept"):
        s3.put_object(Bucket="bundles", Key=key, Body=b"old")
    forget()
    with suppress(ClientError):  # which of these are refused is moto's business
        WRITES[write](s3)
    cloud.restart()
    s3 = cloud.client("s3")
    assert s3.get_object(Bucket="bundles", Key="kept")["Body"].read() == b"old"
    if write != "PutObject":
        assert s3.get_object(Bucket="bundles", Key="part")["Body"].read() == b"old"


def test_a_write_that_would_lose_a_bucket_is_refused_and_the_next_one_is_done(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles")
    s3.put_object(Bucket="bundles", Key="part", Body=b"old")
    forget_buckets()
    with refused("InternalError", match="would have lost data"):
        s3.create_bucket(Bucket="another")
    s3.create_bucket(Bucket="another")
    assert s3.get_object(Bucket="bundles", Key="part")["Body"].read() == b"old"


def test_state_that_the_next_process_could_not_read_is_not_written(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    iam.create_user(UserName="kept")
    backends: Any = get_backend("iam")
    backends[ACCOUNT]["aws"].users["odd"] = pathlib.PurePosixPath("/")  # no class of moto's, nor of those it uses
    with refused("InternalError", match="cannot keep this"):
        iam.create_user(UserName="another")
    for _ in range(2):
        assert [user["UserName"] for user in cloud.client("iam").list_users()["Users"]] == ["kept"]
        cloud.restart()


def test_a_write_to_s3_that_does_not_fit_on_the_disk_is_not_seen(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles")
    s3.put_object(Bucket="bundles", Key="k", Body=b"old")

    def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(cloud.gateway.backend.database, "write_blobs", full)
    writes: tuple[Callable[[], object], ...] = (
        lambda: s3.put_object(Bucket="bundles", Key="k", Body=b"new"),
        lambda: s3.delete_object(Bucket="bundles", Key="k"),
        lambda: s3.create_bucket(Bucket="another"),
    )
    for write in writes:
        with refused("InsufficientVolumeCapacity"):
            write()
    monkeypatch.undo()
    for _ in range(2):
        assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["bundles"]
        assert s3.get_object(Bucket="bundles", Key="k")["Body"].read() == b"old"
        assert len(list((cloud.root / "state" / "objects").iterdir())) == 1
        cloud.restart()
        s3 = cloud.client("s3")
