"""Describe a manifest as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from imagepipe.bundle.manifest import Manifest


def as_json(manifest: Manifest) -> dict[str, object]:
    """Return the manifest as JSON, without the encrypted keys."""
    return {
        "name": manifest.name,
        "account": manifest.account,
        "architecture": manifest.architecture,
        "size": manifest.size,
        "sha1": manifest.sha1,
        "bundled_size": manifest.bundled_size,
        "parts": [{"index": p.index, "filename": p.filename, "sha1": p.sha1} for p in manifest.parts],
        "block_devices": [{"virtual": virtual, "device": device} for virtual, device in manifest.block_devices],
        "kernel_id": manifest.kernel_id,
        "ramdisk_id": manifest.ramdisk_id,
        "product_codes": list(manifest.product_codes),
        "bundler": manifest.bundler,
    }


def as_lines(manifest: Manifest) -> Iterator[str]:
    """Yield the lines of a readable description: one value per line, then the parts."""
    rows = [
        ("name", manifest.name),
        ("account", manifest.account),
        ("architecture", manifest.architecture),
        ("image", f"{size_text(manifest.size)} ({manifest.size} bytes), its tar has SHA-1 {manifest.sha1}"),
        ("bundle", f"{size_text(manifest.bundled_size)} in {parts_text(manifest)}"),
        ("made by", manifest.bundler),
        ("devices", ", ".join(f"{virtual}={device}" for virtual, device in manifest.block_devices)),
        ("kernel", manifest.kernel_id),
        ("ramdisk", manifest.ramdisk_id),
        ("products", ", ".join(manifest.product_codes)),
    ]
    yield from (f"{word:<13} {printable(value)}" for word, value in rows if value)
    yield from (f"part {part.index:<8} {part.filename}  {part.sha1}" for part in manifest.parts)


def parts_text(manifest: Manifest) -> str:
    count = len(manifest.parts)
    return f"{count} part{'' if count == 1 else 's'}"


def size_text(count: int) -> str:
    """Format a size as `3.2 MiB`."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count} bytes"


def printable(text: str) -> str:
    """Remove control characters, because a manifest may come from anybody."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
