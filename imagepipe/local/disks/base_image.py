"""The image that every region of the local cloud has from the start: Debian, like Debian's own cloud images.

mmdebstrap makes a tree from the distribution's mirror, a few files make it a cloud image, `mkfs.ext4 -d`
makes the tree a disk without mounting anything. About 40 s on two cores, once; then it is kept in the store.

A plain user does all this in a user namespace, as root there. mmdebstrap has a mode of its own for that (`unshare`),
but then the tree's root is a subordinate id, which may not enter the private folders above the tree.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from imagepipe.dataclass import dataclass
from imagepipe.deletion import mount_points
from imagepipe.errors import LocalCloudError
from imagepipe.files import sync
from imagepipe.local.disks import grub
from imagepipe.local.host import rootless
from imagepipe.local.host.processes import kill_group, start_time
from imagepipe.local.host.tools import run_tool
from imagepipe.local.store import Store

Progress = Callable[[str], None]

SUITE = "bookworm"
SIZE_GIB = 8  # as Debian's own image; sparse, so only its contents take space
TREE_BYTES = 700 << 20  # while it is made, package downloads included; the finished tree has 480 MiB
BUILD_BYTES = 3 * TREE_BYTES  # the tree, its disk, and a reserve
PACKAGES = (
    # Packages for the boot and the login, as on EC2.
    "linux-image-cloud-amd64", "systemd-sysv", "dbus", "openssh-server", "cloud-init", "sudo",
    "ifupdown", "isc-dhcp-client", "iproute2", "netbase", "iputils-ping",
    # Packages of Debian's cloud image that provisioning and tests rely on.
    "python3", "ca-certificates", "curl", "procps", "less", "nano",
    # Packages for a disk with partitions: the boot loader, and growpart.
    "grub-pc-bin", "grub2-common", "cloud-guest-utils",
)  # fmt: skip
LABEL = "rootfs"
CLOUD_CONFIG = """\
# The login user of Debian's images on EC2.
system_info:
  default_user:
    name: admin
    gecos: Debian
    lock_passwd: true
    groups: [adm, audio, cdrom, dialout, dip, floppy, netdev, plugdev, sudo, video]
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
    shell: /bin/bash
apt:
  preserve_sources_list: true
"""
FILES = {
    "etc/fstab": f"LABEL={LABEL} / ext4 defaults 0 1\n",
    "etc/hostname": "localhost\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    # The machines' own resolver; mmdebstrap copies the host's.
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    "etc/machine-id": "",
    "etc/cloud/cloud.cfg.d/01_debian_cloud.cfg": CLOUD_CONFIG,
    "etc/cloud/cloud.cfg.d/90_datasource.cfg": "datasource_list: [ NoCloud, None ]\n",
}
# Only on a disk with partitions: Debian's kernel packages update GRUB's configuration if grub.cfg exists.
GRUB_FILES = {
    "etc/default/grub": """\
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="net.ifnames=0 console=tty0 console=ttyS0,115200"
GRUB_TERMINAL="console serial"
GRUB_DISABLE_OS_PROBER=true
""",
    # The links in / follow Debian's newest kernel. update-grub replaces this with a file of its own.
    "boot/grub/grub.cfg": f"""\
