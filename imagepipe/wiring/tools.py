"""The tools that the stages of all specs of a run share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from imagepipe.capture.scan.stages import Offline
from imagepipe.cloud.ec2 import Regions
from imagepipe.communicator.ssh import Connections
from imagepipe.dataclass import dataclass
from imagepipe.publish.copy_ebs import CopyLimits
from imagepipe.spec.loaded import LoadedSpec

if TYPE_CHECKING:
    from imagepipe.bundle.manifest import Recipients
    from imagepipe.retention.survey import SourceOf


def _unknown_source(run: str, key: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of the stages; one set serves all specs of a run."""

    regions: Regions
    connections: Connections
    limits: CopyLimits
    run_folder: Path
    run_id: str
    recipients: Callable[[LoadedSpec, str, str], Recipients]
    """Function that returns the signer and the readers of a bundle, given a spec, a region and the launch region."""
    is_local: bool = False
    offline: Offline | None = None
    """Access to the local cloud's captured disks; None if the machines themselves are scanned."""
    scans: Path | None = None
    """Folder for the stamps of clean files; None if none are kept."""
    cloud: Mapping[str, str] = field(default_factory=dict)
    """Identification of the cloud in the record of retired images."""
    source_of: SourceOf = _unknown_source
    """Function that returns the source image of an earlier bake, from the inputs that runs on this computer kept."""
