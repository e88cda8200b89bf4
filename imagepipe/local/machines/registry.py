"""Which driver makes the machines of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from imagepipe.errors import LocalCloudError
from imagepipe.local.machines.driver import Driver

VARIABLE = "IMAGEPIPE_LOCAL_DRIVER"
DEFAULT = "auto"


def _container(folder: Path) -> Driver:
    from imagepipe.local.machines.nspawn.driver import ContainerDriver

    return ContainerDriver(folder)


def _mixed(folder: Path) -> Driver:
    from imagepipe.local.machines.auto import MixedDriver

    return MixedDriver(folder)


def _qemu(folder: Path) -> Driver:
    from imagepipe.local.machines.auto import qemu_folder
    from imagepipe.local.machines.qemu.driver import QemuDriver

    return QemuDriver(qemu_folder(folder))


def _container_problems() -> Sequence[str]:
    from imagepipe.local.machines.requirements import container_problems

    return container_problems()


def _qemu_problems() -> Sequence[str]:
    from imagepipe.local.machines.requirements import qemu_problems

    return qemu_problems()


def _sshd(folder: Path) -> Driver:
    from imagepipe.local.machines.sshd.driver import SshdDriver

    return SshdDriver(folder)


def _sshd_problems() -> Sequence[str]:
    from imagepipe.local.machines.requirements import sshd_problems

    return sshd_problems()


DRIVERS: Mapping[str, tuple[Callable[[Path], Driver], Callable[[], Sequence[str]]]] = {
    "auto": (_mixed, _container_problems),
    "container": (_container, _container_problems),
    "qemu": (_qemu, _qemu_problems),
    "sshd": (_sshd, _sshd_problems),
}
"""By name: what opens it over a store's folder of machines, and what this computer lacks for it."""


def open_driver(name: str, folder: Path) -> Driver:
    """The driver of this name. Machines that run in the folder are adopted."""
    return DRIVERS[name][0](folder)


def problems(name: str) -> Sequence[str]:
    """Why it would not work on this computer; empty if it does."""
    return DRIVERS[name][1]()


def named(name: str | None) -> str:
    """A driver's name, or the default. Raises LocalCloudError where there is no such driver."""
    if not name:
        return DEFAULT
    if name not in DRIVERS:
        raise LocalCloudError(
            f"the local cloud has no driver {name!r}", hint=f"{VARIABLE} is one of {', '.join(sorted(DRIVERS))}"
        )
    return name
