"""Prepare the root for bundling: choose the disk or file to read, and find its data. A second agent can continue."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from imagepipe.bundle.extents import Extent
from imagepipe.bundle.flow import BLOCK_BYTES
from imagepipe.capture.agent import disk, mounts, quiesce, tree
from imagepipe.capture.agent.errors import AgentError
from imagepipe.hygiene.report import Report, ScanRequest
from imagepipe.hygiene.walk import Tree, disks_of_this_machine, scan

MEMORY = "/run"
FOLDER = "imagepipe-bundle"
FILE = "fixed.json"
REPORT = "hygiene"
TRIES = 3
OWN_SHARE = 1.035
"""Overhead of ext4 that statvfs does not show: inode tables (1.6 %), journal, descriptors."""


class BundleRequest(NamedTuple):
    """The controller's request."""

    method: str
    """Method: block, tree or auto."""
    user: str
    """Login user."""
    scrub: str
    key: str
    """Public key of the build in base64, to be removed from authorized_keys."""
    exclude: tuple[str, ...]
    size: int | None
    """Size of the image in bytes; None for the source's size."""
    may_be_bare: bool
    """An image without partition table and boot loader is acceptable."""
    limit: int
    scan: str = ""
    """Line of a `hygiene.report.ScanRequest`; empty if the image is scanned elsewhere."""


class RootImage(NamedTuple):
    """The prepared image: its file or device, and the extents with data."""

    method: str
    path: str
    size: int
    extents: list[Extent]
    modified: int

    @property
    def data_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)

    def blocks(self) -> Iterator[bytes]:
        """Yield the data in order, in blocks. Raises AgentError if the disk cannot be read."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            for extent in self.extents:
                at = extent.offset
                while at < extent.end:
                    block = os.pread(fd, min(BLOCK_BYTES, extent.end - at), at)
                    if not block:
                        raise AgentError(f"reading {self.path}: it ended at {at} of {self.size} bytes")
                    yield block
                    at += len(block)
        except OSError as error:
            raise AgentError(f"reading {self.path}: {error.strerror}") from error
        finally:
            os.close(fd)


def memory_folder() -> Path:
    """Return our folder in memory, created if necessary; its contents are never in an image."""
    kinds = {each.point: each.kind for each in mounts.mounted()}
    place = MEMORY if kinds.get(MEMORY) == "tmpfs" else "/dev/shm"  # noqa: S108 - root's own folder in it, by mkdir
    folder = Path(place) / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or not stat.S_ISDIR(folder.lstat().st_mode):
        raise AgentError(f"using {folder}: it belongs to another user")
    return folder


def known(folder: Path) -> RootImage | None:
    """Return the image that an earlier agent prepared."""
    with suppress(OSError, ValueError, KeyError):
        found = json.loads((folder / FILE).read_text())
        extents = [Extent(*each) for each in found.pop("extents")]
        return RootImage(extents=extents, **found)
    return None


def prepare(wanted: BundleRequest, folder: Path, say: Callable[[str], None]) -> RootImage:
    """Quiesce and scrub the machine, and find the image's data. Raises AgentError."""
    method = _method(wanted)
    root = _root_view(folder)
    quiesce.keep_way_in(wanted.user, folder)
    quiesce.end_writers(root, say)
    if method == "tree":
        quiesce.close_root(say)
    source = disk.disk_of_root() if method == "block" else None
    points = disk.points_on(source) if source else ["/"]
    script, scrubbed = folder / "scrub.sh", folder / "scrubbed"
    script.write_text(wanted.scrub)
    others = [point for point in points if point != "/"]
    # An earlier agent may have been killed after it had made the root read-only.
    if not (scrubbed.exists() and quiesce.are_read_only(["/"])):
        quiesce.scrub(script, wanted.key, root, others, say)
        scrubbed.touch()
    if wanted.scan:
        say("scanning the image for files that must not be in it")
        # Our own view of the root is listed as well, but it is not another disk.
        trees = [Tree(str(root)), *(tree for tree in disks_of_this_machine()[1:] if tree.point in others)]
        report = without(scan(trees, ScanRequest.parse(wanted.scan.encode())), wanted.exclude)
        (folder / REPORT).write_text(report.line())
    made = _block(source, points, wanted, say) if source is not None else _tree(root, wanted, say)
    _keep(made, folder)
    return made


def without(report: Report, exclude: Sequence[str]) -> Report:
    """Remove findings in excluded paths from a report, because the image will not contain those paths."""
    left = tuple(
        each
        for each in report.findings
        if not any(each.path == path or each.path.startswith(path + "/") for path in exclude)
    )
    return report._replace(findings=left)


