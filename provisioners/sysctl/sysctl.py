"""Writes kernel settings, and applies those that this kernel has. In a container some belong to the host."""

import json
import os
import re
import sys
from pathlib import Path

values = json.loads(os.environ["VALUES"])
[name] = sys.argv[1:]
if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
    sys.exit(f"sysctl: not a file's name: {name!r}")
for key, value in values.items():
    if not re.fullmatch(r"[a-z0-9_]+([./][A-Za-z0-9_*-]+)+", key) or "\n" in str(value):
        sys.exit(f"sysctl: not a setting: {key!r} = {value!r}")
text = "".join(f"{key} = {int(value) if isinstance(value, bool) else value}\n" for key, value in sorted(values.items()))
path = Path("/etc/sysctl.d") / f"{name}.conf"
if not path.exists() or path.read_text() != text:
    print(f"writing {path}")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
for key, value in sorted(values.items()):
    where = Path("/proc/sys") / key.replace(".", "/")
    try:
        where.write_text(f"{int(value) if isinstance(value, bool) else value}\n")
    except OSError as error:
        print(f"{key}: not applied now ({error.strerror}); it is at the next boot, where the kernel has it")
