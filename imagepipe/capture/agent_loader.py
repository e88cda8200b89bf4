"""Send the agent to a machine: its modules go over standard input and run from memory, without a file."""

from __future__ import annotations

import json
import shlex
import struct
from collections.abc import Sequence
from importlib.resources import files

HYGIENE = (
    "imagepipe.hygiene.known",
    "imagepipe.hygiene.report",
    "imagepipe.hygiene.rules",
    "imagepipe.hygiene.content",
    "imagepipe.hygiene.rpm",
    "imagepipe.hygiene.packages",
    "imagepipe.hygiene.listing",
    "imagepipe.hygiene.walk",
    "imagepipe.hygiene.main",
)
"""Modules of the scan."""
MODULES = (
    "imagepipe.bundle.flow",
    "imagepipe.bundle.extents",
    "imagepipe.bundle.member",
    *HYGIENE[:-1],
    "imagepipe.capture.agent.frames",
    "imagepipe.capture.agent.errors",
    "imagepipe.capture.agent.mounts",
    "imagepipe.capture.agent.quiesce",
    "imagepipe.capture.agent.disk",
    "imagepipe.capture.agent.tree",
    "imagepipe.capture.agent.root_image",
    "imagepipe.capture.agent.aes",
    "imagepipe.capture.agent.gzip",
    "imagepipe.capture.agent.send",
    "imagepipe.capture.agent.main",
)
"""Modules of the agent, each after those that it imports."""
NO_PYTHON = 86
"""Exit code for a machine without Python; not 127, which means that sudo is missing."""

# The machine's Python runs this: it reads the modules and makes them importable, as if they were installed.
_LOADER = """
import json, os, struct, sys, types
def take(count):
    block = b""
    while len(block) < count:
        piece = os.read(0, count - len(block))
        if not piece:
            sys.exit(3)
        block += piece
    return block
for name, source in json.loads(take(struct.unpack(">I", take(4))[0]).decode()):
    words = name.split(".")
    for depth in range(1, len(words)):
        package = ".".join(words[:depth])
        if package not in sys.modules:
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = []
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    setattr(sys.modules[".".join(words[:-1])], words[-1], module)
sys.exit(sys.modules[name].main())
"""
# A root login needs no sudo, and its image may have none.
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec "$@"; fi; exec sudo -n -H -- "$@"'
# Red Hat's images have a Python for the system's own use, under another name.
_FIND = f"""
for python in python3 /usr/libexec/platform-python; do
  if command -v $python >/dev/null 2>&1; then exec $python -I -c "$1"; fi
done
echo "python3 was not found on the machine" >&2
exit {NO_PYTHON}
"""


def command() -> str:
    """Return the command that runs on the machine as root. It is the same for every build and contains no secret."""
    return shlex.join(["sh", "-c", _AS_ROOT, "imagepipe", *runner()])


def runner() -> list[str]:
    """Return the command without sudo."""
    return ["sh", "-c", _FIND, "imagepipe-agent", _LOADER]


def program(names: Sequence[str] = MODULES) -> bytes:
    """Return the input of the command; the last of these modules has the `main` function."""
    modules = json.dumps([(name, _source(name)) for name in names]).encode()
    return struct.pack(">I", len(modules)) + modules


def _source(name: str) -> str:
    package, _, module = name.rpartition(".")
    return files(package).joinpath(f"{module}.py").read_text(encoding="utf-8")
