"""Keys of earlier drafts of the language, and the keys that replace them. No old key works."""

from __future__ import annotations

from imagepipe.spec.document import KeyPath

_IN_STEPS = {
    "on_disconnect": (
        "expect_disconnect",
        "write expect_disconnect: true for a step that ends the connection, and leave the key out of all others",
    ),
    "rerun": ("idempotent", "write idempotent: true for a step that may run more than once"),
}
RENAMED = {
    "launch.volumes": ("block_devices", "launch.block_devices takes the same list"),
    "source.ami.newest": ("most_recent", "source.ami.most_recent takes the same value; true is the default"),
    "launch.spot.fall_back": ("fallback", "launch.spot.fallback takes the same value; true is the default"),
    "output.imds": (
        "imds_support",
        "imds_support: v2.0 is the default; imds_support: source keeps the setting of the source image",
    ),
    "publish.copy_timeout": ("timeout", "publish.timeout takes the same value"),
    "publish.keep": ("retention", "write retention: {newest: 5} at the top level of the spec"),
    "variables.*.required": (
        "default",
        'a variable without default is required; default: "" makes it optional',
    ),
    **{f"{steps}.*.{old}": new for steps in ("provision", "test", "steps") for old, new in _IN_STEPS.items()},
}
"""The new key and a hint, by the path of the old key; `*` stands for a variable's name or a step's index."""


def replacement(path: KeyPath) -> tuple[str, str] | None:
    """Return the new key and a hint for an old key; None for any other key."""
    parts = [str(part) for part in path]
    if len(parts) == 3 and parts[0] in ("variables", "provision", "test", "steps"):
        parts[1] = "*"
    return RENAMED.get(".".join(parts))