serial --unit=0 --speed=115200
terminal_output serial console
search --no-floppy --label {LABEL} --set=root
linux /vmlinuz root=LABEL={LABEL} ro net.ifnames=0 console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
""",
}
REMOVED = (
    "etc/ssh/ssh_host_*",
    "var/log/*.log",
    "var/log/apt/*",
    "var/cache/apt/*.bin",
    "var/lib/dbus/machine-id",
)
# mmdebstrap has its own mount namespace, so its mounts (one is of this computer's /dev/shm) are never visible outside.
# It has its own process namespace, so its children end with it, and the mounts with them (unshare(1), --kill-child).
NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
STEP_SECONDS = 10.0
REAP_SECONDS = 10.0  # a killed builder's processes are gone a moment later
# Runs a command that is killed, with all its process group, when standard input ends: when we close it or are killed.
TETHER = 'exec 3<&0 </dev/null; ( exec >/dev/null 2>&1; read -r _ <&3; kill -9 0 ) & "$@" 3<&-'


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A disk that boots, with its attributes as EC2 describes them."""

    path: Path
    name: str
    description: str
    architecture: str
    size_gib: int
    created: datetime
    root_device: str = "/dev/xvda"
    user: str = "admin"
    boot_mode: str = "uefi-preferred"
    """The mode of Debian's own image. It allows a bare file system to boot its kernel without firmware."""
    disk_path: Path | None = None
    """The same system on a disk with GPT and boot loader, as EC2 requires; its image has `disk` in the name."""

    def as_disk(self) -> BaseImage | None:
        """Return the image of the disk with a boot loader; None if it was not built."""
        if self.disk_path is None:
            return None
        named = self.name.replace("debian-", "debian-disk-", 1)
        what = f"{self.description}, on a disk with GPT and boot loader"
        return replace(self, path=self.disk_path, name=named, description=what, disk_path=None, boot_mode="legacy-bios")


def recipe_key() -> str:
    """Return a digest of the recipe: a newer imagepipe must not use the image of an older recipe."""
    recipe = [SUITE, SIZE_GIB, PACKAGES, FILES, GRUB_FILES, REMOVED, LABEL, grub.LAYOUT]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def built_base(store: Store) -> BaseImage | None:
    """Return the base image of this recipe, if it has been built."""
    try:
        kept = json.loads((store.base_cache / f"{recipe_key()}.json").read_text())
    except FileNotFoundError:
        return None
    path, disk = store.base_cache / kept.pop("file"), store.base_cache / kept.pop("disk")
    if not path.exists():
        return None
    return BaseImage(
        **kept
        | {
            "path": path,
            "created": datetime.fromisoformat(kept["created"]),
            "disk_path": disk if disk.exists() else None,
        }
    )


def ensure_base(store: Store, progress: Progress) -> BaseImage:
    """Return the base image, and build it if needed; one process builds and the others wait for it.

    Raises LocalCloudError. Interrupted, it leaves no image and nothing running.
    """
    repair(store, progress)
    if base := built_base(store):
        return base
    with _only_builder(store.base_cache, progress):
        if base := built_base(store):
            return base
        return _build(store.base_cache, progress)


