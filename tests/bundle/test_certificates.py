"""Certificates and keys: what is taken, and what the refusal says."""

from __future__ import annotations

import shutil
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
