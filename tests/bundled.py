"""A bundle in the local cloud's S3, of a few bytes and three parts, and the image that is registered from it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from imagepipe.bundle.certificates import load_certificate
from imagepipe.bundle.manifest import Label, Recipients, write_manifest
from imagepipe.bundle.pack import pack
from imagepipe.bundle.parts import Part, part_name
from imagepipe.cloud import tags
from imagepipe.values import Image
from tests.account import Account
from tests.bundle.samples import Memory, image_of, recipients
from tests.local.aws import harness

BUCKET = "bundles"
BYTES = b"a root".ljust(4096, b"\0") + bytes(1 << 20) + b"its end".ljust(4096, b"\0")
FILES = ("image.manifest.xml", "image.part.00", "image.part.01", "image.part.02")


def for_local_cloud(account: Account) -> Recipients:
    """The owner of the samples, and the EC2 of this cloud."""
    return Recipients(recipients().owner, load_certificate(account.cloud.gateway.backend.bundles.certificate))


def put(account: Account, folder: str = "web/t1", *, region: str = "us-east-1", bucket: str = BUCKET) -> str:
    """A bundle, in a bucket that is made where it is not there; the location of its manifest."""
    sink, both = Memory(), for_local_cloud(account)
    pack(image_of(BYTES), sink, label=Label("image", harness.ACCOUNT), recipients=both)
    [whole] = sink.files.values()
    third = -(-len(whole) // 3)
    pieces = {part_name("image", n, width=2): whole[n * third : (n + 1) * third] for n in range(3)}
    parts = [Part(n, name, hashlib.sha1(piece).hexdigest()) for n, (name, piece) in enumerate(pieces.items())]
    manifest = write_manifest(replace(sink.read(), parts=parts), both.owner.private_key)
    s3 = account.regions[region].s3
    s3.make_bucket(bucket)
    for name, content in {**pieces, "image.manifest.xml": manifest}.items():
        s3.put(bucket, f"{folder}/{name}", content)
    return f"{bucket}/{folder}/image.manifest.xml"


def registered(
    account: Account, location: str, name: str = "web", *, region: str = "us-east-1", state: str = "", token: str = "t"
) -> Image:
    """The available image of a bundle."""
    ec2 = account.cloud.client(region=region)
    run_tags = {tags.STATE: state, tags.TOKEN: token} if state else {"of": "nobody"}
    made = ec2.register_image(
        Name=name,
        ImageLocation=location,
        Architecture="x86_64",
        VirtualizationType="hvm",
        EnaSupport=True,
        SriovNetSupport="simple",
        ImdsSupport="v2.0",
        BlockDeviceMappings=[{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}],
        TagSpecifications=[tags.specification("image", run_tags)],
    )["ImageId"]
    return Image(harness.available(ec2, made), region, name, (), bundle=location)


def keys(account: Account, *, region: str = "us-east-1", bucket: str = BUCKET) -> list[str]:
    """Of all objects of the bucket."""
    return account.regions[region].s3.keys(bucket, "")
