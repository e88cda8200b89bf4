"""Choose the driver of a store's machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from imagepipe.errors import LocalCloudError
from imagepipe.local.machines.driver import Driver
from imagepipe.local.machines.requirements import auto_problems, container_problems, qemu_problems, sshd_problems

VARIABLE = "IMAGEPIPE_LOCAL_DRIVER"
DEFAULT = "auto"
PROBLEMS: Mapping[str, Callable[[], Sequence[str]]] = {
    "auto": auto_problems,
    "container": container_problems,
    "qemu": qemu_problems,
    "sshd": sshd_problems,
}
"""By driver, a function that lists what this computer lacks for it."""


def open_driver(name: str, folder: Path) -> Driver:
    """Open the driver of this name over a store's folder of machines, and adopt those that run there.

    Only its own modules are loaded.
    """
    match name:
        case "container":
            from imagepipe.local.machines.nspawn.driver import ContainerDriver

            return ContainerDriver(folder)
        case "qemu":
            from imagepipe.local.machines.qemu.driver import QemuDriver

            return QemuDriver(folder)
        case "sshd":
            from imagepipe.local.machines.sshd.driver import SshdDriver

            return SshdDriver(folder)
        case _:
            from imagepipe.local.machines.auto import AutoDriver

            return AutoDriver(folder)


def named(name: str | None) -> str:
    """Return a driver's name, or the default. Raises LocalCloudError for an unknown name."""
    if not name:
        return DEFAULT
    if name not in PROBLEMS:
        raise LocalCloudError(
            f"the local cloud has no driver {name!r}", hint=f"{VARIABLE} is one of {', '.join(sorted(PROBLEMS))}"
        )
    return name