def reported(folder: Path) -> str:
    """Return the line with the scan's report; empty if there was no scan."""
    with suppress(FileNotFoundError):
        return (folder / REPORT).read_text()
    return ""


def _method(wanted: BundleRequest) -> str:
    contained = quiesce.is_container()
    if wanted.method == "block" and contained:
        raise AgentError(
            "reading the root's disk: the machine is a container, which has no disk of its own",
            "use method: tree, or auto",
        )
    if wanted.method != "auto":
        return wanted.method
    return "tree" if contained or wanted.exclude or wanted.size else "block"


def _root_view(folder: Path) -> Path:
    """Mount the root's file system without the mounts in it."""
    view = folder / "root"
    view.mkdir(exist_ok=True)
    if not os.path.ismount(str(view)):
        mounts.bind("/", str(view))
    return view


def _block(source: disk.Disk, points: list[str], wanted: BundleRequest, say: Callable[[str], None]) -> RootImage:
    if source.size > wanted.limit:
        raise AgentError(
            f"reading {source.device}: it has {source.size / (1 << 30):.1f} GiB; EC2's limit is {wanted.limit >> 30}",
            "launch with a smaller root volume, or use method: tree with size_gib",
        )
    if not source.has_table and not wanted.may_be_bare:
        raise AgentError(
            f"reading {source.device}: it has no partition table, and so no boot loader for an HVM instance"
        )
    quiesce.end_writers(Path("/"), say)
    quiesce.make_read_only(points, say)
    say(f"{source.device} ({source.size >> 20} MiB) is read directly, so no disk space is needed")
    return RootImage("block", source.device, source.size, disk.data_extents(source), int(time.time()))


def _tree(root: Path, wanted: BundleRequest, say: Callable[[str], None]) -> RootImage:
    source, problem = None, ""
    try:
        source = disk.disk_of_root()
    except AgentError as error:
        problem = str(error)
    has_table = source is not None and source.has_table
    if not has_table and not wanted.may_be_bare:
        why = problem or f"the source disk {source.device if source else ''} has no partition table"
        raise AgentError(
            f"copying the partition table and boot loader: {why}",
            "an HVM instance needs them: launch from an image that has them",
        )
    if not has_table:
        say("the image is a bare file system without a boot loader: the local cloud boots it, EC2 only as paravirtual")
    for point in tree.other_disks():
        say(f"{point} is another file system: only its mount point is in the image")
    layout = tree.layout_of(source.root.device if source else None, root)
    scratch = root / tree.STAGED
    staged = tree.stage(root, scratch, wanted.exclude)
    size = wanted.size or (source.size if source else _size_of(root))
    if size > wanted.limit:
        raise AgentError(f"making an image of {size / (1 << 30):.1f} GiB: EC2's limit is {wanted.limit >> 30} GiB")
    place = tree.place_for(tree.needed_bytes(staged), root, say)
    folder = scratch if place == root else place / tree.STAGED
    folder.mkdir(mode=0o700, exist_ok=True)
    image = folder / "image"
    try:
        for _ in range(TRIES):
            _fill(staged, image, layout, source if has_table else None, size)
            files = tree.changed(staged)
            if not files:
                break
            say("files changed in the meantime, trying again: {}".format(", ".join(files[:5])))
            image.unlink()
            staged = tree.stage(root, scratch, wanted.exclude)
            folder.mkdir(mode=0o700, exist_ok=True)
        else:
            raise AgentError(
                "copying the root: files keep changing: {}".format(", ".join(files[:5])),
                "stop the processes that write them in a provisioning step",
            )
        mounts.delete_tree(staged.folder if folder == scratch else scratch)
        return RootImage("tree", str(image), size, tree.file_extents(image), int(time.time()))
    except BaseException:
        for left in (scratch, folder):
            with suppress(AgentError):
                mounts.delete_tree(left)
        raise


def _fill(staged: tree.Staged, image: Path, layout: tree.FilesystemLayout, source: disk.Disk | None, size: int) -> None:
    fd = os.open(str(image), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    os.ftruncate(fd, size)
    os.close(fd)
    if source is None:
        tree.fill(staged, image, layout, offset=0, size=size)
        return
    room = tree.lay_out_disk(source, image, size)
    tree.fill(staged, image, layout, offset=room.offset, size=room.size)


def _size_of(root: Path) -> int:
    """Return the size of a file system whose device is not visible: its capacity and its own overhead."""
    stats = os.statvfs(str(root))
    return -(-int(stats.f_blocks * stats.f_frsize * OWN_SHARE) // (1 << 20)) << 20


def _keep(made: RootImage, folder: Path) -> None:
    record: dict[str, Any] = dict(made._asdict())
    half = folder / (FILE + ".new")
    half.write_text(json.dumps(record))
    half.rename(folder / FILE)
