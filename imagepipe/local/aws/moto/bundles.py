"""Instance-store images: registered from a manifest in S3. Each launch makes the disk from the bundle's parts.

The cloud has an EC2 key of its own: bundles for it are made with its certificate, `ec2-cert.pem` in the store's state.
Like EC2, it reads only objects whose ACL allows it. The manifest's signature is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from moto.utilities.utils import get_partition

from imagepipe.bundle.certificates import load_private_key, make_pair
from imagepipe.bundle.manifest import Manifest, find_secret, read_manifest
from imagepipe.bundle.unpack import unpack
from imagepipe.errors import BundleError
from imagepipe.local.aws.moto import s3_acls
from imagepipe.local.aws.moto.adapter import Moto
from imagepipe.local.aws.protocol.errors import AwsError, invalid

KEY, CERTIFICATE = "ec2-key.pem", "ec2-cert.pem"
MAX_MANIFEST_BYTES = 4 << 20


def certificate_of(folder: Path) -> Path:
    """Return the certificate for which bundles are encrypted; make it and its key at the first call."""
    path = folder / CERTIFICATE
    if not path.exists():
        make_pair(path, folder / KEY, name="EC2 of imagepipe's local cloud")
    return path


class Bundles:
    """Bundles in this cloud's S3, and the key that opens them."""

    def __init__(self, moto: Moto, folder: Path) -> None:
        self._moto = moto
        self._folder = folder

    @property
    def certificate(self) -> Path:
        """The certificate for which bundles are encrypted."""
        return certificate_of(self._folder)

    def manifest(self, location: str, *, account: str, region: str) -> Manifest:
        """Read the manifest, and make sure that the bundle can be decrypted. Raises AwsError."""
        try:
            manifest = self._read(location, account=account, region=region)
            find_secret(manifest, self._key())
        except BundleError as problem:
            raise AwsError("InvalidManifest", f"{location}: {problem}") from problem
        return manifest

    def unpack_to(self, location: str, target: Path, *, account: str, region: str) -> None:
        """Make the disk of an instance from the bundle, and check all digests. Raises BundleError."""
        manifest = self._read(location, account=account, region=region)
        bucket, _, key = location.partition("/")
        folder = f"{key.rpartition('/')[0]}/" if "/" in key else ""

        def part(filename: str) -> Iterator[bytes]:
            yield self._object(bucket, f"{folder}{filename}", account=account, region=region)

        unpack(manifest, part, find_secret(manifest, self._key()), target, is_forced=True)

    def _read(self, location: str, *, account: str, region: str) -> Manifest:
        bucket, _, key = location.partition("/")
        if not bucket or not key or location.startswith("/") or "://" in location:
            raise invalid(f"Value ({location}) for parameter imageLocation is invalid: it is BUCKET/PATH.manifest.xml")
        document = self._object(bucket, key, account=account, region=region)
        if len(document) > MAX_MANIFEST_BYTES:
            raise BundleError(f"{location} has {len(document)} bytes: that is no manifest")
        return read_manifest(document)

    def _object(self, bucket: str, key: str, *, account: str, region: str) -> bytes:
        """Read an object.

        Raises BundleError if it does not exist, is in another region than the registration, or EC2 may not read it.
        """
        with self._moto.lock("s3"):
            buckets: Any = self._moto.model("s3", account, get_partition(region)).buckets
            found = buckets.get(bucket)
            if found is None:
                raise BundleError(f"bucket {bucket} does not exist of this account")
            if found.region_name != region:
                raise BundleError(
                    f"bucket {bucket} is in {found.region_name}, and the image is registered in {region}: check that"
                    " the manifest path is correct and in the correct region"
                )
            kept = found.keys.get(key)
            if kept is None:
                raise BundleError(f"{key.rpartition('/')[2]} is missing: {key} does not exist in bucket {bucket}")
            if not s3_acls.is_readable_by_ec2(kept):
                raise BundleError(
                    f"HTTP 403 (Access Denied) for {bucket}/{key}: EC2 reads objects with the ACL aws-exec-read"
                )
            if str(kept.encryption).startswith("aws:kms"):
                raise BundleError(f"HTTP 403 (Access Denied) for {bucket}/{key}: EC2 has no use of its KMS key")
            return bytes(kept.value)

    def _key(self) -> RSAPrivateKey:
        return load_private_key(self.certificate.with_name(KEY))
