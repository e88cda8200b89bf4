"""The folder of one local cloud: its paths, its credentials, and the version that wrote it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.errors import LocalCloudError

FORMAT = 1
"""Version of the store's format. A change that an older imagepipe cannot read increases it."""
ROOT_VARIABLE = "IMAGEPIPE_LOCAL_STORE"
BASE_CACHE_VARIABLE = "IMAGEPIPE_LOCAL_BASE_CACHE"
ACCOUNT_ID = "000000000000"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The access key of the store's first account."""

    access_key_id: str
    secret_access_key: str
    account_id: str


@dataclass(frozen=True, slots=True)
class Store:
    """Paths under one root. Made by `Store.open`, which makes the folders and checks the version."""

    root: Path
    base_cache: Path
    """Folder in which base images are built and kept; several stores may share it."""
    driver: str | None = None
    """The driver of its machines, if one was chosen."""

    @classmethod
    def open(cls, root: Path, *, base_cache: Path | None = None, driver: str | None = None) -> Store:
        """Open the store at this path, and make it if it does not exist. Raises LocalCloudError."""
        root = root.expanduser().absolute()
        store = cls(root=root, base_cache=(base_cache or root / "base").expanduser().absolute(), driver=driver)
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            root.chmod(0o700)
            store._check_format()
            for folder in (store.base_cache, store.disks, store.machines, store.gateway):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as problem:
            raise LocalCloudError(
                f"opening the local cloud's store {root}: {problem.strerror or problem}",
                hint=f"name a folder that you can write in {ROOT_VARIABLE}",
            ) from problem
        return store

    @property
    def disks(self) -> Path:
        return self.root / "disks"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def gateway(self) -> Path:
        """Folder of the gateway's state: instances, images, S3 objects, moto's state."""
        return self.root / "state"

    def data(self) -> list[Path]:
        """Return the folders of all that a cloud keeps, without the base image and the access key."""
        return sorted({self.disks, self.gateway, self.machines, *self.root.glob("machines-*")})

    @property
    def ec2_certificate(self) -> Path:
        """Certificate for which instance-store bundles are encrypted; it exists once the cloud has served."""
        return self.gateway / "ec2-cert.pem"

    @property
    def lock(self) -> Path:
        """Lock that the serving process holds exclusively as long as it lives."""
        return self.root / "lock"

    @property
    def clients(self) -> Path:
        """Lock that every client holds shared. The cloud ends some time after the last client has released it."""
        return self.root / "clients"

    @property
    def starting(self) -> Path:
        """Lock that a client holds exclusively while it starts a cloud."""
        return self.root / "starting"

    @property
    def serving(self) -> Path:
        """Address and process of the serving cloud, as JSON; it exists while the cloud serves."""
        return self.root / "serving.json"

    @property
    def log(self) -> Path:
        return self.root / "cloud.log"

    def credentials(self) -> Credentials:
        """Return the store's own keys, which are made at random at the first call."""
        path = self.root / "credentials.json"
        if not path.exists():
            made = {
                "access_key_id": new_key_id(),
                "secret_access_key": secrets.token_urlsafe(30),
                "account_id": ACCOUNT_ID,
            }
            _write_once(path, json.dumps(made))
        return Credentials(**json.loads(path.read_text()))

    def failure(self, doing: str, why: str, hint: str = "") -> LocalCloudError:
        """Make the error for a failed action on the cloud (`doing`). Without a hint, the hint names the log."""
        return LocalCloudError(f"{doing} the local cloud of {self.root}: {why}", hint=hint or f"its log is {self.log}")

    def _check_format(self) -> None:
        path = self.root / "format"
        if not path.exists():
            _write_once(path, f"{FORMAT}\n")
        text = path.read_text().strip()
        if not text.isdigit():
            raise LocalCloudError(
                f"opening the local cloud's store {self.root}: its format file holds {text[:40]!r}",
                hint=f"this folder may not be a store; name another in {ROOT_VARIABLE}",
            )
        if int(text) > FORMAT:
            raise LocalCloudError(
                f"opening the local cloud's store {self.root}: it was written by a newer imagepipe"
                f" (format {text}; this one reads up to {FORMAT})",
                hint=f"upgrade imagepipe, or name another store in {ROOT_VARIABLE}",
            )


def new_key_id(prefix: str = "AKIA") -> str:
    """Make an access key id. AWS's prefixes are AKIA for long-lived keys and ASIA for temporary ones."""
    return prefix + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))


def default_root(environ: Mapping[str, str]) -> Path:
    """Return the default folder of the store. Raises LocalCloudError."""
    if named := environ.get(ROOT_VARIABLE):
        return Path(named)
    data = environ.get("XDG_DATA_HOME") or "~/.local/share"
    try:
        return Path(data).expanduser() / "imagepipe" / "local"
    except RuntimeError as problem:
        raise LocalCloudError(
            "there is no home folder to keep the local cloud's store in", hint=f"set HOME, or {ROOT_VARIABLE}"
        ) from problem


def default_base_cache(environ: Mapping[str, str]) -> Path | None:
    """Return the folder of base images for all stores, if the environment names one."""
    named = environ.get(BASE_CACHE_VARIABLE)
    return Path(named) if named else None


def _write_once(path: Path, text: str) -> None:
    """Make the file with this text, unless another process is first. No process sees it half written."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    try:
        path.hardlink_to(half)
    except FileExistsError:
        pass
    finally:
        half.unlink()
