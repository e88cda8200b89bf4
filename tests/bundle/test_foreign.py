"""Bundles that euca2ools and ec2-ami-tools made."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from imagepipe.bundle.certificates import load_private_key
from imagepipe.bundle.manifest import find_secret, is_signed_by, read_manifest
from imagepipe.bundle.parts import folder_source
from imagepipe.bundle.unpack import unpack
from imagepipe.bundle.verify import verify_image, verify_parts
from tests.bundle.samples import CASES, DIGESTS, recipients


@pytest.fixture(params=["euca", "ec2-ami-tools"])
def foreign(request: pytest.FixtureRequest) -> Path:
    return CASES / str(request.param)


@pytest.mark.parametrize("whose", ["user", "ec2"])
def test_it_unpacks_to_the_image_with_the_owner_s_key_and_with_ec2_s(foreign: Path, whose: str, tmp_path: Path) -> None:
    manifest = read_manifest((foreign / "image.manifest.xml").read_bytes())
    secret = find_secret(manifest, load_private_key(CASES / f"{whose}-key.pem"))
    target = tmp_path / manifest.name
    progress: list[int] = []
    unpack(manifest, folder_source(foreign), secret, target, progress=progress.append)
    with target.open("rb") as image:
        assert hashlib.file_digest(image, "sha256").hexdigest() == DIGESTS[foreign.name]
    assert target.stat().st_mode & 0o777 == 0o600
    assert sum(progress) == manifest.size == target.stat().st_size


def test_it_verifies(foreign: Path) -> None:
    document = (foreign / "image.manifest.xml").read_bytes()
    manifest = read_manifest(document)
    assert list(verify_parts(manifest, folder_source(foreign))) == []
    verify_image(manifest, folder_source(foreign), find_secret(manifest, recipients().owner.private_key))
    assert is_signed_by(document, recipients().owner.certificate)
    assert not is_signed_by(document, recipients().ec2)


def test_a_sparse_image_has_holes_again(tmp_path: Path) -> None:
    foreign = CASES / "ec2-ami-tools"
    manifest = read_manifest((foreign / "image.manifest.xml").read_bytes())
    target = tmp_path / "image"
    unpack(manifest, folder_source(foreign), find_secret(manifest, recipients().owner.private_key), target)
    assert (target.stat().st_size, target.stat().st_blocks * 512 < 8 << 20) == (200 << 20, True)


def test_what_ec2_ami_tools_says_of_the_machine_is_read() -> None:
    manifest = read_manifest((CASES / "ec2-ami-tools/image.manifest.xml").read_bytes())
    assert manifest.block_devices == (("ami", "sda1"), ("ephemeral0", "sdb"), ("root", "/dev/sda1"))
    assert (manifest.account, manifest.architecture) == ("123456789012", "x86_64")
    assert (manifest.bundler, len(manifest.parts)) == ("ec2-ami-tools 1.5", 1)
