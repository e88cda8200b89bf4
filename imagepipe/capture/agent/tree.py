"""Make a new file system with the root's files: if the disk cannot be read, or to change its size or leave files out.

The tree is first staged as hard links beside it, so that exclusions cost nothing and `mke2fs -d` can fill the file
system without mounting anything.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from imagepipe.bundle.extents import Extent, merged, not_holes
from imagepipe.capture.agent import mounts
from imagepipe.capture.agent.disk import Disk, Partition
from imagepipe.capture.agent.errors import AgentError, output_of

EMPTIED = ("dev", "proc", "sys", "run", "tmp", "mnt", "media")
"""Folders of the root whose content is never in an image (docs/explanation/image-kinds.md)."""
LEFT_OUT = ("lost+found",)
"""Folders that are left out because mke2fs creates them."""
STAGED = ".imagepipe-bundle"
FEATURES = re.compile(r"^Filesystem features: *(.*)$", re.MULTILINE)
NOT_KEPT = frozenset({"needs_recovery", "orphan_present", "has_snapshot", "shared_blocks", "verity", "casefold"})
"""Features that are a state rather than a choice, or that cannot be set when a file system is created."""
OVERHEAD = 1.08
"""Overhead relative to the data, for extents, folders and bitmaps; inodes are counted separately."""
INODE_BYTES = 256


class FilesystemLayout(NamedTuple):
    """The properties that the new file system takes over from the root's."""

    kind: str
    features: tuple[str, ...] = ()
    uuid: str = ""
    label: str = ""
    block_bytes: int = 4096
    inode_bytes: int = INODE_BYTES
    reserved_percent: float = 5.0


class Staged(NamedTuple):
    """The staged tree, ready to fill a file system."""

    folder: Path
    data_bytes: int
    entries: int
    seen: dict[str, tuple[int, int, int]]
    """Inode, size and change time of each file by path, to notice changes afterwards."""


def layout_of(device: str | None, root: Path) -> FilesystemLayout:
    """Return the layout of the root's file system, as far as it is visible from inside."""
    kind = _kind(root)
    if kind not in ("ext2", "ext3", "ext4"):
        raise AgentError(
            f"making a new file system: the root is {kind}; method tree supports only ext2, ext3 and ext4",
            "use method: block",
        )
    if device is not None and os.access(device, os.R_OK):
        with suppress(AgentError):
            output = output_of(["dumpe2fs", "-h", device], doing="reading the root's file system")
            return _parse_layout(kind, output)
    uuid, label = _of_fstab(root)
    return FilesystemLayout(kind, uuid=uuid, label=label)


def stage(root: Path, folder: Path, exclude: tuple[str, ...]) -> Staged:
    """Stage the tree as hard links in `folder`, which must be on the same file system and mount."""
    mounts.delete_tree(folder)
    folder.mkdir(parents=True, mode=0o700)
    left_out = {*(path.strip("/") for path in exclude), *LEFT_OUT, folder.relative_to(root).parts[0]}
    target = folder / "tree"
    seen: dict[str, tuple[int, int, int]] = {}
    bytes_of: dict[int, int] = {}
    copies: dict[int, str] = {}
    folders: list[tuple[str, str]] = []
    entries = 0
    for path, is_folder in _walk(str(root), left_out):
        entries += 1
        source, made = os.path.join(str(root), path), os.path.join(str(target), path)  # noqa: PTH118 - faster
        if is_folder:
            os.mkdir(made)  # noqa: PTH102
            folders.append((source, made))
        elif _link(source, made, copies):
            found = os.lstat(made)
            seen[made] = (found.st_ino, found.st_size, found.st_mtime_ns)
            bytes_of[found.st_ino] = found.st_blocks * 512
    for source, made in reversed(folders):  # last, because each new entry changes its folder's times
        with suppress(FileNotFoundError):
            _dress(source, made)
    return Staged(target, sum(bytes_of.values()), entries, seen)


def needed_bytes(staged: Staged) -> int:
    """Return the smallest size of a file system for the tree."""
    return int(staged.data_bytes * OVERHEAD) + staged.entries * (INODE_BYTES + 64) + (8 << 20)


