"""Load certificates and private keys: the user's own pair, and EC2's certificate of a region.

Validity dates are ignored: EC2's certificates expired long ago and are still the documented ones. The user's can be
self-signed.
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError
from imagepipe.files import write_atomically

FINGERPRINTS = {
    "default": "F5707AEDB54251798F6BBCC1A10A9CFD1F21FC69909EA1276319AA2F098E4790",
    "GovCloud": "4956F966C8A0E75D22B9B23442959464468F20A676010CE823B45992E122F7A9",
    "cn-north-1": "8480E2B60A0E513C322E04601F81A5FF67A9CAD55389925C6CB6ED6D0189AA09",
}
"""SHA-256 fingerprints of EC2's certificates in ec2-ami-tools."""
_USUAL = [
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1"),
    *("eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1", "eu-north-1", "ap-south-1"),
    *("ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-southeast-1", "ap-southeast-2"),
]
KNOWN_REGIONS = {
    **dict.fromkeys(_USUAL, "default"),
    **dict.fromkeys(["us-gov-west-1", "us-gov-east-1"], "GovCloud"),
    "cn-north-1": "cn-north-1",
}
"""The certificate of each region. Opt-in regions have their own, which are not pinned here."""
LARGEST_FILE = 1 << 20
YEARS = 100
"""Validity in years of a pair that is made here; nobody checks dates."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate of an RSA key."""

    public_key: RSAPublicKey = field(repr=False)
    fingerprint: str
    """SHA-256 fingerprint in upper-case hex."""
    where: str
    """Origin of the certificate, for messages."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a bundle, who signs it and can read it."""

    certificate: Certificate
    private_key: RSAPrivateKey = field(repr=False)


def load_owner(certificate: Path, private_key: Path) -> Owner:
    """Load a user's pair. Raises BundleError if certificate and key do not belong together."""
    owner = Owner(load_certificate(certificate), load_private_key(private_key))
    if owner.private_key.public_key().public_numbers() != owner.certificate.public_key.public_numbers():
        raise BundleError(
            f"the private key {private_key} does not belong to the certificate {certificate}",
            hint="name the key of this certificate, or a certificate of this key:"
            f" openssl req -new -x509 -subj /CN=bundles -key {_word(private_key)} -out {_new(certificate)} creates one",
        )
    return owner


def load_certificate(path: Path) -> Certificate:
    """Load an X.509 certificate of an RSA key, PEM or DER. Raises BundleError."""
    return parse_certificate(_content(path, "certificate"), where=str(path))


def parse_certificate(content: bytes, *, where: str) -> Certificate:
    """Parse the content of a certificate file as `load_certificate` does."""
    if b"PRIVATE KEY-----" in content and b"-----BEGIN CERTIFICATE-----" not in content:
        raise BundleError(f"{where} is a private key, not a certificate", hint="are the two files swapped?")
    if b"CERTIFICATE REQUEST-----" in content:
        path = Path(where)
        raise BundleError(
            f"{where} is a request for a certificate, not a certificate",
            hint=f"openssl x509 -req -in {_word(path)} -signkey KEY -out {_new(path)} creates the certificate; KEY is"
            " its private key",
        )
    try:
        is_pem = b"-----BEGIN" in content
        found = x509.load_pem_x509_certificate(content) if is_pem else x509.load_der_x509_certificate(content)
        key = found.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(
            f"{where} is not an X.509 certificate, in PEM or DER: {_first_line(error)}", hint=_new_pair(where)
        ) from error
    if not isinstance(key, RSAPublicKey):
        raise BundleError(f"{where} is a certificate for a key that is not RSA", hint=_new_pair(where))
    return Certificate(key, found.fingerprint(hashes.SHA256()).hex().upper(), where)


