"""The results of a run for later jobs: lines for `$GITHUB_OUTPUT`, and a dotenv report for GitLab.

GitLab allows no comment, no empty line and no quotes in a dotenv file, 5 KiB, and 20 variables on most installations
(GitLab documentation, "artifacts:reports:dotenv").
"""

from __future__ import annotations

import json

from imagepipe.report.model import RunReport
from imagepipe.report.text import outputs

MOST_VARIABLES = 20
MOST_BYTES = 5 << 10
PREFIX = "IMAGEPIPE_"


def github_output(report: RunReport) -> str:
    """Return lines for the file `$GITHUB_OUTPUT`: the outputs, and `images`, a JSON list of all images."""
    images = [
        {"spec": each.spec, "region": each.region, "image_id": each.id, "name": each.name} for each in report.images
    ]
    lines = {**outputs(report), "images": json.dumps(images)}
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def dotenv(report: RunReport) -> str:
    """Return the dotenv report. Variables that do not fit into its limits are left out, the last ones first."""
    lines: list[str] = []
    for name, value in list(outputs(report).items())[:MOST_VARIABLES]:
        line = f"{PREFIX}{name.upper()}={value}\n"
        if sum(map(len, lines)) + len(line) > MOST_BYTES:
            break
        lines.append(line)
    return "".join(lines)
