"""A program in place of `imagepipe run-bake`: its specs' names say how a bake ends. It keeps a diary in a file.

The program is a fake: the tests of this folder are about workers and workflows. Real bakes are in tests/machine.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def main() -> int:
    task, folder = sys.argv[2], Path(sys.argv[1])
    request = json.loads(sys.stdin.buffer.readline())
    spec, run = request["job"]["spec"], request["job"]["run"]

    def note(what: str) -> None:
        line = f"{what} {spec} {run} {os.getpid()} {time.monotonic()} {json.dumps(request['bases'])}\n"
        with (folder / "diary").open("a") as diary:
            diary.write(line)

    threading.Thread(target=_end_with_worker, daemon=True).start()
    if task == "clean":
        note("clean")
        if spec.startswith("unclean") or (spec.startswith("fails-slow-clean") and not (folder / "failed").exists()):
            (folder / "failed").touch()
            print("error: vol-1 is in use", file=sys.stderr)
            return 5
        while "slow-clean" in spec and not (folder / "go").exists():
            time.sleep(0.02)
        note("cleaned")
        return 0
    note("begin")
    signal.signal(signal.SIGINT, lambda *_: _interrupted(note, spec))
    print(f"baking {spec}", file=sys.stderr, flush=True)
    if spec.startswith("slow"):
        while not (folder / "go").exists():
            time.sleep(0.02)
    while spec == "fails-beside-slow" and "begin slow " not in (folder / "diary").read_text():
        time.sleep(0.02)
    if spec.startswith("dies") and not (folder / f"died-{spec}").exists():
        (folder / f"died-{spec}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.startswith("held") and not (folder / f"held-{spec}").exists():
        (folder / f"held-{spec}").touch()
        print("error: run is in progress", file=sys.stderr)
        return 75
    if spec.startswith(("fails", "unclean")):
        if spec.endswith("long"):
            print(f"error: {'x' * 200_000}", file=sys.stderr)
        print("error: step 1: exit 1\n  hint: read the log", file=sys.stderr)
        return 4
    image = {"spec": spec, "region": "us-east-1", "image_id": f"ami-{spec}", "name": spec, "unchanged": False}
    other = {"spec": "another", "region": "us-east-1", "image_id": "ami-other", "name": "other", "unchanged": True}
    print(json.dumps({"run": run, "images": [other, image]}))
    note("end")
    if spec.startswith("holds"):
        print("still held: vol-1", file=sys.stderr)
        return 5
    return 0


def _interrupted(note: object, spec: str) -> None:
    note("interrupted")  # type: ignore[operator]
    if not spec.endswith("stuck"):
        os._exit(130)


def _end_with_worker() -> None:
    while os.read(0, 4096):
        pass
    os._exit(75)


if __name__ == "__main__":
    sys.exit(main())
