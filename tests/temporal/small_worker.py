"""A worker as `imagepipe worker` runs it, whose bakes are `small_bake.py`. Its argument is a JSON object."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

from imagepipe.temporal import activities
from imagepipe.temporal.connection import Server
from imagepipe.temporal.worker import WorkerOptions, run_worker


def main() -> None:
    wanted = json.loads(sys.argv[1])
    activities.CLEAN_ATTEMPTS = wanted.get("clean_attempts", activities.CLEAN_ATTEMPTS)
    command = [sys.executable, str(Path(__file__).with_name("small_bake.py")), wanted["folder"]]
    options = WorkerOptions(
        Server.at(wanted["address"]),
        wanted.get("queue", "imagepipe"),
        wanted.get("bakes", 8),
        None,
        timedelta(seconds=wanted.get("grace", 60)),
        ("127.0.0.1", wanted["health"]) if "health" in wanted else None,
        ("127.0.0.1", wanted["metrics"]) if "metrics" in wanted else None,
    )
    asyncio.run(run_worker(options, command, os.environ, lambda line: print(line, flush=True)))
    os._exit(0)  # as imagepipe/cli/main.py does, for the same reason


if __name__ == "__main__":
    main()
