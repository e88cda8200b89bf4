"""Check whether a port is open, from the instance itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from imagepipe.communicator.shell import Script
from imagepipe.dataclass import dataclass
from imagepipe.provision.checks.check import FactCheck, Facts, Mismatch

CONNECT_SECONDS = 5

# Debian always has bash, and BusyBox always has nc. Errors are in English, because they decide the state.
_TCP = r"""
LC_ALL=C; export LC_ALL
host=$1 port=$2 seconds=$3
limited() { if command -v timeout >/dev/null 2>&1; then timeout "$seconds" "$@"; else "$@"; fi; }
if command -v bash >/dev/null 2>&1; then
  error=$(limited bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "$host" "$port" 2>&1); code=$?
elif command -v python3 >/dev/null 2>&1; then
  error=$(python3 -I -c '
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
except OSError as error:
    sys.exit(error.strerror or str(error))' "$host" "$port" "$seconds" 2>&1); code=$?
elif command -v nc >/dev/null 2>&1; then
  error=$(nc -z -w "$seconds" "$host" "$port" 2>&1); code=$?
  [ "$code" = 0 ] || [ -n "$error" ] || error="Connection refused or timed out"
else
  echo @problem; echo "the instance has no program that can connect to a port: bash, python3 or nc"; exit 0
fi
echo @code; echo "$code"
echo @error; printf '%s\n' "$error" | sed 's/^/ /'
"""
_UDP = r"""
echo @sockets; cat /proc/net/udp /proc/net/udp6 2>/dev/null | while read -r _ address _; do echo "${address##*:}"; done
"""
_TIMED_OUT = 124  # timeout(1)
_CLOSED = re.compile("refused|timed out|timeout", re.IGNORECASE)


@dataclass(frozen=True)
class CheckPort(FactCheck):
    """Check that a port is open, or closed."""

    port: int
    host: str
    protocol: Literal["tcp", "udp"]
    state: Literal["open", "closed"]

    def script(self, names: Mapping[str, object]) -> Script:
        if self.protocol == "udp":
            return self.fact_script(_UDP)
        return self.fact_script(_TCP, self.host, str(self.port), str(CONNECT_SECONDS))

    def compare(self, facts: Facts) -> Mismatch | None:
        name = f"port {self.port}/{self.protocol}" + ("" if self.host == "localhost" else f" of {self.host}")
        if self.protocol == "udp":
            found = {int(text, 16) for text in facts.get("sockets", "").split() if re.fullmatch("[0-9A-F]{4}", text)}
            is_open, reason = self.port in found, "no socket is bound to it"
        else:
            code, error = facts.get("code", ""), facts.get("error", "")
            is_open, reason = code == "0", error.splitlines()[-1].rpartition(": ")[2] if error else ""
            if code == str(_TIMED_OUT):
                reason = f"timed out: no answer in {CONNECT_SECONDS} s"
            if not is_open and not _CLOSED.search(reason):
                return Mismatch(f"{name}: the connection could not be tried: {reason}")
        if is_open == (self.state == "open"):
            return None
        if is_open:
            return Mismatch(f"{name}: expected closed, and it is open")
        return Mismatch(f"{name}: expected open, and it is closed: {reason}", "is its service enabled at boot?")
