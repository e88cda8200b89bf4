"""Time fifty shell steps that do nothing, against packer's fifty inline provisioners.

    .venv/bin/python benchmarks/steps.py

As root, on the machine that `make setup .setup/system-test` prepared. Machines consist of an sshd, so nothing boots;
the cloud adds no delays, and packer asks it without pauses. Each build runs with fifty steps and with one, and the
difference is the time of the steps. Runs alternate, and ratios are taken pair by pair.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from endpoint import FAST, Endpoint, arguments, cloud, table

STEPS = 50
LEAST = 3.0
"""The least that packer's steps must take, as a multiple of ours."""


def main() -> int:
    runs = arguments("times fifty steps that do nothing against packer's", 5).runs
    with cloud(driver="sshd") as end:
        ours = [end.imagepipe(_spec(end, steps)) for steps in (1, STEPS)]
        theirs = [[end.packer, "build", str(_template(end, steps))] for steps in (1, STEPS)]
        for command, env in ((ours[0], {}), (theirs[0], FAST)):
            end.run(command, env)  # the first build of a cloud makes what it lacks
        pairs = [(_seconds(end, ours, {}), _seconds(end, theirs, FAST)) for _ in range(runs)]
    ratio = statistics.median(other / own for own, other in pairs)
    own, other = (statistics.median(values) for values in zip(*pairs, strict=True))
    table(
        [
            ("fifty shell steps that do nothing", "of all", "of each", "theirs / ours"),
            ("imagepipe", f"{own:.2f} s", f"{own / (STEPS - 1) * 1000:.0f} ms", ""),
            (
                "packer, without pauses",
                f"{other:.2f} s",
                f"{other / (STEPS - 1) * 1000:.0f} ms",
                f"{ratio:.1f} (at least {LEAST})",
            ),
        ]
    )
    print("within its target" if ratio >= LEAST else "NOT within its target")
    return 0 if ratio >= LEAST else 1


def _seconds(end: Endpoint, commands: list[list[str]], env: dict[str, str]) -> float:
    """Return the seconds that all steps but one take."""
    one, many = (end.run(command, env).wall for command in commands)
    return many - one


def _spec(end: Endpoint, steps: int) -> Path:
    path = end.spec(f"steps-{steps}")
    text = path.read_text()
    begin, _, rest = text.partition("provision: ")
    listed = "".join('\n  - {shell: "true"}' for _ in range(steps))
    path.write_text(f"{begin}provision:{listed}\n{rest.partition(chr(10))[2]}")
    return path


def _template(end: Endpoint, steps: int) -> Path:
    path = end.template(f"steps-{steps}")
    template = json.loads(path.read_text())
    template["provisioners"] = [{"type": "shell", "inline": ["true"]} for _ in range(steps)]
    path.write_text(json.dumps(template))
    return path


if __name__ == "__main__":
    sys.exit(main())
