"""The image, fixed: what will be read, and where it has data. Kept in memory, so that a second agent finds it again."""

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
"""What an ext4 takes for itself beside what statvfs shows: inode tables 1.6 %, a journal, descriptors."""


class BundleRequest(NamedTuple):
    """What the controller asks for."""

    method: str
    """block, tree, or auto."""
    user: str
    """Who logs in."""
    scrub: str
    key: str
    """Of the build, to be taken out of authorized_keys; base64, a public key."""
    exclude: tuple[str, ...]
    size: int | None
    """Bytes of the image; None: as the source."""
    may_be_bare: bool
    """An image without partition table and boot loader is of use."""
    limit: int
    scan: str = ""
    """What must not be in the image (`hygiene.report.ScanRequest`, as a line); empty: it is looked at elsewhere."""


class RootImage(NamedTuple):
    """What is read, and where it has data."""

    method: str
    path: str
    size: int
    extents: list[Extent]
    modified: int

    @property
    def data_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)

    def blocks(self) -> Iterator[bytes]:
        """The data, in order, in blocks. Raises AgentError where the disk cannot be read."""
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
    """Ours in memory, made if need be: what is here is in no image."""
    kinds = {each.point: each.kind for each in mounts.mounted()}
    place = MEMORY if kinds.get(MEMORY) == "tmpfs" else "/dev/shm"  # noqa: S108 - root's own folder in it, by mkdir
    folder = Path(place) / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or not stat.S_ISDIR(folder.lstat().st_mode):
        raise AgentError(f"keeping notes in {folder}: it is somebody else's")
    return folder


def known(folder: Path) -> RootImage | None:
    """What an agent before this one fixed."""
    with suppress(OSError, ValueError, KeyError):
        found = json.loads((folder / FILE).read_text())
        extents = [Extent(*each) for each in found.pop("extents")]
        return RootImage(extents=extents, **found)
    return None


def prepare(wanted: BundleRequest, folder: Path, say: Callable[[str], None]) -> RootImage:
    """Make the machine stand still, scrub it, and say where the image's data is. Raises AgentError."""
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
    # An agent before this one may have come so far that nobody can write any more, and been killed then.
    if not (scrubbed.exists() and quiesce.are_read_only(["/"])):
        quiesce.scrub(script, wanted.key, root, others, say)
        scrubbed.touch()
    if wanted.scan:
        say("looking for what must not be in the image")
        # Our own view of the root is among the points, and no second disk.
        trees = [Tree(str(root)), *(tree for tree in disks_of_this_machine()[1:] if tree.point in others)]
        report = without(scan(trees, ScanRequest.parse(wanted.scan.encode())), wanted.exclude)
        (folder / REPORT).write_text(report.line())
    made = _block(source, points, wanted, say) if source is not None else _tree(root, wanted, say)
    _keep(made, folder)
    return made


def without(report: Report, exclude: Sequence[str]) -> Report:
    """A report without what the image does not get: of a tree, what is excluded."""
    left = tuple(
        each
        for each in report.findings
        if not any(each.path == path or each.path.startswith(path + "/") for path in exclude)
    )
    return report._replace(findings=left)


def reported(folder: Path) -> str:
    """What the look at the image found, as a line; empty where there was none."""
    with suppress(FileNotFoundError):
        return (folder / REPORT).read_text()
    return ""


def _method(wanted: BundleRequest) -> str:
    contained = quiesce.is_container()
    if wanted.method == "block" and contained:
        raise AgentError(
            "reading the root's disk: the machine is a container, and has none of its own", "use method: tree, or auto"
        )
    if wanted.method != "auto":
        return wanted.method
    return "tree" if contained or wanted.exclude or wanted.size else "block"


def _root_view(folder: Path) -> Path:
    """The root's file system as it is on the disk, without what is mounted in it."""
    view = folder / "root"
    view.mkdir(exist_ok=True)
    if not os.path.ismount(str(view)):
        mounts.bind("/", str(view))
    return view


def _block(source: disk.Disk, points: list[str], wanted: BundleRequest, say: Callable[[str], None]) -> RootImage:
    if source.size > wanted.limit:
        raise AgentError(
            f"reading {source.device}: it has {source.size / (1 << 30):.1f} GiB, and EC2 takes {wanted.limit >> 30}",
            "launch with a smaller root volume, or use method: tree with size_gib",
        )
    if not source.has_table and not wanted.may_be_bare:
        raise AgentError(
            f"reading {source.device}: it has no partition table, so no boot loader that an HVM instance could start"
        )
    quiesce.end_writers(Path("/"), say)
    quiesce.make_read_only(points, say)
    say(f"{source.device} of {source.size >> 20} MiB is read as it is; no room on a disk is needed")
    return RootImage("block", source.device, source.size, disk.data_extents(source), int(time.time()))


def _tree(root: Path, wanted: BundleRequest, say: Callable[[str], None]) -> RootImage:
    source, why_none = None, ""
    try:
        source = disk.disk_of_root()
    except AgentError as trouble:
        why_none = str(trouble)
    has_table = source is not None and source.has_table
    if not has_table and not wanted.may_be_bare:
        why = why_none or f"the source disk {source.device if source else ''} has none"
        raise AgentError(
            f"taking over partition table and boot loader: {why}",
            "an HVM instance needs them: launch from an image that has them",
        )
    if not has_table:
        say("the image is a bare file system, without boot loader: the local cloud boots it, EC2 boots it as PV alone")
    for point in tree.other_disks():
        say(f"{point} is another file system, and is left out: its mount point stays")
    likeness = tree.layout_of(source.root.device if source else None, root)
    scratch = root / tree.STAGED
    staged = tree.stage(root, scratch, wanted.exclude)
    size = wanted.size or (source.size if source else _size_of(root))
    if size > wanted.limit:
        raise AgentError(f"making an image of {size / (1 << 30):.1f} GiB: EC2 takes {wanted.limit >> 30}")
    place = tree.place_for(tree.needed_bytes(staged), root, say)
    folder = scratch if place == root else place / tree.STAGED
    folder.mkdir(mode=0o700, exist_ok=True)
    image = folder / "image"
    try:
        for _ in range(TRIES):
            _fill(staged, image, likeness, source if has_table else None, size)
            files = tree.changed(staged)
            if not files:
                break
            say("written to meanwhile, so once more: {}".format(", ".join(files[:5])))
            image.unlink()
            staged = tree.stage(root, scratch, wanted.exclude)
            folder.mkdir(mode=0o700, exist_ok=True)
        else:
            raise AgentError(
                "copying the root: written to all the time: {}".format(", ".join(files[:5])),
                "stop what writes in a provisioning step",
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
    """Of a file system whose device cannot be seen: what it has, with what it takes for itself."""
    stats = os.statvfs(str(root))
    return -(-int(stats.f_blocks * stats.f_frsize * OWN_SHARE) // (1 << 20)) << 20


def _keep(made: RootImage, folder: Path) -> None:
    record: dict[str, Any] = dict(made._asdict())
    half = folder / (FILE + ".new")
    half.write_text(json.dumps(record))
    half.rename(folder / FILE)
