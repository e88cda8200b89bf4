"""What we write is read without us: by openssl, gzip and GNU tar, and by Amazon's rule for the signature.

IMAGEPIPE_KEEP_BUNDLES=DIR keeps the bundles of these tests, to be read by other tools; their keys are in
tests/cases/bundle.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from imagepipe.bundle.manifest import Label
from imagepipe.bundle.pack import pack
from imagepipe.bundle.parts import FolderSink
from imagepipe.bundle.sparse import opened_image
from tests.bundle.samples import ACCOUNT, CASES, recipients

NAMES = ["dense", "sparse", "beyond-8-gib"]


def _dense(path: Path) -> None:
    words = [word.encode() for word in ["an", "image", "pipeline", "bakes", "machine", "images", "from", "a", "spec"]]
    choice = random.Random(3)
    noise = choice.randbytes(11 << 20)
    path.write_bytes(noise + b" ".join(choice.choice(words) for _ in range(1 << 20)))


def _sparse(path: Path) -> None:
    """Sixty extents, which need two extensions of the sparse map, and a hole at the end."""
    with path.open("wb") as file:
        for number in range(60):
            file.seek(number * 3 << 20)
            file.write(random.Random(number).randbytes(50_000))
        file.truncate(200 << 20)


def _beyond(path: Path) -> None:
    """Offsets and a size that octal digits cannot hold."""
    with path.open("wb") as file:
        file.write(b"begin" * 2000)
        file.seek((8 << 30) + (5 << 20))
        file.write(b"end" * 3000)
        file.truncate((9 << 30) + 1)


MAKE = dict(zip(NAMES, (_dense, _sparse, _beyond), strict=True))


@pytest.fixture(scope="module", params=NAMES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle, with its raw image beside it."""
    name = str(request.param)
    folder = tmp_path_factory.mktemp(name)
    image = folder / "raw"
    MAKE[name](image)
    with FolderSink(folder, name) as sink, opened_image(image) as opened:
        pack(opened, sink, label=Label(name, ACCOUNT), recipients=recipients())
    if keep := os.environ.get("IMAGEPIPE_KEEP_BUNDLES"):
        kept = Path(keep) / name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("raw"))
    return folder


def _manifest(bundle: Path) -> ElementTree.Element:
    return ElementTree.parse(bundle / f"{bundle.name[:-1]}.manifest.xml").getroot()


def _text(root: ElementTree.Element, path: str) -> str:
    text = root.findtext(path)
    assert text is not None, path
    return text


def _rsa(key: Path, hexadecimal: str) -> str:
    """The hex digits that openssl decrypts."""
    done = subprocess.run(
        ["openssl", "pkeyutl", "-decrypt", "-inkey", str(key), "-pkeyopt", "rsa_padding_mode:pkcs1"],
        input=bytes.fromhex(hexadecimal),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode("ascii")


def _classic(bundle: Path, whose: str) -> str:
    """The shell's pipe up to the tar."""
    root = _manifest(bundle)
    key = _rsa(CASES / f"{whose}-key.pem", _text(root, f"image/{whose}_encrypted_key"))
    iv = _rsa(CASES / f"{whose}-key.pem", _text(root, f"image/{whose}_encrypted_iv"))
    assert (len(key), len(iv)) == (32, 32)
    parts = sorted(root.findall("image/parts/part"), key=lambda part: int(part.attrib["index"]))
    names = " ".join(str(part.findtext("filename")) for part in parts)
    return f"set -o pipefail; cat {names} | openssl enc -d -aes-128-cbc -K {key} -iv {iv} | gzip -d"


def _shell(command: str, folder: Path) -> bytes:
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, check=True).stdout


