"""The look as a program: what is request comes by standard input, the report goes to standard output."""

from __future__ import annotations

import sys

from imagepipe.hygiene.report import ScanRequest
from imagepipe.hygiene.walk import Tree, disks_of_this_machine, scan


def main() -> int:
    """Look, and print one line."""
    request = ScanRequest.parse(sys.stdin.buffer.readline())
    trees = [Tree(root) for root in request.roots] or disks_of_this_machine()
    print(scan(trees, request).line(), flush=True)  # noqa: T201 - this is a program's output
    return 0
