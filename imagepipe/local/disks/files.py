"""Raw disk files of volumes and snapshots, sharing bytes wherever the file system can.

Snapshots are immutable sparse files; a copy of a snapshot is a hard link; a volume is a reflink, else a
sparse copy. The file system of a volume larger than its snapshot is grown when the volume is made.

A file is written under a name that begins with a dot, and renamed when it is complete. `sweep` deletes the incomplete
files of a killed process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagepipe.files import sync
from imagepipe.local.disks.contents import is_bare
from imagepipe.local.host import foreign
from imagepipe.local.host.tools import run_tool

FICLONE = 0x40049409  # linux/fs.h
BLOCK_BYTES = 512  # the unit of st_blocks (stat(2))
RESERVE_BYTES = 512 << 20  # left free: logs, journals and running machines must not meet a full disk
CHUNK_BYTES = 64 << 20
# Errors of copy_file_range after which read and write can still copy.
NOT_IN_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class StoreFull(Exception):
    """There is no room for a disk. Raised before anything is written."""

    def __init__(self, needed: int, free: int, reserve: int, where: Path) -> None:
        super().__init__(
            f"{where} has {free >> 20} MiB free; {needed >> 20} MiB are needed, and {reserve >> 20} MiB stay in reserve"
        )


class DiskError(Exception):
    """A disk file could not be made. The text names the action and the reason."""


class Disks:
    """The disk files of one store, in `volumes/` and `snapshots/` under its root."""

    def __init__(self, root: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.root = root
        self._volumes = root / "volumes"
        self._snapshots = root / "snapshots"
        self._reserve = reserve_bytes
        self._lock = threading.Lock()
        self._promised = 0  # most that the copies under way will still write
        for folder in (self._volumes, self._snapshots):
            folder.mkdir(parents=True, exist_ok=True)

    def volume_path(self, volume_id: str) -> Path:
        return self._volumes / f"{volume_id}.raw"

    def store_path(self, instance_id: str) -> Path:
        """Return the path of an instance's root on instance store, which is deleted with the instance."""
        return self._volumes / f"store-{instance_id}.raw"

    def snapshot_path(self, snapshot_id: str) -> Path:
        return self._snapshots / f"{snapshot_id}.raw"

    def snapshot_bytes(self, snapshot_id: str) -> int | None:
        """Return the bytes that a snapshot's blocks take; None if it has no file."""
        try:
            return self.snapshot_path(snapshot_id).stat().st_blocks * BLOCK_BYTES
        except OSError:
            return None

    def create_volume(self, volume_id: str, *, size_bytes: int, snapshot_id: str | None) -> Path:
        """Make a writable disk with the snapshot's bytes, or an empty one. Raises StoreFull, DiskError."""
        target = self.volume_path(volume_id)
        if snapshot_id is None:
            with _in_place_of(target) as half:
                half.touch(mode=0o600)
                os.truncate(half, size_bytes)
            return target
        source = self.snapshot_path(snapshot_id)
        source_size = source.stat().st_size
        if size_bytes < source_size:
            raise DiskError(f"volume {volume_id} of {size_bytes} bytes is smaller than {snapshot_id} ({source_size})")
        with _in_place_of(target) as half:
            self._clone(source, half)
            foreign.set_mode(half, 0o600, like=source)
            if size_bytes > source_size:
                os.truncate(half, size_bytes)
                if not foreign.is_foreign(source):  # this computer does not read such a disk; its own system grows it
                    _grow_file_system(half)
        return target

    def grow_volume(self, volume_id: str, size_bytes: int) -> None:
        """Lengthen a volume; one that is as long already is left alone. Its file system is not touched."""
        path = self.volume_path(volume_id)
        if path.stat().st_size < size_bytes:
            os.truncate(path, size_bytes)

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume; a missing one is success."""
        self.volume_path(volume_id).unlink(missing_ok=True)

    def snapshot(self, volume_id: str, snapshot_id: str) -> None:
        """Keep the volume's bytes as they are now, on stable storage. The volume must not change meanwhile."""
        with _in_place_of(self.snapshot_path(snapshot_id)) as half:
            self._clone(self.volume_path(volume_id), half)
            foreign.set_mode(half, 0o400, like=self.volume_path(volume_id))
            sync(half)

    def copy_snapshot(self, source_id: str, snapshot_id: str) -> None:
        """Copy a snapshot, which takes no room: a second name of the same file."""
        with _in_place_of(self.snapshot_path(snapshot_id)) as half:
            half.hardlink_to(self.snapshot_path(source_id))

    def adopt_snapshot(self, source: Path, snapshot_id: str) -> None:
        """Make a snapshot of a file that never changes, such as the base image, sharing its bytes if possible."""
        with _in_place_of(self.snapshot_path(snapshot_id)) as half:
            try:
                half.hardlink_to(source)
            except OSError as problem:
                if problem.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                    raise
                self._clone(source, half)
                foreign.set_mode(half, 0o400, like=source)
                sync(half)

    def import_snapshot(
        self, source: Path, snapshot_id: str, *, most_gib: int, make_raw: Callable[[Path], None] | None
    ) -> int:
        """Make a snapshot of a disk image from elsewhere. Return its size in GiB.

        `make_raw` writes the raw disk to a path; without it, the source is raw. Raises StoreFull, DiskError.
        """
        with _in_place_of(self.snapshot_path(snapshot_id)) as half:
            if make_raw is None:
                self._clone(source, half)
            else:
                with self._room_for(source.stat().st_size):  # a guess: the source may be compressed
                    make_raw(half)
            size = half.stat().st_size
            size_gib = -(-size // (1 << 30))
            if not 1 <= size_gib <= most_gib:
                raise DiskError(f"a disk of {size} bytes; a volume has 1 to {most_gib} GiB")
            os.truncate(half, size_gib << 30)
            foreign.set_mode(half, 0o400, is_foreign_itself=True)
            sync(half)
        return size_gib

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot; a missing one is success. Copies of it keep the bytes."""
        self.snapshot_path(snapshot_id).unlink(missing_ok=True)

    def used_bytes(self) -> int:
        """Count the bytes of volumes and snapshots; those shared by hard links count once."""
        seen = {(s.st_dev, s.st_ino): s.st_blocks * 512 for s in self._stats()}
        return sum(seen.values())

    def sweep(self) -> None:
        """Delete the incomplete files of a killed process. Call it only while nobody else uses these disks."""
        for folder in (self._volumes, self._snapshots):
            for half in folder.glob(".*.half"):
                half.unlink(missing_ok=True)

    def _stats(self) -> Iterator[os.stat_result]:
        for folder in (self._volumes, self._snapshots):
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    yield entry.stat()

    def _clone(self, source: Path, target: Path) -> None:
        with source.open("rb") as reader, target.open("xb") as writer:
            try:
                fcntl.ioctl(writer.fileno(), FICLONE, reader.fileno())
            except OSError:
                # EOPNOTSUPP on ext4, EXDEV between file systems, EINVAL or ENOTTY on others: all mean "copy".
                with self._room_for(os.fstat(reader.fileno()).st_blocks * 512):
                    _copy_sparse(reader.fileno(), writer.fileno())

    @contextmanager
    def _room_for(self, needed: int) -> Iterator[None]:
        """Reserve so many bytes for the caller within the block, or raise StoreFull."""
        with self._lock:
            room = os.statvfs(self._volumes)
            free = room.f_bavail * room.f_frsize
            # Reservations of others count in full, although part of them may be written already: this is too strict.
            if free - self._promised - needed < self._reserve:
                raise StoreFull(needed + self._promised, free, self._reserve, self._volumes.parent)
            self._promised += needed
        try:
            yield
        finally:
            with self._lock:
                self._promised -= needed


@contextmanager
def _in_place_of(target: Path) -> Iterator[Path]:
    """Give a path to make a file at; it becomes the target if the block succeeds, and is deleted if not."""
    half = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.half")
    try:
        yield half
        half.rename(target)
        sync(target.parent)
    finally:
        half.unlink(missing_ok=True)


def _copy_sparse(reader: int, writer: int) -> None:
    size = os.fstat(reader).st_size
    os.truncate(writer, size)
    copy: Callable[[int, int, int], int] = _copy_in_kernel
    at = 0
    while at < size:
        try:
            at = os.lseek(reader, at, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(reader, at, os.SEEK_HOLE)
        while at < end:
            os.lseek(reader, at, os.SEEK_SET)
            os.lseek(writer, at, os.SEEK_SET)
            try:
                at += copy(reader, writer, min(CHUNK_BYTES, end - at))
            except OSError as problem:
                if copy is _copy_by_hand or problem.errno not in NOT_IN_KERNEL:
                    raise
                copy = _copy_by_hand


def _copy_in_kernel(reader: int, writer: int, count: int) -> int:
    done = os.copy_file_range(reader, writer, count)
    if done == 0:
        raise OSError(errno.EIO, "the file became shorter while it was copied")
    return done


def _copy_by_hand(reader: int, writer: int, count: int) -> int:
    data = os.read(reader, min(count, 1 << 20))
    if not data:
        raise OSError(errno.EIO, "the file became shorter while it was copied")
    os.write(writer, data)
    return len(data)


def _grow_file_system(disk: Path) -> None:
    """Make an ext file system fill a disk that was enlarged; other contents stay as they are."""
    if not is_bare(disk):
        return
    # resize2fs wants a check since the last mount; e2fsck exits 1 when it has mended something.
    run_tool(["e2fsck", "-fp", str(disk)], error=DiskError, accept=(0, 1))
    run_tool(["resize2fs", str(disk)], error=DiskError)
