"""Bundles registered: only as they were sealed, and with what the source image was."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from imagepipe.bundle.manifest import read_manifest
from imagepipe.capture.instance_store.stages import RegisterBundle
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.stage import Ref
from imagepipe.errors import BundleError
from imagepipe.values import Bundle, BundlePart, Image, ImageText
from tests.account import Account
from tests.bundle.samples import CASES
from tests.local.aws import harness

BUCKET, FOLDER = "bundles", "p/r1-c1"
EUCA = CASES / "euca"


@pytest.fixture
def bundle(account: Account) -> Bundle:
    """One of the samples, in S3; made for another EC2, which registering is not to know."""
    account.s3.make_bucket(BUCKET)
    manifest = read_manifest((EUCA / "image.manifest.xml").read_bytes())
    parts = []
    for part in manifest.parts:
        content = (EUCA / part.filename).read_bytes()
        account.s3.put(BUCKET, f"{FOLDER}/{part.filename}", content)
        parts.append(BundlePart(part.filename, len(content), hashlib.md5(content).hexdigest()))
    account.s3.put(BUCKET, f"{FOLDER}/image.manifest.xml", (EUCA / "image.manifest.xml").read_bytes())
    return Bundle("us-east-1", BUCKET, FOLDER, "image", "x86_64", tuple(parts))


TEXT = {"us-east-1": ImageText("web-1", "a web server", {"team": "web"})}


def _register(account: Account, bundle: Bundle, **changes: Any) -> Image:
    source = account.ec2.images.by_id(harness.base_image(account.cloud.client()))
    mappings = ({"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},)
    stage = RegisterBundle(
        account.ec2, RunTags("r1", "web"), Ref("bundle"), Ref("source"), Ref("text"),
        imds_v2=True, **changes,
    )  # fmt: skip
    outputs = {"bundle": bundle, "source": replace(source, mappings=mappings), "text": TEXT}
    return stage.run(account.context(**outputs))


@pytest.mark.parametrize(
    ("key", "content", "words"),
    [
        ("image.part.01", b"another part", r"image\.part\.01 has 12 bytes and MD5 [0-9a-f]{32} now"),
        ("image.part.00", None, r"image\.part\.00 is gone"),
        ("image.manifest.xml", None, "the manifest is gone"),
    ],
    ids=["replaced", "deleted", "no manifest"],
)
def test_what_was_changed_after_it_was_sealed_is_not_registered(
    account: Account, bundle: Bundle, key: str, content: bytes | None, words: str
) -> None:
    if content is None:
        account.s3.delete(BUCKET, [f"{FOLDER}/{key}"])
    else:
        account.s3.put(BUCKET, f"{FOLDER}/{key}", content)
    with pytest.raises(BundleError, match=f"registering {BUCKET}/{FOLDER}/image.manifest.xml: {words}"):
        _register(account, bundle)
    assert account.ec2.images.own_named("web-1") == []
    assert [claim.kind for claim in account.journal.claims()] == []


def test_what_registerimage_is_told_is_of_the_source_and_of_the_spec(account: Account, bundle: Bundle) -> None:
    told: list[dict[str, Any]] = []
    client = account.ec2.images._creates.client
    client.meta.events.register("provide-client-params.ec2.RegisterImage", lambda params, **_: told.append(params))
    with pytest.raises(Exception, match="InvalidManifest"):  # the sample is for another EC2's key
        _register(account, bundle, virtual_names={"/dev/sdc": "ephemeral1"})
    [params] = told
    assert params["ImageLocation"] == bundle.location
    assert params["VirtualizationType"] == "hvm"
    assert params["Architecture"] == "x86_64"
    assert params["ImdsSupport"] == "v2.0"
    assert params["BlockDeviceMappings"] == [
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral1"},
    ]
    assert "RootDeviceName" not in params
    [specification] = params["TagSpecifications"]
    assert {"Key": "team", "Value": "web"} in specification["Tags"]
