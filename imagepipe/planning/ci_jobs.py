"""The jobs of a CI pipeline that bakes a family: one for each spec, in levels, so that bases are baked first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.planning.decisions import Decision
from imagepipe.spec.loaded import LoadedSpec

GITHUB_JOBS = 256
"""Most jobs of one matrix (GitHub Actions, "Usage limits")."""
GITLAB_JOBS = 200
"""Most jobs of one `parallel:matrix` (GitLab CI/CD YAML reference)."""


@dataclass(frozen=True, slots=True)
class Job:
    """The job of one spec."""

    file: str
    """Path of the spec's file, as the command line found it."""
    key: str
    command: Literal["build", "publish"]
    """`build` bakes it; `publish` changes an image that exists."""
    reason: str

    @classmethod
    def build(cls, spec: LoadedSpec, reason: str) -> Job:
        """Return the job that bakes a spec."""
        return cls(str(spec.file), str(spec.key), "build", reason)

    def to_json(self) -> dict[str, str]:
        """Return the job as a row of a matrix."""
        return {"file": self.file, "key": self.key, "command": self.command, "reason": self.reason}


def job_of(spec: LoadedSpec, decision: Decision, regions: Iterable[str]) -> Job | None:
    """Return the job of a spec that is published in `regions`; None if nothing is to be done for it."""
    existing = decision.existing
    if existing is None:
        return Job.build(spec, decision.reason)
    if missing := existing.missing(regions):
        reason = f"{existing.describe()} is not in {', '.join(missing)} yet"
    elif existing.changes:
        lacking = dict.fromkeys(f"{change.stage} in {change.region}" for change in existing.changes)
        reason = f"{existing.describe()} lacks: {', '.join(lacking)}"
    else:
        return None
    return Job(str(spec.file), str(spec.key), "publish", reason)


def levels(loaded: Sequence[LoadedSpec], jobs: Mapping[str, Job]) -> list[list[Job]]:
    """Return the jobs, by key, in levels: each is in a later level than every base of its spec that has a job.

    `loaded` has bases first.
    """
    depths: dict[str, int] = {}
    found: list[list[Job]] = []
    for spec in loaded:
        if (job := jobs.get(str(spec.key))) is None:
            continue
        depth = max((depths[str(base.key)] + 1 for base in spec.bases() if str(base.key) in depths), default=0)
        depths[job.key] = depth
        found += [[] for _ in range(depth + 1 - len(found))]
        found[depth].append(job)
    return found


def github(jobs: Sequence[Sequence[Job]], wanted: int) -> str:
    """Return lines for `$GITHUB_OUTPUT`: `levels`, and one matrix for each of the workflow's `wanted` levels.

    The value of a level without jobs is empty, for the `if:` of its job. Raises UsageError if a workflow of so many
    levels cannot hold the jobs.
    """
    if len(jobs) > wanted:
        raise UsageError(
            f"the specs have {len(jobs)} levels of bases, and the workflow has {wanted}",
            hint=f"give the workflow {len(jobs)} jobs, one for each level, and pass --levels {len(jobs)}",
        )
    lines = [f"levels={len(jobs)}"]
    for number in range(wanted):
        own = jobs[number] if number < len(jobs) else ()
        if len(own) > GITHUB_JOBS:
            raise UsageError(
                f"level {number} has {len(own)} jobs, and a matrix of GitHub takes {GITHUB_JOBS}",
                hint="name fewer specs in each call, or build a folder in one job: imagepipe build FOLDER",
            )
        matrix = json.dumps({"include": [job.to_json() for job in own]}, separators=(",", ":")) if own else ""
        lines.append(f"level{number}={matrix}")
    return "".join(f"{line}\n" for line in lines)


def gitlab(jobs: Sequence[Sequence[Job]], include: str | None) -> str:
    """Return a child pipeline of GitLab, as JSON, which is YAML too.

    Each job extends `.imagepipe`, which `include`, a file of the repository, defines. The jobs have IMAGEPIPE_FILE,
    IMAGEPIPE_KEY and IMAGEPIPE_COMMAND. A pipeline must have a job, so that of a family that is up to date has one
    that says so.
    """
    pipeline: dict[str, Any] = {"include": [{"local": include}]} if include else {}
    if not jobs:
        pipeline["up to date"] = {"script": ["echo 'all images are up to date'"]}
    else:
        pipeline["stages"] = [f"level {number}" for number in range(len(jobs))]
    for number, own in enumerate(jobs):
        for start in range(0, len(own), GITLAB_JOBS):
            part = f" from {start}" if len(own) > GITLAB_JOBS else ""
            pipeline[f"level {number}{part}"] = {
                "extends": ".imagepipe",
                "stage": f"level {number}",
                "parallel": {"matrix": [_variables(job) for job in own[start : start + GITLAB_JOBS]]},
            }
    return json.dumps(pipeline, indent=2) + "\n"


def _variables(job: Job) -> dict[str, str]:
    # A variable that holds `$` would be expanded by GitLab.
    values = {"IMAGEPIPE_COMMAND": job.command, "IMAGEPIPE_FILE": job.file, "IMAGEPIPE_KEY": job.key}
    return {name: value.replace("$", "$$") for name, value in values.items()}
