"""A driver in a process of its own, to be killed: `python drive.py FOLDER PICKLE [DRIVER]`.

The pickle is (machine, rules), or (machine, rules, disk to attach).
"""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path

from imagepipe.local.machines import registry

if __name__ == "__main__":
    driver = registry.open_driver(registry.named(sys.argv[3] if len(sys.argv) > 3 else None), Path(sys.argv[1]))
    machine, ingress, *attached = pickle.loads(Path(sys.argv[2]).read_bytes())
    sys.stdout.write("starting\n")
    sys.stdout.flush()
    driver.start(machine, ingress)
    sys.stdout.write("started\n")
    sys.stdout.flush()
    for disk in attached:
        driver.attach(machine.id, disk)
        sys.stdout.write("attached\n")
        sys.stdout.flush()
    time.sleep(120)
