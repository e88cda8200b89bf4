"""Scan a running machine: send the program over SSH, run it from memory and read its report."""

from __future__ import annotations

import base64
import shlex

from imagepipe.capture import agent_loader
from imagepipe.communicator.output_hints import sudo_hint
from imagepipe.errors import HygieneError
from imagepipe.hygiene.report import Report, ScanRequest, read_report

SCAN_SECONDS = 1800
END_OF_SHELL = "# no shell from here on"
SCAN_FAILED = 125
"""Exit code for a failure of the scan itself; the rest of the script has other codes."""
FAILED = (agent_loader.NO_PYTHON, SCAN_FAILED)


def scan_script(request: ScanRequest, *, before: str = "", after: str = "") -> str:
    """Return a script for root's sh that runs a scan between `before` and `after` and prints its report.

    The program is appended to the script, because nobody can use sudo again after a scrub. The script's file is in the
    machine's memory (`communicator.shell`), so secrets to search for touch no disk.
    """
    payload = base64.encodebytes(agent_loader.program(agent_loader.HYGIENE) + request.line()).decode()
    scan = f"sed '1,/^{END_OF_SHELL}$/d' \"$0\" | base64 -d | {shlex.join(agent_loader.runner())}"
    scan += f' || {{ code=$?; [ "$code" = {agent_loader.NO_PYTHON} ] || code={SCAN_FAILED}; exit "$code"; }}\n'
    return f"{before}\n{scan}{after}\nexit 0\n{END_OF_SHELL}\n{payload}"


def parse_report(lines: list[str], code: int | None, doing: str) -> Report:
    """Return the report in a scan script's output. Raises HygieneError if the output has no report."""
    try:
        report = read_report(lines)
    except ValueError as error:
        raise HygieneError(f"{doing}: its report cannot be read: {error}", hint="build again") from error
    if report is None:
        raise HygieneError(
            f"{doing}: {'; '.join(lines[-5:]) or 'no reason given'} (exit {code})",
            hint="the gate needs python3 on the machine: install it in a provisioning step"
            if code == agent_loader.NO_PYTHON
            else sudo_hint("\n".join(lines))
            or "the gate needs Python 3.7 or newer on the machine, and sudo without a password",
        )
    return report
