"""Arguments and options of `imagepipe build`."""

from __future__ import annotations

from pathlib import Path

from imagepipe.cli.engine_options import EngineOptions
from imagepipe.cli.loading import Selection
from imagepipe.cli.options import CloudOptions, VariableOptions
from imagepipe.cli.run_options import RunOptions
from imagepipe.cli.state_options import StateOptions
from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Arguments and options of `imagepipe build`."""

    specs: tuple[str, ...]
    selection: Selection
    plan_file: Path | None
    variables: VariableOptions
    cloud: CloudOptions
    run_options: RunOptions
    state: StateOptions
    engine: EngineOptions