@contextmanager
def _only_builder(cache: Path, progress: Progress) -> Iterator[None]:
    with (cache / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("base image: waiting for another process that builds it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache.glob(".build-*"):  # by a builder that was killed
            _reap(left)
        yield


def repair(store: Store, progress: Progress = lambda line: None) -> None:
    """Unmount and delete what killed builders left, unless a builder is at work. Raises LocalCloudError."""
    if not any(store.base_cache.glob(".build-*")):
        return
    with (store.base_cache / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for folder in store.base_cache.glob(".build-*"):
            progress(f"base image: deleting {folder}, which a killed build left")
            _reap(folder)


def _build(cache: Path, progress: Progress) -> BaseImage:
    _check(cache)
    started = datetime.now(UTC)
    work = cache / f".build-{os.getpid()}"
    work.mkdir(mode=0o755)
    try:
        progress(f"base image: building Debian {SUITE} with mmdebstrap, once for this store (about a minute)")
        _bootstrap(work, progress)
        _make_a_cloud_image_of(work / "tree")
        progress("base image: making the disks")
        disk = _make_disk(work)
        whole = _make_disk_with_boot_loader(work)
        release = (work / "tree/etc/debian_version").read_text().strip()
        base = BaseImage(
            path=cache / f"debian-12-amd64-{recipe_key()}.raw",
            name=f"debian-12-amd64-{started:%Y%m%d}-local",
            description=f"Debian 12 ({release}), amd64, built by imagepipe for its local cloud",
            architecture="x86_64",
            size_gib=SIZE_GIB,
            created=started,
            disk_path=cache / f"debian-disk-12-amd64-{recipe_key()}.raw",
        )
        assert base.disk_path is not None
        for made, place in ((whole, base.disk_path), (disk, base.path)):
            made.chmod(0o400)
            made.rename(place)
        kept = {
            "file": base.path.name, "disk": base.disk_path.name, "name": base.name, "description": base.description,
            "architecture": base.architecture, "size_gib": base.size_gib, "created": base.created.isoformat(),
        }  # fmt: skip
        stamp = work / "stamp"
        stamp.write_text(json.dumps(kept))
        stamp.rename(cache / f"{recipe_key()}.json")  # last: an image without its stamp does not count
    finally:
        _reap(work)
    progress(f"base image: {base.name} is ready")
    return base


def _check(cache: Path) -> None:
    doing = "building the local cloud's base image"
    if platform.machine() != "x86_64":
        raise LocalCloudError(f"{doing}: only x86_64 is built yet; this computer is {platform.machine()}")
    missing = [tool for tool in ("mmdebstrap", "unshare", "mkfs.ext4", "sfdisk") if shutil.which(tool) is None]
    if missing:
        raise LocalCloudError(
            f"{doing}: {' and '.join(missing)} not found", hint="imagepipe local doctor says what to install"
        )
    if rootless.is_plain_user() and (lacks := rootless.lacks_of_ids()):
        raise LocalCloudError(
            f"{doing} as a plain user: " + "; ".join(f"{lack.what}: {lack.detail}" for lack in lacks),
            hint=f"as root: {' && '.join(dict.fromkeys(lack.remedy for lack in lacks))}",
        )
    room = shutil.disk_usage(cache).free
    if room < BUILD_BYTES:
        raise LocalCloudError(
            f"{doing}: {cache} has {room >> 20} MiB free; {BUILD_BYTES >> 20} MiB are needed",
            hint="free some room, or name a folder on another disk in IMAGEPIPE_LOCAL_STORE",
        )


def _bootstrap(work: Path, progress: Progress) -> None:
    """Install Debian's packages in `work/tree`, from mmdebstrap's own mirrors."""
    command = [
        *_namespaces(), "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
        f"--include={','.join(PACKAGES)}", SUITE, str(work / "tree"),
    ]  # fmt: skip
    # A session of its own, so that Ctrl-C reaches only this process, which then ends the build cleanly.
    with subprocess.Popen(
        ["sh", "-c", TETHER, "imagepipe-base", *command],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True, env=_plain_environment(work),
    ) as process:  # fmt: skip
        started = start_time(process.pid)
        (work / "builder").write_text(f"{process.pid} {started}")
        try:
            last = _relay(process.stderr, progress)
        except BaseException:
            kill_group(process.pid, started)
            if process.stderr is not None:
                process.stderr.read()  # to its end: then none of its processes is left
            raise
    if process.returncode != 0:
        raise LocalCloudError(
            f"building the local cloud's base image: mmdebstrap exited with {process.returncode}:\n{last}",
            hint="does `apt-get update` work here? The packages come from Debian's mirror",
        )


def _namespaces() -> tuple[str, ...]:
    """Return the prefix of mmdebstrap's command that gives it namespaces of its own.

    Root in a container may lack the privilege to make them. The privilege to mount is the same one (capabilities(7),
    CAP_SYS_ADMIN): mmdebstrap then works without mounts, so there are none to hide.
    """
    if rootless.is_plain_user():
        return (NAMESPACES[0], *rootless.as_root()[1:], *NAMESPACES[1:])
    return NAMESPACES if rootless.may_mount() else ()


def _plain_environment(work: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.endswith(("_proxy", "_PROXY")) or name == "PATH"}
    return kept | {"LC_ALL": "C.UTF-8", "TMPDIR": str(work)}


def _relay(stream: IO[bytes] | None, progress: Progress) -> str:
    """Report the steps that mmdebstrap names, and how long each takes; return its last lines."""
    assert stream is not None
    last: list[str] = []
    with _Steps(progress) as steps:
        for raw in stream:
            line = raw.decode(errors="replace").rstrip()
            last = [*last[-14:], line]
            if line.startswith("I: ") and line.endswith("..."):
                steps.begin(line.removeprefix("I: ").removesuffix("..."))
    return "\n".join(last)


class _Steps:
    """Reports a step when it begins, and every few seconds while it runs: some take a minute on a slow mirror."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._step, self._began = "", 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def begin(self, step: str) -> None:
        self._step, self._began = step, time.monotonic()
        self._progress(f"base image: {step}...")

    def _tell(self) -> None:
        while not self._ended.wait(STEP_SECONDS):
            seconds = time.monotonic() - self._began
            if self._step and seconds >= STEP_SECONDS:
                self._progress(f"base image: {self._step}, {seconds:.0f} s so far")

    def __enter__(self) -> _Steps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _make_a_cloud_image_of(tree: Path) -> None:
    for pattern in REMOVED:
        for path in tree.glob(pattern):
            path.unlink()
    _write(tree, FILES)


def _write(tree: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o644)


def _make_disk(work: Path) -> Path:
    """Make a bare file system."""
    disk = _empty_disk(work / "disk.raw")
    _make_file_system(work / "tree", disk, offset=0)
    return disk


def _make_disk_with_boot_loader(work: Path) -> Path:
    """Make a disk with partitions and a boot loader from the same tree."""
    disk = _empty_disk(work / "whole.raw")
    _write(work / "tree", GRUB_FILES)
    try:
        offset = grub.partition(disk)
        grub.install(disk, work / "tree", label=LABEL, as_root=rootless.as_root())
    except grub.BootLoaderError as problem:
        raise LocalCloudError(f"building the local cloud's base image: {problem}") from problem
    _make_file_system(work / "tree", disk, offset=offset)
    return disk


def _empty_disk(disk: Path) -> Path:
    disk.touch(mode=0o600)
    os.truncate(disk, SIZE_GIB << 30)
    return disk


def _make_file_system(tree: Path, disk: Path, *, offset: int) -> None:
    """Make a file system of the tree, from the offset up to the partition table's copy at the disk's end."""
    size_kib = ((SIZE_GIB << 30) - offset - (grub.TAIL_BYTES if offset else 0)) >> 10
    # A small journal: it is copied with each volume.
    command = [
        *rootless.as_root(),
        "mkfs.ext4", "-q", "-F", "-L", LABEL, "-J", "size=64", "-E", f"lazy_itable_init=1,offset={offset}",
        "-d", str(tree), str(disk), f"{size_kib}k",
    ]  # fmt: skip
    run_tool(command, error=LocalCloudError)
    sync(disk)


def _reap(work: Path) -> None:
    """End the processes that still build in this folder, unmount what is in it, and delete it. Raises LocalCloudError.

    Earlier versions mounted in the computer's own namespace, so their killed builds left mounts in the folder.
    """
    with suppress(FileNotFoundError, ValueError):
        pid, started = (work / "builder").read_text().split()
        kill_group(int(pid), started)
    for point in mount_points(work):
        subprocess.run(["umount", str(point)], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    deadline = time.monotonic() + REAP_SECONDS
    while True:
        try:
            rootless.delete(work)
        except OSError as problem:
            if time.monotonic() < deadline and problem.errno in (errno.ENOTEMPTY, errno.ENOENT):
                time.sleep(0.1)  # a process that is about to end has just made a file
                continue
            raise LocalCloudError(
                f"deleting {work}: {problem.strerror}",
                hint=f"nothing behind a mount point was deleted; end what uses it, and run: umount {work}/tree/dev/shm",
            ) from problem
        return
