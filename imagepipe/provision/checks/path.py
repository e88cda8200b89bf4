"""Check a file, a folder or a link."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Literal

from imagepipe.communicator.shell import Script
from imagepipe.dataclass import dataclass
from imagepipe.provision.checks.check import CONTENT_BYTES, FactCheck, Facts, Mismatch
from imagepipe.provision.checks.content import ExpectedText

READ_BYTES = CONTENT_BYTES + 1  # one more shows that the file is longer

# stat's error decides between a path that does not exist and one that may not be seen. GNU's and BusyBox's stat agree
# on these formats.
_SCRIPT = r"""
LC_ALL=C; export LC_ALL
path=$1 reads=$2 digests=$3 bytes=$4
if ! shown=$(stat -c '%F' -- "$path" 2>&1); then
  echo @absent; printf '%s\n' "${shown##*: }"
  exit 0
fi
echo @link; [ ! -L "$path" ] || { echo yes; echo @target; readlink -- "$path" | sed 's/^/ /'; }
if shown=$(stat -L -c '%a %U:%G' -- "$path" 2>&1); then
  echo @mode; echo "${shown%% *}"
  echo @owner; echo "${shown#* }"
else
  echo @dangling; printf '%s\n' "${shown##*: }"
fi
echo @type
if [ -f "$path" ]; then echo file; elif [ -d "$path" ]; then echo directory; else stat -L -c '%F' -- "$path" 2>/dev/null
fi
[ -f "$path" ] || exit 0
if [ "$reads" = 1 ]; then
  if [ -r "$path" ]; then echo @content; head -c "$bytes" <"$path" | base64; else echo @unreadable; echo yes; fi
fi
if [ "$digests" = 1 ]; then
  if [ -r "$path" ]; then echo @sha256; sha256sum <"$path"; else echo @unreadable; echo yes; fi
fi
exit 0
"""
_ABSENT = re.compile("No such file|Not a directory")
_SUDO = "set sudo: true, so that root looks"


@dataclass(frozen=True)
class CheckPath(FactCheck):
    """Check that a path exists with these properties, or that it is absent."""

    path: str
    type: Literal["file", "directory", "link"] | None
    mode: str | None
    """Octal digits."""
    owner: str | None
    """`user` or `user:group`."""
    text: ExpectedText
    sha256: str | None
    is_absent: bool

    def script(self, names: Mapping[str, object]) -> Script:
        reads, digests = str(int(bool(self.text))), str(int(self.sha256 is not None))
        return self.fact_script(_SCRIPT, self.path, reads, digests, str(READ_BYTES))

    def compare(self, facts: Facts) -> Mismatch | None:
        if "absent" in facts:
            reason = facts["absent"]
            if not _ABSENT.search(reason):
                return Mismatch(f"{self.path}: it could not be looked at: {reason}", _SUDO)
            return None if self.is_absent else Mismatch(f"{self.path}: it does not exist")
        if self.is_absent:
            return Mismatch(f"{self.path}: expected absent, and it is a {facts.get('type') or 'link'}")
        if self.type == "link":
            if facts.get("link") != "yes":
                return Mismatch(f"{self.path}: expected a link, and it is a {facts.get('type')}")
        elif "dangling" in facts:
            if _ABSENT.search(facts["dangling"]):
                return Mismatch(f"{self.path}: it is a link to {facts.get('target')}, which does not exist")
            return Mismatch(f"{self.path}: its target could not be looked at: {facts['dangling']}", _SUDO)
        elif self.type is not None and facts.get("type") != self.type:
            return Mismatch(f"{self.path}: expected a {self.type}, and it is a {facts.get('type')}")
        return self._compare_properties(facts)

    def _compare_properties(self, facts: Facts) -> Mismatch | None:
        if self.mode is not None and ("mode" not in facts or int(self.mode, 8) != int(facts["mode"], 8)):
            found = f"0{facts['mode']}" if "mode" in facts else "unknown"
            return Mismatch(f"{self.path}: expected mode {self.mode}, and it is {found}")
        owner = facts.get("owner", "unknown")
        if self.owner is not None and self.owner != (owner if ":" in self.owner else owner.partition(":")[0]):
            return Mismatch(f"{self.path}: expected owner {self.owner}, and it is {owner}")
        if not self.text and self.sha256 is None:
            return None
        if "unreadable" in facts:
            return Mismatch(f"{self.path}: this user may not read it", _SUDO)
        if facts.get("type") != "file":
            return Mismatch(f"{self.path}: it has no content to check: it is a {facts.get('type')}")
        if self.sha256 is not None:
            found = facts.get("sha256", "").partition(" ")[0]
            if found != self.sha256.lower():
                return Mismatch(f"{self.path}: expected SHA-256 {self.sha256.lower()}, and it is {found or 'unknown'}")
        mismatch = self.text.compare("it", base64.b64decode(facts.get("content", "")))
        return None if mismatch is None else Mismatch(f"{self.path}: {mismatch.message}", output=mismatch.output)
