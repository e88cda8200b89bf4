"""The values that travel through Temporal: small ones. Specs and their files are in the state bucket.

Imported by workflows, which run in a sandbox: the standard library only.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from imagepipe.dataclass import dataclass

BUILD, BAKE = "imagepipe-build", "imagepipe-bake"
"""Types of the workflows."""
RUN_BAKE, RUN_CLEAN = "imagepipe-run-bake", "imagepipe-run-clean"
"""Types of the activities."""
PROGRESS = "progress"
"""Query for the state of each bake of a build."""
BAKE_FAILED, BUILD_FAILED = "BakeFailed", "BuildFailed"
"""Types of the failures that are not retried."""
AGAIN = 75
"""Exit code of a bake's process if another process has the run: try again (EX_TEMPFAIL of sysexits.h)."""
LONGEST_TEXT = 1000
"""Characters of an error that travel: a build of a thousand specs must fit into one value of Temporal."""
CLEAN_SUFFIX = "/clean"
"""End of the name of the queue for clean-ups: one must not wait until bakes of hours have ended. No spec names it."""


@dataclass(frozen=True)
class Job:
    """One spec of a build."""

    spec: str
    """Key of the spec."""
    run: str
    """Id of the run that bakes it. It is chosen before, so that another worker finds what the first one began."""
    queue: str
    """Task queue of the workers that may bake it."""
    base: str | None = None
    """Key of the spec that this one is built on, if that one is in the build."""


@dataclass(frozen=True)
class Limit:
    """Specs of which only some are baked at once: the variants of a matrix with `max_parallel`."""

    specs: list[str]
    at_once: int


@dataclass(frozen=True)
class BuildRequest:
    """A build: its jobs, bases first, and where the workers find everything else."""

    state: str
    """URL of the shared state."""
    kms_key: str | None
    """KMS key of the shared state."""
    cloud: dict[str, str]
    """The cloud of the runs, as their journals record it."""
    package: str
    """Digest of the package in the state bucket: specs, files, variables and options."""
    jobs: list[Job]
    limits: list[Limit] = field(default_factory=list)
    fail_fast: bool = False


@dataclass(frozen=True)
class BakeRequest:
    """A bake of one spec."""

    state: str
    kms_key: str | None
    cloud: dict[str, str]
    package: str
    job: Job
    bases: dict[str, dict[str, str]] = field(default_factory=dict)
    """Images of the specs below this one, by key and region."""


@dataclass(frozen=True)
class BakedSpec:
    """The result of a bake."""

    spec: str
    run: str
    images: list[dict[str, Any]]
    """An image for each region, as `imagepipe build --format json` prints it."""
    worker: str
    """Name of the worker that ended the bake."""
    failed_regions: list[dict[str, Any]] = field(default_factory=list)
    """The regions that failed alone, with their errors."""
    held: str = ""
    """Why resources beside the images could not be deleted; empty if they were."""

    def by_region(self) -> dict[str, str]:
        """Return the image ids by region."""
        return {str(image["region"]): str(image["image_id"]) for image in self.images}


@dataclass(frozen=True)
class Progress:
    """The state of one bake."""

    spec: str
    run: str
    state: str
    """`waiting`, `baking`, `baked`, `failed`, `cancelled` or `left out`."""
    text: str = ""
    """The images of a bake, or the error."""
    failed_base: str = ""
    """Key of the base that failed, for a spec that was left out."""


@dataclass(frozen=True)
class BuildResult:
    """The end of a build."""

    baked: list[BakedSpec]
    progress: list[Progress]


def shortened(text: str) -> str:
    """Return a text that is short enough to travel."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"
