"""Certificates and keys: what is taken, and what the refusal says."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from imagepipe.bundle import certificates
from imagepipe.bundle.certificates import (
    FINGERPRINTS,
    certificate_folders,
    find_ec2_certificate,
    load_certificate,
    load_owner,
    load_private_key,
)
from imagepipe.errors import BundleError
from tests.bundle.samples import CASES, recipients

USER, KEY, EC2, EC2_KEY = (CASES / name for name in ("user-cert.pem", "user-key.pem", "ec2-cert.pem", "ec2-key.pem"))


def _certificate_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """One that expired in 2008, as EC2's did in their time."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bundles")])
    begun, ended = datetime(2007, 10, 10, tzinfo=UTC), datetime(2008, 10, 10, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, begun, ended)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: bytes | None = None) -> bytes:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def test_pem_and_der_are_both_read(tmp_path: Path) -> None:
    found = x509.load_pem_x509_certificate(USER.read_bytes())
    (tmp_path / "cert").write_bytes(found.public_bytes(serialization.Encoding.DER))
    der = load_private_key(KEY).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (tmp_path / "key").write_bytes(der)
    owner = load_owner(tmp_path / "cert", tmp_path / "key")
    assert owner.certificate.fingerprint == recipients().owner.certificate.fingerprint


def test_dates_are_not_looked_at(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (tmp_path / "cert").write_bytes(_certificate_of(key))
    assert load_certificate(tmp_path / "cert").public_key.key_size == 2048


def test_a_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(BundleError, match=r"ec2-key.pem does not belong to the certificate .*user-cert.pem") as refused:
        load_owner(USER, EC2_KEY)
    assert "openssl req" in str(refused.value.hint)


def test_what_is_no_certificate_is_refused(tmp_path: Path) -> None:
    elliptic = tmp_path / "ec"
    elliptic.write_bytes(_certificate_of(ec.generate_private_key(ec.SECP256R1())))
    (tmp_path / "garbage").write_bytes(b"\x00\x01garbage")
    (tmp_path / "pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    for path, message in (
        (elliptic, "a key that is not RSA"),
        (tmp_path / "garbage", "is not an X.509 certificate"),
        (tmp_path / "pem", "is not an X.509 certificate"),
        (tmp_path / "large", "too large"),
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (KEY, "is a private key, not a certificate"),
    ):
        with pytest.raises(BundleError, match=message):
            load_certificate(path)


def test_what_is_no_private_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ec").write_bytes(_private(ec.generate_private_key(ec.SECP256R1())))
    locked = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (tmp_path / "locked").write_bytes(_private(locked, b"a passphrase"))
    (tmp_path / "garbage").write_bytes(b"\x00\x01garbage")
    for path, message in (
        (tmp_path / "ec", "is not RSA"),
        (tmp_path / "locked", "has a passphrase"),
        (tmp_path / "garbage", "is not a private key"),
        (tmp_path / "none", "No such file"),
        (USER, "is a certificate, not a private key"),
    ):
        with pytest.raises(BundleError, match=message):
            load_private_key(path)


def test_ec2_s_certificate_is_looked_for_in_the_places_of_the_tools() -> None:
    usual = (Path("/etc/ec2/amitools"), Path("/usr/share/euca2ools/certs"))
    assert certificate_folders({}) == usual
    assert certificate_folders({"EC2_AMITOOL_HOME": "/opt/tools"}) == (Path("/opt/tools/etc/ec2/amitools"), *usual)


def test_ec2_s_certificate_is_known_by_its_fingerprint_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    shutil.copy(USER, first / "cert-ec2.pem")  # of the right name, and not EC2's
    (first / "other.pem").write_bytes(b"garbage")
    shutil.copy(EC2, second / "anything.pem")
    monkeypatch.setitem(certificates.FINGERPRINTS, "default", load_certificate(EC2).fingerprint)
    found = find_ec2_certificate("eu-west-1", (tmp_path / "none", first, second))
    assert found.where == str(second / "anything.pem")
    with pytest.raises(BundleError, match=r"EC2's certificate for us-gov-west-1 was not found in .*first") as refused:
        find_ec2_certificate("us-gov-west-1", (first, second))
    assert "--ec2-certificate" in str(refused.value.hint)


@pytest.mark.parametrize("region", ["af-south-1", "il-central-1", "cn-northwest-1", "nowhere"])
def test_a_region_with_a_certificate_of_its_own_asks_for_it(region: str) -> None:
    with pytest.raises(BundleError, match=f"know EC2's certificate for {region}") as refused:
        find_ec2_certificate(region, ())
    assert "ec2_certificate" in str(refused.value.hint)


def test_the_pinned_fingerprints_are_of_sha_256() -> None:
    assert all(len(bytes.fromhex(each)) == 32 and each == each.upper() for each in FINGERPRINTS.values())


def _openssh(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: bytes | None = None) -> bytes:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, protection)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="openssh-client is not installed")
def test_an_rsa_key_in_openssh_s_format_is_refused_with_the_command_that_converts_a_copy(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = tmp_path / "my id_rsa"
    content = _openssh(key)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BundleError, match="is in OpenSSH's format, and a bundle needs PEM or DER") as refused:
        load_private_key(path)
    command = str(refused.value.hint).partition(" writes ")[0]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert load_private_key(tmp_path / "my id_rsa-2").private_numbers() == key.private_numbers()
    assert path.read_bytes() == content, "the user's own file is unchanged"


def test_other_files_in_place_of_a_private_key_are_named(tmp_path: Path) -> None:
    elliptic, key = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    public = key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    for content, message, hint in (
        (_openssh(elliptic), "a bundle needs an RSA key", "openssl req -new -x509 -newkey rsa:2048"),
        (_openssh(key, b"a passphrase"), "is in OpenSSH's format", "ssh-keygen -p"),
        (pem, "is a public key", "private half"),
        (line, "is a public key", "private half"),
    ):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(BundleError, match=message) as refused:
            load_private_key(tmp_path / "key")
        assert hint in str(refused.value.hint)


def test_a_request_in_place_of_a_certificate_is_named(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    (tmp_path / "user.csr").write_bytes(request.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(BundleError, match="is a request for a certificate") as refused:
        load_certificate(tmp_path / "user.csr")
    assert f"-out {tmp_path}/user-2.csr" in str(refused.value.hint)


@pytest.mark.parametrize(
    "kind", ["pair", "passphrase", "elliptic", "openssh", "openssh elliptic", "request", "certificate"]
)
def test_no_hint_names_an_output_file_that_exists(tmp_path: Path, kind: str) -> None:
    """Such a command would overwrite a key or a certificate, and with them the access to older bundles."""
    key, elliptic = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    for name in ("user.key", "user.pem", "user-2.key", "user-2.pem", "cert.pem"):
        (tmp_path / name).write_bytes(_certificate_of(elliptic if kind == "certificate" else key))
    content = {
        "passphrase": _private(key, b"a passphrase"),
        "elliptic": _private(elliptic),
        "openssh": _openssh(key),
        "openssh elliptic": _openssh(elliptic),
    }.get(kind, _private(rsa.generate_private_key(65537, 2048)))
    (tmp_path / "user.key").write_bytes(content)
    if kind == "request":
        request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
        (tmp_path / "cert.pem").write_bytes(request.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(BundleError) as refused:
        load_owner(tmp_path / "cert.pem", tmp_path / "user.key")
    words = shlex.split(str(refused.value.hint))
    outputs = [words[at + 1] for at, word in enumerate(words) if word in ("-out", "-keyout", "-f")]
    assert outputs
    assert not [name for name in outputs if Path(name).exists()]