def place_for(size: int, root: Path, say: Callable[[str], None]) -> Path:
    """Return a folder with enough space for an image: on the root, on another disk or in memory."""
    found = [(root, "the root"), *((Path(point), point) for point in other_disks()), (Path("/dev/shm"), "memory")]  # noqa: S108
    rooms: list[str] = []
    for place, name in found:
        if place != root:  # the tree is staged there
            mounts.delete_tree(place / STAGED)  # left by an agent that was killed
        with suppress(OSError):
            stats = os.statvfs(str(place))
            free = stats.f_bavail * stats.f_frsize
            if name == "memory":
                free = min(free, _spare_memory())
            if free > size + (64 << 20):
                say(f"the image temporarily needs {_mib(size)}: using {name}, which has {_mib(free)} free")
                return place
            rooms.append(f"{name} has {_mib(free)}")
    raise AgentError(
        "finding space for the image: it temporarily needs {}; {}".format(_mib(size), ", ".join(rooms)),
        "use a larger root volume (launch.block_devices), attach a volume, exclude paths, or use method: block",
    )


def fill(staged: Staged, image: Path, layout: FilesystemLayout, *, offset: int, size: int) -> None:
    """Create the file system at this offset of the image file and fill it. Raises AgentError."""
    if needed_bytes(staged) > size:
        raise AgentError(
            f"filling the file system: the root needs {_mib(needed_bytes(staged))}, but size_gib leaves {_mib(size)}",
            "raise output.size_gib, or exclude more paths",
        )
    command = ["mke2fs", "-q", "-F", "-t", layout.kind, "-b", str(layout.block_bytes), "-I", str(layout.inode_bytes)]
    command += ["-m", f"{layout.reserved_percent:g}"]
    if layout.features:
        command += ["-O", ",".join(("none", *(each for each in layout.features if each not in NOT_KEPT)))]
    if layout.uuid:
        command += ["-U", layout.uuid]
    if layout.label:
        command += ["-L", layout.label]
    inodes = max(size // 16384, staged.entries + staged.entries // 4)
    command += ["-N", str(inodes), "-E", f"offset={offset},lazy_itable_init=1,nodiscard,root_owner=0:0"]
    command += ["-d", str(staged.folder), str(image), f"{size // 1024}k"]
    try:
        output_of(command, doing="filling the file system", seconds=None)
    except AgentError as error:
        raise AgentError(str(error), error.hint or _hint_of(str(error))) from error


def changed(staged: Staged) -> list[str]:
    """Return the files that were changed or replaced since they were staged."""
    found = []
    for path, before in staged.seen.items():
        now = os.lstat(path)
        if (now.st_ino, now.st_size, now.st_mtime_ns) != before:
            found.append("/" + os.path.relpath(path, str(staged.folder)))
    return found


def lay_out_disk(disk: Disk, image: Path, size: int) -> Partition:
    """Write the source disk's partition table and boot loader to an image of another size; return the root's place.

    Everything before the root is copied; the root must be the last partition and gets the rest. Raises AgentError.
    """
    root = disk.root
    if any(each.offset > root.offset for each in disk.partitions):
        raise AgentError(
            f"copying the partition table: a partition of {disk.device} comes after the root's", "use method: block"
        )
    table = output_of(["sfdisk", "--dump", disk.device], doing="reading the partition table of " + disk.device)
    end = size - (1 << 20)  # space for the backup GPT
    with image.open("r+b") as target, Path(disk.device).open("rb") as source:
        target.truncate(size)
        _copy(source.fileno(), target.fileno(), root.offset)
        boot_code = os.pread(source.fileno(), 440, 0)
    script = "\n".join(_resized(line, root, end - root.offset) for line in table.splitlines() if _is_kept(line))
    output_of(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never", str(image)],
        doing="writing the partition table",
        stdin=(script + "\n").encode(),
    )
    with image.open("r+b") as target:
        target.write(boot_code)
    return Partition("", root.offset, end - root.offset)


def file_extents(image: Path) -> list[Extent]:
    """Return the extents of a sparse file that have data."""
    with image.open("rb") as file:
        return list(merged(not_holes(file.fileno(), image.stat().st_size)))


def _walk(root: str, left_out: set[str]) -> Iterator[tuple[str, bool]]:
    """Yield every path below the root, relative to it, and whether it is a folder; a folder before its contents."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        yield folder, True
        if folder in EMPTIED:
            continue
        for entry in _entries(os.path.join(root, folder)):  # noqa: PTH118
            path = folder + "/" + entry.name if folder else entry.name
            if path in left_out:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif not _is_socket(entry):
                yield path, False


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name; empty if the folder is gone by now."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return sorted(entries, key=lambda each: each.name)
    return []


def _is_socket(entry: os.DirEntry[str]) -> bool:
    with suppress(FileNotFoundError):
        return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    return False


def _link(source: str, made: str, copies: dict[int, str]) -> bool:
    """Hard-link a file under another name. Return False if it is gone by now.

    A file that cannot get another link, because it is immutable or has too many, is copied once instead. `copies` holds
    the copies by inode.
    """
    try:
        os.link(source, made, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK):
            raise AgentError(f"staging {source}: {error.strerror}") from error
        inode = os.lstat(source).st_ino
        if inode in copies:
            with suppress(OSError):  # the copy may have reached its limit of links, too
                os.link(copies[inode], made, follow_symlinks=False)
                return True
        output_of(["cp", "-a", "--sparse=always", source, made], doing="staging " + source)
        copies[inode] = made
    return True


def _dress(source: str, made: str) -> None:
    """Copy a folder's owner, mode, extended attributes (including ACLs) and times."""
    found = os.stat(source)  # noqa: PTH116 - faster than pathlib
    os.chown(made, found.st_uid, found.st_gid)
    os.chmod(made, stat.S_IMODE(found.st_mode))  # noqa: PTH101
    for name in os.listxattr(source):
        with suppress(OSError):
            os.setxattr(made, name, os.getxattr(source, name))
    os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))


