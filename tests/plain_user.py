"""A plain user for tests that run as root. The user exists only in a private mount namespace, so nothing has to be
removed from this computer afterwards.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

IDS = range(40_000, 60_000)
"""Ids that Debian gives to no user by itself. Each test takes one at random, because others run at the same time."""
NAME = "plain"
FIRST_SUBORDINATE = 1_000_000
SUBORDINATES = 65_536
PATH = "/usr/local/bin:/usr/bin:/bin"
"""PATH of a plain user of Debian: no sbin."""
REPOSITORY = Path(__file__).resolve().parent.parent
# Arguments: the user's id, the folder of the user's files, private folders that others may not enter, "--", paths to
# show in them, "--", a command.
ENTER = """
set -e
id=$1; files=$2; shift 2
for each in passwd group subuid subgid; do mount --bind "$files/$each" "/etc/$each"; done
mount --bind "$files/tun" /dev/net/tun
closed=; while [ "$1" != -- ]; do closed="$closed $1"; shift; done; shift
number=0; shown=
while [ "$1" != -- ]; do
  number=$((number + 1)); mkdir -p "$files/shown/$number"; mount --bind "$1" "$files/shown/$number"
  shown="$shown $1"; shift
done; shift
for each in $closed; do mount -t tmpfs -o mode=755 none "$each"; done
number=0
for each in $shown; do number=$((number + 1)); mkdir -p "$each"; mount --bind "$files/shown/$number" "$each"; done
exec setpriv --reuid "$id" --regid "$id" --clear-groups "$@"
"""


@dataclass(frozen=True)
class PlainUser:
    """A user who is not root, with a home folder."""

    files: Path
    id: int

    @property
    def subordinates(self) -> range:
        first = FIRST_SUBORDINATE + IDS.index(self.id) * SUBORDINATES
        return range(first, first + SUBORDINATES)

    @property
    def home(self) -> Path:
        return self.files / "home"

    def command(self, *words: str) -> list[str]:
        """Return the command that runs these words as the user."""
        shown = [path for path in (Path(sys.base_prefix), Path(sys.prefix), REPOSITORY) if _closed_parent(path)]
        closed = dict.fromkeys(str(_closed_parent(path)) for path in shown)
        return [
            "unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "as-a-plain-user",
            str(self.id), str(self.files), *closed, "--", *dict.fromkeys(map(str, shown)), "--", *words,
        ]  # fmt: skip

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": PATH, "USER": NAME, "LANG": "C.UTF-8", **(more or {})}

    def popen(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words), env=self.environment(env), cwd=self.home, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        with self.popen(*words, env=env) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def python(self, text: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run a Python program, which must succeed, and return its output."""
        done = self.run(sys.executable, "-c", text, *arguments, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def processes(self) -> list[str]:
        """List the processes of the user and of the user's subordinate ids, with their command lines."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                user = folder.stat().st_uid
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if (user == self.id or user in self.subordinates) and state != "Z":
                found.append(f"{folder.name} {words}")
        return found


@contextmanager
def plain_user(*, has_ids: bool = True) -> Iterator[PlainUser]:
    """Make a user; `has_ids` gives it lines in subuid and subgid."""
    files = Path(tempfile.mkdtemp(prefix="imagepipe-plain-", dir="/var/tmp"))
    try:
        files.chmod(0o755)
        user = PlainUser(files, random.choice(IDS))
        user.home.mkdir()
        os.chown(user.home, user.id, user.id)
        _write_accounts(user, has_ids=has_ids)
        os.mknod(files / "tun", 0o020666, os.makedev(10, 200))
        (files / "tun").chmod(0o666)  # as udev makes it
        yield user
    finally:
        shutil.rmtree(files, ignore_errors=True)


def _write_accounts(user: PlainUser, *, has_ids: bool) -> None:
    passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    (user.files / "passwd").write_text(f"{passwd}{NAME}:x:{user.id}:{user.id}::{user.home}:/bin/sh\n")
    (user.files / "group").write_text(f"{group}{NAME}:x:{user.id}:\n")
    for name in ("subuid", "subgid"):
        line = f"{NAME}:{user.subordinates.start}:{SUBORDINATES}\n"
        (user.files / name).write_text(line if has_ids else "")


def _closed_parent(path: Path) -> Path | None:
    """Return the outermost folder above a path that others may not enter."""
    parents: Sequence[Path] = [*reversed(path.parents), path]
    return next((each for each in parents if not each.stat().st_mode & 0o001), None)
