"""A record of every retired image: what was begun and what was done, so that a killed process loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from imagepipe.clock import Clock, iso
from imagepipe.dataclass import dataclass
from imagepipe.errors import ImagepipeError
from imagepipe.regular_files import read_regular
from imagepipe.retention.bakes import BakedImage
from imagepipe.retention.rules import Step

FILE_NAME = "retired.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of one image, as it was recorded."""

    id: str
    region: str
    name: str
    spec: str
    variant: str
    step: str
    snapshots: tuple[str, ...]
    bundle: str | None
    is_done: bool


class RetirementRecord:
    """The record file; thread-safe. Each line is on disk before the call that it announces."""

    def __init__(self, path: Path, cloud: Mapping[str, str], clock: Clock) -> None:
        """`cloud` identifies the cloud, because the file is shared by all."""
        self._path, self._cloud, self._clock = path, dict(cloud), clock
        self._lock = Lock()

    def begin(self, image: BakedImage, step: Step) -> None:
        """Record that a step begins. Raises ImagepipeError if it cannot be written: then the step is not done."""
        self._write(_line(image, step), "begun")

    def done(self, image: BakedImage, step: Step) -> None:
        """Record that a step is done."""
        self._write(_line(image, step), "done")

    def settle(self, entry: Entry) -> None:
        """Record that an unfinished step of an earlier process needs nothing more."""
        self._write({"image": entry.id, "region": entry.region, "step": entry.step}, "done")

    def _write(self, line: Mapping[str, Any], event: str) -> None:
        text = json.dumps({"time": iso(self._clock.now()), "event": event, "cloud": self._cloud, **line})
        try:
            with self._lock:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with self._path.open("ab+") as file:
                    end = file.seek(0, os.SEEK_END)
                    # A line that a dead process or a full disk has cut is ended first, or this one would be part of it.
                    is_cut = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
                    file.write(b"\n" * is_cut + text.encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise ImagepipeError(
                f"writing {self._path}: {error.strerror}", hint="the record of retired images needs a writable folder"
            ) from error

    def entries(self) -> list[Entry]:
        """Return the newest entry of each image and step in this cloud, oldest first."""
        found: dict[tuple[str, str, str], Entry] = {}
        for row in self._rows():
            key = (str(row.get("image")), str(row.get("region")), str(row.get("step")))
            if row.get("event") == "done" and key in found:
                before = found.pop(key)
                found[key] = replace(before, is_done=True)
            elif row.get("event") == "begun":
                found.pop(key, None)
                found[key] = _entry(row)
        return list(found.values())

    def unfinished(self) -> list[Entry]:
        """Return the deregistrations that an earlier process began and did not finish."""
        return [entry for entry in self.entries() if entry.step == Step.DEREGISTER and not entry.is_done]

    def deregistered(self, image: str) -> Entry | None:
        """Return the entry of an image that was deregistered; None if the record has none."""
        own = [entry for entry in self.entries() if entry.id == image and entry.step == Step.DEREGISTER]
        return own[-1] if own else None

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            content = read_regular(self._path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ImagepipeError(f"reading {self._path}: {error.strerror}") from error
        for line in content.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line of a process that was killed while it wrote
            if isinstance(row, dict) and row.get("cloud") == self._cloud:
                yield row


def _line(image: BakedImage, step: Step) -> dict[str, Any]:
    return {
        "image": image.id,
        "region": image.region,
        "step": step.value,
        "name": image.name,
        "spec": image.spec,
        "variant": image.variant,
        "snapshots": list(image.snapshots),
        "bundle": image.bundle,
    }


def _entry(row: Mapping[str, Any]) -> Entry:
    snapshots = row.get("snapshots")
    return Entry(
        str(row.get("image")),
        str(row.get("region")),
        str(row.get("name", "")),
        str(row.get("spec", "")),
        str(row.get("variant", "")),
        str(row.get("step")),
        tuple(map(str, snapshots)) if isinstance(snapshots, list) else (),
        str(row["bundle"]) if row.get("bundle") else None,
        is_done=False,
    )
