"""Check the state of a service of systemd or OpenRC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from imagepipe.communicator.shell import Script
from imagepipe.dataclass import dataclass
from imagepipe.provision.checks.check import FactCheck, Facts, Mismatch

# A user without sudo may not be able to read the journal; then the message has no last lines.
_SCRIPT = r"""
LC_ALL=C; export LC_ALL
unit=$1 name=$2
if command -v systemctl >/dev/null 2>&1; then
  echo @manager; echo systemd
  if shown=$(systemctl show -p LoadState -p ActiveState -p SubState -- "$unit" 2>&1); then
    printf '%s\n' "$shown" | while IFS='=' read -r key value; do echo "@$key"; echo "$value"; done
  else
    echo @error; printf '%s\n' "$shown" | sed 's/^/ /'
  fi
  echo @enabled; systemctl is-enabled -- "$unit" 2>/dev/null
  case $shown in
    *ActiveState=active*) ;;
    *)
      echo @log
      journalctl --quiet --no-pager --boot --output cat --lines 8 --unit "$unit" 2>/dev/null | sed 's/^/ /'
      ;;
  esac
elif command -v rc-service >/dev/null 2>&1; then
  echo @manager; echo openrc
  if ! rc-service --exists "$name" 2>/dev/null; then
    echo @LoadState; echo not-found
  else
    echo @LoadState; echo loaded
    if rc-service "$name" status >/dev/null 2>&1; then active=active; else active=inactive; fi
    echo @ActiveState; echo "$active"
    echo @enabled; rc-update show 2>/dev/null | while read -r each _; do
      [ "$each" != "$name" ] || echo enabled
    done
  fi
else
  echo @problem; echo "the instance has no service manager that is known: systemd or OpenRC"
fi
exit 0
"""
_SUFFIX = re.compile(r"\.(service|socket|timer|target|mount|path|device|automount|swap|slice|scope)$")
_STARTED_AT_BOOT = ("enabled", "enabled-runtime", "alias", "generated")
_STOPPED = ("inactive", "failed")


@dataclass(frozen=True)
class CheckService(FactCheck):
    """Check that a service is running or stopped, and whether it starts at boot."""

    name: str
    state: Literal["running", "stopped"] | None
    enabled: bool | None

    def script(self, names: Mapping[str, object]) -> Script:
        unit = self.name if _SUFFIX.search(self.name) else f"{self.name}.service"
        return self.fact_script(_SCRIPT, unit, self.name.removesuffix(".service"))

    def compare(self, facts: Facts) -> Mismatch | None:
        name = f"service {self.name}"
        if "error" in facts:
            return Mismatch(f"{name}: systemd does not answer: {facts['error']}")
        if facts.get("LoadState") not in ("loaded", "masked"):
            return Mismatch(f"{name}: {facts.get('manager')} has no such service ({facts.get('LoadState')})")
        active, sub = facts.get("ActiveState", ""), facts.get("SubState", "")
        is_expected = active == "active" if self.state == "running" else active in _STOPPED
        if self.state is not None and not is_expected:
            found = f"{active} ({sub})" if sub else active
            log = tuple(line.strip() for line in facts.get("log", "").splitlines())
            return Mismatch(f"{name}: expected {self.state}, and it is {found}", output=log, output_name="its journal")
        enabled = facts.get("enabled") or "disabled"
        if self.enabled is None or self.enabled == (enabled.split()[0] in _STARTED_AT_BOOT):
            return None
        if not self.enabled:
            return Mismatch(f"{name}: expected disabled, and it starts at boot ({enabled})")
        hint = "it has no [Install] section, so only other units start it" if enabled == "static" else None
        return Mismatch(f"{name}: expected enabled, and it does not start at boot ({enabled})", hint)
