"""Check whether a package is installed, with dpkg, rpm or apk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from imagepipe.communicator.shell import Script
from imagepipe.dataclass import dataclass
from imagepipe.provision.checks.check import FactCheck, Facts, Mismatch

# A machine with rpm can also have dpkg as a tool, and the reverse. So the manager with a database of packages is taken.
_SCRIPT = r"""
LC_ALL=C; export LC_ALL
name=$1
if command -v dpkg-query >/dev/null 2>&1 && [ -s /var/lib/dpkg/status ]; then
  echo @manager; echo dpkg
  echo @packages; dpkg-query -W -f '${db:Status-Status} ${Version}\n' -- "$name" 2>/dev/null
elif command -v rpm >/dev/null 2>&1; then
  echo @manager; echo rpm
  echo @packages; rpm -q --qf 'installed %{VERSION}-%{RELEASE}\n' -- "$name" 2>/dev/null | grep '^installed '
elif command -v apk >/dev/null 2>&1; then
  echo @manager; echo apk
  echo @packages; apk info -v 2>/dev/null | while IFS= read -r line; do
    version=${line#"$name"-}
    case $version in "$line") ;; [0-9]*) echo "installed $version" ;; esac
  done
else
  echo @problem; echo "the instance has no package manager that is known: dpkg, rpm or apk"
fi
exit 0
"""


@dataclass(frozen=True)
class CheckPackage(FactCheck):
    """Check that a package is installed, perhaps in a version, or that it is absent."""

    name: str
    version: str | None
    is_installed: bool

    def script(self, names: Mapping[str, object]) -> Script:
        return self.fact_script(_SCRIPT, self.name)

    def compare(self, facts: Facts) -> Mismatch | None:
        manager = facts.get("manager", "")
        rows = [line.partition(" ") for line in facts.get("packages", "").splitlines()]
        states = {state: version for state, _, version in rows}
        installed = [version for state, _, version in rows if state == "installed"]
        if not self.is_installed:
            if not installed:
                return None
            return Mismatch(f"package {self.name}: expected absent, and {manager} has version {installed[0]}")
        if not installed:
            found = f"its state in dpkg is {next(iter(states))}" if states else f"{manager} does not have it"
            return Mismatch(f"package {self.name}: expected installed, and {found}")
        if self.version is None or any(_matches(version, self.version) for version in installed):
            return None
        return Mismatch(f"package {self.name}: expected version {self.version}, and {manager} has {installed[0]}")


def _matches(version: str, pattern: str) -> bool:
    """Return whether a version matches, as a whole, without its epoch, or without its epoch and release."""
    plain = re.sub(r"^\d+:", "", version)
    return any(fnmatchcase(each, pattern) for each in (version, plain, plain.rpartition("-")[0] or plain))
