"""The tar in a bundle: one member, plain or in GNU tar's old sparse format (type S).

Other sparse formats are not written, because euca-unbundle cannot read them. Numbers from 8 GiB on are base-256.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from imagepipe.bundle.extents import Extent
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError

BLOCK = 512
RECORD = 20 * BLOCK
"""Size of a record, to which GNU tar pads an archive."""
IN_HEADER, IN_EXTENSION = 4, 21
"""Number of sparse map entries in the header and in each block after it."""
MAX_EXTENTS = 1 << 19
"""Largest sparse map that is accepted; a list of this length takes about 70 MB."""
MAX_EXTRA_BYTES = 64 << 10
"""Largest long name or PAX record before the member."""


@dataclass(frozen=True, slots=True)
class Member:
    """The description of the member in the head of the tar."""

    size: int
    """Size of the image in bytes."""
    extents: Sequence[Extent]
    """Extents whose data follows in the tar without padding; everything else is zeros."""

    @property
    def data_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)


def head(name: str, member: Member, *, modified: int) -> bytes:
    """Return header and sparse map of the member; its data and `tail` follow."""
    is_sparse = list(member.extents) != ([Extent(0, member.size)] if member.size else [])
    header = bytearray(BLOCK)
    header[0 : len(name)] = name.encode("ascii")
    header[100:124] = b"0000600\0" + b"0000000\0" * 2
    header[124:136] = _number(member.data_bytes)
    header[136:148] = _number(modified)
    header[156:157] = b"S" if is_sparse else b"0"
    header[257:265] = b"ustar  \0"
    header[265:269] = header[297:301] = b"root"
    header[329:345] = b"0000000\0" * 2
    blocks: list[bytes] = []
    if is_sparse:
        entries = list(member.extents)
        if not entries or entries[-1].end < member.size:
            entries.append(Extent(member.size, 0))  # as GNU tar does if the file ends with a hole
        header[386:482] = _entries(entries[:IN_HEADER], IN_HEADER)
        header[482] = len(entries) > IN_HEADER
        header[483:495] = _number(member.size)
        blocks = list(_extensions(entries[IN_HEADER:]))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"".join(blocks)


def tail(size: int) -> bytes:
    """Return the end of a tar: padding of the data, two empty blocks, padding to a record."""
    end = size + -size % BLOCK + 2 * BLOCK
    return bytes(end + -end % RECORD - size)


def read_head(take: Callable[[int], bytes]) -> Member:
    """Read the first member; `take(count)` returns exactly `count` bytes of the tar. Raises BundleError."""
    header = take(BLOCK)
    size_in_pax: int | None = None
    while True:
        _check(header)
        kind = header[156:157]
        if kind not in b"xgLK":
            break
        length = _value(header[124:136])
        if length > MAX_EXTRA_BYTES:
            raise BundleError("the tar in the bundle has too long a name or attributes")
        records = take(length + -length % BLOCK)[:length]
        if kind == b"x":
            size_in_pax = _size_in(records)
        header = take(BLOCK)
    size = _value(header[124:136]) if size_in_pax is None else size_in_pax
    match kind:
        case b"0" | b"\0" | b"7":
            return Member(size, (Extent(0, size),) if size else ())
        case b"S":
            real = _value(header[483:495])
            member = Member(real, tuple(_read_map(header, take, real)))
            if member.data_bytes != size:
                raise BundleError("the tar in the bundle is invalid: its sparse map does not match its size")
            return member
        case _:
            raise BundleError(f"the tar in the bundle begins with a member of type {kind!r}, which is not a file")


def _read_map(header: bytes, take: Callable[[int], bytes], size: int) -> Iterator[Extent]:
    fields, is_extended = header[386:482], header[482]
    at = count = 0
    while True:
        for begin in range(0, len(fields), 24):
            entry = fields[begin : begin + 24]
            if not entry.strip(b"\0"):
                break
            extent = Extent(_value(entry[:12]), _value(entry[12:]))
            count += 1
            if extent.offset < at or extent.end > size:
                raise BundleError("the sparse map of the tar in the bundle is not in order, or goes beyond the image")
            at = extent.end
            if extent.length:
                yield extent
        if not is_extended:
            return
        count += 1  # counts extensions without entries too, so that the loop ends
        if count > MAX_EXTENTS:
            raise BundleError("the sparse map of the tar in the bundle is too long")
        block = take(BLOCK)
        fields, is_extended = block[: IN_EXTENSION * 24], block[504]


def _check(header: bytes) -> None:
    """Raise BundleError if the header's checksum is wrong."""
    expected = _value(header[148:156])
    bare = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in bare)  # as some old tar programs compute it
    if expected not in (sum(bare), signed):
        raise BundleError("the bundle's content is not a tar: its first block has a wrong checksum")


def _size_in(records: bytes) -> int | None:
    """Return the `size` in PAX records: `LENGTH KEY=VALUE\\n`, one after the other."""
    size: int | None = None
    while records:
        length, _, _ = records.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(records):
            raise BundleError("the tar in the bundle has damaged PAX attributes")
        record, records = records[len(length) + 1 : int(length) - 1], records[int(length) :]
        key, _, value = record.partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise BundleError("the tar in the bundle uses PAX's sparse format, which no tool for bundles reads")
        if key == b"size":
            if not value.isdigit():
                raise BundleError("the tar in the bundle has damaged PAX attributes")
            size = int(value)
    return size


def _entries(extents: Sequence[Extent], room: int) -> bytes:
    return b"".join(_number(e.offset) + _number(e.length) for e in extents).ljust(room * 24, b"\0")


def _extensions(extents: Sequence[Extent]) -> Iterator[bytes]:
    for begin in range(0, len(extents), IN_EXTENSION):
        end = begin + IN_EXTENSION
        yield (_entries(extents[begin:end], IN_EXTENSION) + bytes([end < len(extents)])).ljust(BLOCK, b"\0")


def _number(value: int) -> bytes:
    """Format a field of 12 bytes: octal, or base-256 from 8 GiB on."""
    return b"%011o\0" % value if value < 8**11 else b"\x80" + value.to_bytes(11, "big")


def _value(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not text:
        return 0
    try:
        return int(text, 8) if text.isdigit() else _not_a_number(field)
    except ValueError:
        return _not_a_number(field)


def _not_a_number(field: bytes) -> int:
    raise BundleError(f"the bundle does not contain a tar: {field!r} is not a number")
