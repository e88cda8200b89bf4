"""Run `imagepipe` and kill it by SIGKILL at a line of its journal: `python crash.py LINE before|after COMMAND...`.

A call to the cloud is made between two lines: its intent and its result. So *after* an intent, the process dies right
before the call; *before* a result, it dies right after the call and the answer is lost. Only the lines that this
process writes are counted.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from functools import partialmethod
from typing import Any

from imagepipe.cli.main import run
from imagepipe.engine.journal import Journal
from imagepipe.state.bucket_store import BucketStore

_write = Journal._write
_numbers = itertools.count(1)


def _dying(line: int, when: str) -> Any:
    def write(self: Journal, record: dict[str, Any], *, sync: bool = False) -> None:
        is_it = next(_numbers) == line
        if is_it and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        _write(self, record, sync=sync)
        if is_it:
            os.kill(os.getpid(), signal.SIGKILL)

    return write


if __name__ == "__main__":
    if lease := os.environ.get("IMAGEPIPE_CRASH_LEASE"):
        BucketStore.__init__ = partialmethod(BucketStore.__init__, lease_seconds=float(lease))  # type: ignore[assignment]
    number, moment, *words = sys.argv[1:]
    Journal._write = _dying(int(number), moment)  # type: ignore[method-assign]
    sys.argv = ["imagepipe", *words]
    run()
