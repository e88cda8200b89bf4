"""What the stages of all specs of a run work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imagepipe.bundle.manifest import Recipients
from imagepipe.capture.scan.stages import Offline
from imagepipe.cloud.ec2 import Regions
from imagepipe.communicator.ssh import Connections
from imagepipe.publish.copy_ebs import CopyLimits
from imagepipe.spec.loaded import LoadedSpec


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages work with; one set serves all specs of a run."""

    regions: Regions
    connections: Connections
    limits: CopyLimits
    run_folder: Path
    run_id: str
    recipients: Callable[[LoadedSpec, str, str], Recipients]
    """Who signs a spec's bundle for a region and who may open it, by the spec, that region and the launch region."""
    is_local: bool = False
    offline: Offline | None = None
    """What reads captured disks: the local cloud's. None: the machines themselves are looked at."""
    scans: Path | None = None
    """Where stamps of files that scans found clean are kept; None keeps none."""
