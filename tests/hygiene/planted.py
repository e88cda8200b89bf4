"""Things that must not be in an image, one or more of every rule, as they are found in the wild."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from imagepipe.hygiene.report import ScanRequest
from imagepipe.hygiene.rules import RULES

SECRET = "correct horse battery staple"
BUILDER_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIPlantedPlantedPlantedPlantedPlantedPlanted00"
AWS_ID = "AKIA" + "QWERTYUIOPASDFGH"
AWS_SECRET = "uJ4x/Gd0Zk3Pq9Ls+Vb7Yw2Tn6Hc8Rm1Ea5Fi0Ko"
EVERY_RULE = tuple(rule.name for rule in RULES)
WANTED = ScanRequest(EVERY_RULE, (SECRET,), BUILDER_KEY)


def pem(kind: str) -> str:
    """A new private key in PEM."""
    match kind:
        case "ed25519":
            return _pem(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8)
        case "openssh":
            return _pem(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.OpenSSH)
        case "ec":
            return _pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL)
        case "rsa":
            return _pem(rsa.generate_private_key(65537, 2048), PrivateFormat.TraditionalOpenSSL)
        case "encrypted":
            key = ed25519.Ed25519PrivateKey.generate()
            return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
        case "legacy encrypted":
            head, _, body = _pem(rsa.generate_private_key(65537, 2048), PrivateFormat.TraditionalOpenSSL).partition(
                "\n"
            )
            return f"{head}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,{'0A' * 16}\n\n{body}"
        case _:
            raise ValueError(kind)


PEM_KINDS = ("ed25519", "openssh", "ec", "rsa", "encrypted", "legacy encrypted")


def _pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, kind: PrivateFormat) -> str:
    return key.private_bytes(Encoding.PEM, kind, NoEncryption()).decode()


@dataclass(frozen=True, slots=True)
class Planted:
    """A file, and the rules that find it."""

    path: str
    content: str | bytes
    rules: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{'+'.join(self.rules)} {self.path}"


def _one(rule: str, *paths: str, content: str | bytes = "something\n") -> list[Planted]:
    return [Planted(path, content, (rule,)) for path in paths]


KEY_LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f who@where\n"
RSA, OPENSSH = pem("rsa"), pem("openssh")

PLANTED: Sequence[Planted] = (
    *_one("host-key", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_rsa_key", content=OPENSSH),
    *_one("authorized-keys", "/root/.ssh/authorized_keys", "/srv/a/b/.ssh/authorized_keys2", content=KEY_LINE),
    *_one("authorized-keys", "/etc/ssh/authorized_keys.d/admin", content=f"# who\n\n  {KEY_LINE}"),
    *_one("shell-history", "/root/.bash_history", "/home/x/.zsh_history", "/var/www/.python_history"),
    *_one("shell-history", "/etc/skel/.bash_history", "/home/x/.local/share/fish/fish_history"),
    *_one("editor-history", "/root/.viminfo", "/home/x/.lesshst", "/home/x/.wget-hsts", "/srv/app/.config.yml.swp"),
    *_one("user-data", "/var/lib/cloud/instances/i-0a/user-data.txt", "/var/lib/cloud/instances/i-0a/scripts/part-001"),
    *_one("cloud-init-data", "/var/lib/cloud/instances/i-0a/obj.pkl", "/var/lib/cloud/data/instance-id"),
    *_one("machine-id", "/etc/machine-id", "/var/lib/dbus/machine-id", content="0123456789abcdef0123456789abcdef\n"),
    *_one("random-seed", "/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", content=bytes(range(256))),
    *_one("dhcp-lease", "/var/lib/dhcp/dhclient.eth0.leases", "/var/lib/NetworkManager/internal-0a-eth0.lease"),
    *_one("log", "/var/log/auth.log", "/var/log/auth.log.2.gz", "/var/log/cloud-init-output.log", "/var/log/secure"),
    *_one("log", "/var/log/audit/audit.log", "/var/log/messages-20261101"),
    *_one("journal", "/var/log/journal/0123456789abcdef/system.journal", content=b"LPKSHHRH" + bytes(64)),
    *_one("login-record", "/var/log/wtmp", "/var/log/btmp.1", content=b"\7" + bytes(383)),
    *_one("login-record", "/var/log/lastlog", content=bytes(4096) + b"127.0.0.1"),
    *_one("core-dump", "/var/lib/systemd/coredump/core.x.0.zst", "/var/crash/_usr_bin_x.0.crash"),
    *_one("aws-credentials", "/root/.aws/sso/cache/0a.json", "/home/x/.boto"),
    Planted(
        "/home/x/.aws/credentials",
        f"[default]\naws_access_key_id = {AWS_ID}\naws_secret_access_key = {AWS_SECRET}\n",
        ("aws-credentials", "aws-key"),
    ),
    *_one("credentials", "/root/.docker/config.json", content='{"auths": {"r.example": {"auth": "dTpw"}}}'),
    *_one("credentials", "/root/.netrc", content="machine example.org login me password hunter2hunter2\n"),
    *_one("credentials", "/etc/apt/auth.conf.d/ours.conf", content="machine m\nlogin l\npassword p\n"),
    *_one("credentials", "/home/x/.git-credentials", content="https://me:token@git.example\n"),
    *_one("credentials", "/home/x/.pgpass", content="db:5432:*:me:pw\n"),
    *_one("credentials", "/home/x/.npmrc", content="//registry.example/:_authToken=npm_x\n"),
    *_one("credentials", "/home/x/.pypirc", content="[a]\nusername = u\npassword = p\n"),
    *_one("credentials", "/home/x/.kube/config", content="users:\n- user:\n    token: abc\n"),
    *_one("credentials", "/home/x/.config/gcloud/credentials.db", "/home/x/.azure/msal_token_cache.json"),
    *_one("credentials", "/home/x/.config/gh/hosts.yml", content="github.com:\n  oauth_token: gho_x\n"),
    *_one("private-key", "/srv/app/deep/down/server.pem", content=RSA),
    *_one("private-key", "/opt/bundle.bin", content=bytes(5000) + RSA.encode() + bytes(5000)),
    *_one("private-key", "/opt/service-account.json", content=json.dumps({"type": "x", "private_key": RSA})),
    *_one(
        "private-key", "/opt/values.yaml", content="tls: |\n" + "".join(f"    {each}\n" for each in RSA.splitlines())
    ),
    *_one("private-key", "/opt/dos.pem", content=RSA.replace("\n", "\r\n")),
    *_one("private-key", "/opt/app.env", content='KEY="' + RSA.replace("\n", "\\n") + '"\n'),
    *_one("aws-key", "/srv/app/.env", content=f"AWS_ACCESS_KEY_ID={AWS_ID}\nAWS_SECRET_ACCESS_KEY={AWS_SECRET}\n"),
    *_one("aws-key", "/srv/app/keys.csv", content=f"Access key ID,Secret access key\n{AWS_ID},{AWS_SECRET}\n"),
    *_one("aws-key", "/opt/role.json", content=json.dumps({"SecretAccessKey": AWS_SECRET, "Token": "x"}, indent=1)),
    *_one("aws-key", "/opt/blob", content=bytes(100) + f"ASIA{AWS_ID[4:]}\0{AWS_SECRET}\0".encode() + bytes(100)),
    *_one("build-secret", "/var/lib/app/state.db", content=bytes(2_000_000) + SECRET.encode() + bytes(9)),
    *_one("builder-key", "/opt/backup/keys", content=f"ssh-ed25519 {BUILDER_KEY} imagepipe\n"),
)


@dataclass(frozen=True, slots=True)
class Harmless:
    """A file that looks like a finding, and why it is none."""

    why: str
    path: str
    content: str | bytes


HARMLESS: Sequence[Harmless] = (
    Harmless("it is empty", "/root/.ssh/authorized_keys", ""),
    Harmless("there are comments alone", "/home/x/.ssh/authorized_keys", "# keys come at launch\n\n"),
    Harmless("it was emptied", "/etc/machine-id", ""),
    Harmless("it says that the first boot makes it", "/etc/machine-id", "uninitialized\n"),
    Harmless("it was emptied", "/var/log/auth.log", ""),
    Harmless("it is full of nothing", "/var/log/lastlog", bytes(292)),
    Harmless("what was installed is no log of a boot", "/var/log/dpkg.log", "2026-11-25 status installed\n"),
    Harmless("it has no login", "/root/.docker/config.json", '{"auths": {}, "credsStore": "ecr-login"}'),
    Harmless("it has no token", "/root/.npmrc", "registry=https://registry.example/\n"),
    Harmless("it asks for a variable", "/root/.m2/settings.xml", "<password>${env.PASSWORD}</password>"),
    Harmless("it is a public key", "/etc/ssh/ssh_host_ed25519_key.pub", KEY_LINE),
    Harmless("a manual names the header", "/usr/share/doc/x/README", "-----BEGIN RSA PRIVATE KEY-----\n...\n"),
    Harmless("a program has the header", "/usr/bin/x", b"\0-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----\0"),
    Harmless("a certificate is public", "/etc/ssl/x.pem", RSA.replace("RSA PRIVATE KEY", "CERTIFICATE")),
    Harmless("an id alone is no secret", "/srv/app/policy.json", f'{{"Key": "{AWS_ID}", "User": "me"}}'),
    Harmless(
        "these are the ones that Amazon's own manuals show",
        "/usr/share/doc/aws/example",
        "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
    ),
    Harmless("a digest is no key", "/srv/app/lock", f"{AWS_ID} da39a3ee5e6b4b0d3255bfef95601890afd80709\n"),
    Harmless("the name alone is no value", "/usr/lib/sdk.py", "aws_secret_access_key = os.environ['SECRET']\n"),
    Harmless("it is base64, and of something else", "/srv/x.b64", base64.b64encode(bytes(range(256)) * 20)),
    Harmless("a seed of cloud-init is the image's own", "/var/lib/cloud/seed/nocloud/user-data", "#cloud-config\n"),
)


def put(root: Path, path: str, content: str | bytes) -> None:
    """Write a file under a tree's root."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