def _kind(root: Path) -> str:
    device = root.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((each.kind for each in mounts.mounted() if each.device == wanted), "unknown")


def _parse_layout(kind: str, output: str) -> FilesystemLayout:
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in output.splitlines())}
    blocks, reserved = int(fields["Block count"]), int(fields["Reserved block count"])
    label = fields.get("Filesystem volume name", "")
    found = FEATURES.search(output)
    return FilesystemLayout(
        kind,
        tuple(found.group(1).split()) if found else (),
        fields["Filesystem UUID"],
        "" if label == "<none>" else label,
        int(fields["Block size"]),
        int(fields["Inode size"]),
        round(100.0 * reserved / blocks, 2),
    )


def _of_fstab(root: Path) -> tuple[str, str]:
    """Return the UUID and label by which fstab identifies the root."""
    with suppress(OSError):
        for line in (root / "etc/fstab").read_text(errors="replace").splitlines():
            fields = line.split()
            if len(fields) > 1 and fields[1] == "/" and not line.lstrip().startswith("#"):
                name, _, value = fields[0].partition("=")
                return (value.lower() if name == "UUID" else "", value if name == "LABEL" else "")
    return "", ""


def other_disks() -> Iterator[str]:
    """Return the mount points of writable file systems on disks, except the root's."""
    for each in mounts.mounted():
        is_disk = each.kind in ("ext4", "xfs", "ext3", "btrfs") and each.root == "/" and each.point != "/"
        if is_disk and not each.is_read_only and not each.point.startswith(("/boot", "/run")):
            yield each.point


def _spare_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 // 2
    return 0


def _is_kept(line: str) -> bool:
    """Return whether to keep a header line. `last-lba` is of the old size; only new versions know `sector-size`."""
    return not line.startswith(("last-lba:", "sector-size:"))


def _resized(line: str, root: Partition, size: int) -> str:
    """Return a partition's line, with the new size if it is the root's."""
    match = re.match(r"^(\S+) : start= *(\d+), size= *(\d+)(.*)$", line)
    if match is None:
        return line
    device, start, old, rest = match.groups()
    if int(start) * 512 == root.offset:
        old = str(size // 512)
    return f"{device} : start={start}, size={old}{rest}"


def _copy(source: int, target: int, count: int) -> None:
    at = 0
    while at < count:
        block = os.pread(source, min(1 << 20, count - at), at)
        if not block:
            return
        if block.strip(b"\0"):
            os.pwrite(target, block, at)
        at += len(block)


def _hint_of(output: str) -> str:
    if "ould not allocate" in output or "No space" in output:
        return "raise output.size_gib, or exclude more paths"
    return ""


def _mib(size: int) -> str:
    return f"{-(-size // (1 << 20))} MiB"