def load_private_key(path: Path) -> RSAPrivateKey:
    """Load an RSA key without a passphrase, PEM or DER. Raises BundleError."""
    content = _content(path, "private key")
    if b"-----BEGIN CERTIFICATE-----" in content and b"PRIVATE KEY-----" not in content:
        raise BundleError(f"{path} is a certificate, not a private key", hint="are the two files swapped?")
    if b"-----BEGIN OPENSSH PRIVATE KEY-----" in content:
        raise _of_openssh(path, content)
    if _PUBLIC.search(content):
        raise BundleError(f"{path} is a public key, not a private key", hint="name the file of its private half")
    try:
        if b"-----BEGIN" in content:
            key = serialization.load_pem_private_key(content, password=None)
        else:
            key = serialization.load_der_private_key(content, password=None)
    except TypeError as error:
        raise BundleError(
            f"the private key {path} has a passphrase",
            hint=f"openssl rsa -in {_word(path)} -out {_new(path)} writes a copy without one",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{path} is not a private key, in PEM or DER") from error
    if not isinstance(key, RSAPrivateKey):
        raise BundleError(f"the private key {path} is not RSA", hint=_new_pair(path))
    return key


def _of_openssh(path: Path, content: bytes) -> BundleError:
    """Return the error for a private key in OpenSSH's format, which X.509 tools do not read."""
    try:
        is_rsa = isinstance(serialization.load_ssh_private_key(content, password=None), RSAPrivateKey)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        is_rsa = True  # with a passphrase, the kind is not known
    copy = _new(path)
    return BundleError(
        f"the private key {path} is in OpenSSH's format, and a bundle needs {'PEM or DER' if is_rsa else 'an RSA key'}",
        hint=f"cp -p {_word(path)} {copy} && ssh-keygen -p -m PEM -N '' -f {copy} writes a copy in PEM; the certificate"
        " must belong to this key"
        if is_rsa
        else _new_pair(path),
    )


def make_pair(certificate: Path, private_key: Path, *, name: str) -> None:
    """Write a new RSA key and its self-signed certificate, readable only by their owner.

    The certificate is written last, so if it exists, its key exists too. Raises BundleError.
    """
    key = generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for file, content in ((private_key, private), (certificate, made.public_bytes(Encoding.PEM))):
        try:
            write_atomically(file, content)
        except OSError as error:
            raise BundleError(f"writing {file}: {error.strerror}") from error


def certificate_folders(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the folders that may contain EC2's certificates, in order of search."""
    home = environment.get("EC2_AMITOOL_HOME")
    first = [Path(home) / "etc/ec2/amitools"] if home else []
    return (*first, Path("/etc/ec2/amitools"), Path("/usr/share/euca2ools/certs"))


def find_ec2_certificate(region: str, folders: tuple[Path, ...]) -> Certificate:
    """Find EC2's certificate for the region by its fingerprint, not by its file name. Raises BundleError."""
    known = KNOWN_REGIONS.get(region)
    if known is None:
        raise BundleError(
            f"imagepipe does not know EC2's certificate for {region}",
            hint="pass its file (ec2_certificate, --ec2-certificate); the newest ec2-ami-tools have it",
        )
    for certificate in _certificates(folders):
        if certificate.fingerprint == FINGERPRINTS[known]:
            return certificate
    raise BundleError(
        f"EC2's certificate for {region} was not found in {', '.join(map(str, folders))}",
        hint="copy it from ec2-ami-tools (etc/ec2/amitools) to one of these folders, or pass its file "
        "(ec2_certificate, --ec2-certificate)",
    )


def _certificates(folders: tuple[Path, ...]) -> Iterator[Certificate]:
    for folder in folders:
        for path in sorted(folder.glob("*.pem")) if folder.is_dir() else ():
            try:
                yield load_certificate(path)
            except BundleError:
                continue  # not a certificate


_PUBLIC = re.compile(rb"\A\s*(ssh-|ecdsa-sha2-|-----BEGIN (RSA |SSH2 )?PUBLIC KEY-----)")


def _new_pair(near: Path | str) -> str:
    """Return a command that creates a key and its certificate, in files that do not exist yet."""
    folder = Path(near).parent
    key, certificate = _new(folder / "user.key", first=True), _new(folder / "user.pem", first=True)
    command = "openssl req -new -x509 -newkey rsa:2048 -nodes -subj /CN=bundles"
    return f"{command} -keyout {key} -out {certificate} creates a pair"


def _new(path: Path, *, first: bool = False) -> str:
    """Return the path of a file that does not exist, quoted for a shell, so that no command overwrites a key.

    `first` allows the path itself, otherwise the name always differs.
    """
    tried = path
    for number in itertools.count(2):
        if (first or tried != path) and not os.path.lexists(tried):
            break
        tried = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return _word(tried)


def _word(path: Path) -> str:
    return shlex.quote(str(path))


def _content(path: Path, kind: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise BundleError(f"reading the {kind} {path}: {error.strerror}") from error
    if len(content) > LARGEST_FILE:
        raise BundleError(f"reading the {kind} {path}: the file is too large")
    return content


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
