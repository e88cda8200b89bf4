"""The runs of the crash matrix, by the place where they are kept: local files, or shared state in the local cloud."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from tests.machine.bakery import Bakery, until

BUCKET = "crash-state"
LEASE_SECONDS = "3"
"""Lifetime of the leases of builds that are killed, so that the next command does not wait for half a minute."""


class KeptRuns(Protocol):
    """The runs of builds on one cloud."""

    env: Mapping[str, str]
    """Environment of the commands."""
    access: tuple[str, ...]
    """Options of `clean` and `resume`."""

    def ids(self) -> set[str]:
        """Return the runs that have a record."""

    def records(self, run: str) -> list[dict[str, Any]]:
        """Return the records of a run's journal."""

    def await_death(self, run: str) -> None:
        """Wait until others may open the run of a killed process."""


class LocalRuns:
    """Runs in files."""

    env: Mapping[str, str] = {}
    access: tuple[str, ...] = ()

    def __init__(self, bakery: Bakery) -> None:
        self._bakery = bakery

    def ids(self) -> set[str]:
        found = self._bakery.runs.glob("*/journal.jsonl")
        return {path.parent.name for path in found if path.stat().st_size}

    def records(self, run: str) -> list[dict[str, Any]]:
        text = (self._bakery.runs / run / "journal.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def await_death(self, run: str) -> None:
        """Do nothing: the lock ended with the process."""


class SharedRuns:
    """Runs in a bucket of the cloud."""

    env: Mapping[str, str] = {"IMAGEPIPE_STATE": f"s3://{BUCKET}/matrix", "IMAGEPIPE_CRASH_LEASE": LEASE_SECONDS}
    access: tuple[str, ...] = ("--local",)

    def __init__(self, bakery: Bakery) -> None:
        self._bakery = bakery
        self._s3 = bakery.client("s3")
        self._s3.create_bucket(Bucket=BUCKET)

    def ids(self) -> set[str]:
        return {key.split("/")[2] for key in self._keys("matrix/runs/") if key.endswith("/00000001.json")}

    def records(self, run: str) -> list[dict[str, Any]]:
        keys = [key for key in self._keys(f"matrix/runs/{run}/journal/") if key.endswith(".json")]
        return [json.loads(self._s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys]

    def await_death(self, run: str) -> None:
        def is_dead() -> bool | None:
            listed = self._bakery("runs", *self.access, "--format", "json", **self.env)
            return next(row["state"] for row in json.loads(listed.out) if row["run"] == run) != "running" or None

        until(is_dead, f"the lease of {run} has run out")

    def _keys(self, prefix: str) -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [row["Key"] for page in pages for row in page.get("Contents", ())]