@pytest.mark.parametrize("whose", ["user", "ec2"])
def test_openssl_gzip_and_tar_give_the_image(bundle: Path, whose: str) -> None:
    name = bundle.name[:-1]
    _shell(f"rm -rf out; mkdir out; {_classic(bundle, whose)} | tar -x --sparse -C out", bundle)
    assert [path.name for path in (bundle / "out").iterdir()] == [name]
    image = bundle / "out" / name
    subprocess.run(["cmp", image, bundle / "raw"], check=True) if name != "beyond-8-gib" else _compare_ends(
        image, bundle
    )
    assert image.stat().st_blocks * 512 <= (bundle / "raw").stat().st_blocks * 512 + (1 << 20)


def _compare_ends(image: Path, bundle: Path) -> None:
    """9 GiB of zeros are not read: the data, and that all else is a hole."""
    assert image.stat().st_size == (9 << 30) + 1
    with image.open("rb") as mine, (bundle / "raw").open("rb") as theirs:
        for at in (0, (8 << 30) + (5 << 20)):
            mine.seek(at), theirs.seek(at)
            assert mine.read(16_384) == theirs.read(16_384)


def test_python_s_tarfile_reads_it(bundle: Path) -> None:
    name = bundle.name[:-1]
    _shell(f"{_classic(bundle, 'user')} >tar", bundle)
    with tarfile.open(bundle / "tar", "r:") as tar:
        (member,) = tar.getmembers()
        raw = bundle / "raw"
        assert (member.name, member.size, member.isfile()) == (name, raw.stat().st_size, True)
        assert member.type == (tarfile.REGTYPE if name == "dense" else tarfile.GNUTYPE_SPARSE)
        assert tar.pax_headers == {}


def test_the_digests_and_sizes_are_those_of_the_files(bundle: Path) -> None:
    root = _manifest(bundle)
    parts = root.findall("image/parts/part")
    for part in parts:
        content = (bundle / str(part.findtext("filename"))).read_bytes()
        assert hashlib.sha1(content).hexdigest() == part.findtext("digest")
    sizes = [(bundle / str(part.findtext("filename"))).stat().st_size for part in parts]
    assert (sum(sizes), len(sizes)) == (
        int(_text(root, "image/bundled_size")),
        int(root.find("image/parts").attrib["count"]),  # type: ignore[union-attr]
    )
    tar = _shell(f"{_classic(bundle, 'user')} | sha1sum", bundle).split()[0].decode()
    assert tar == _text(root, "image/digest")
    assert int(_text(root, "image/size")) == (bundle / "raw").stat().st_size


def test_the_tar_is_one_gzip_member(bundle: Path) -> None:
    compressed = _shell(_classic(bundle, "user").removesuffix("| gzip -d"), bundle)
    inflater = zlib.decompressobj(31)
    inflater.decompress(compressed)
    assert (inflater.eof, inflater.unused_data) == (True, b"")


def test_openssl_verifies_the_signature_by_amazon_s_rule(bundle: Path, tmp_path: Path) -> None:
    """ec2-ami-tools writes both elements anew, with single quotes, and verifies what comes out."""
    root = _manifest(bundle)
    signed = "".join(_serialised(root.find(tag)) for tag in ("machine_configuration", "image"))
    assert signed.encode() in (bundle / f"{bundle.name[:-1]}.manifest.xml").read_bytes()
    (tmp_path / "signed").write_text(signed)
    (tmp_path / "signature").write_bytes(bytes.fromhex(_text(root, "signature")))
    public = ["openssl", "x509", "-in", str(CASES / "user-cert.pem"), "-pubkey", "-noout", "-out", "public"]
    subprocess.run(public, cwd=tmp_path, check=True)
    verify = ["openssl", "dgst", "-sha1", "-verify", "public", "-signature", "signature", "signed"]
    done = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Verified OK")


def _serialised(element: ElementTree.Element | None) -> str:
    assert element is not None
    words = "".join(f" {name}='{value}'" for name, value in element.attrib.items())
    return f"<{element.tag}{words}>{element.text or ''}{''.join(map(_serialised, element))}</{element.tag}>"
