"""arm64: the driver of the default boots the disk's own boot loader on UEFI; the drivers of containers refuse it.

A whole arm64 system takes minutes under emulation (docs/how-to/whole-disks.md says how to boot one): this disk has no
boot loader. Firmware, processor, disk and console are those of any arm64 machine, and the firmware looks for a loader.
"""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path

import pytest

from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.auto import AutoDriver
from imagepipe.local.machines.driver import ARM, Disk, Machine, Seed
from imagepipe.local.machines.nspawn.driver import ContainerDriver
from imagepipe.local.machines.sshd.driver import SshdDriver
from imagepipe.local.store import Store
from tests.machine.guests import SSH, until

pytestmark = pytest.mark.machine

SECONDS = 180.0  # the firmware takes 8 s on an idle machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    disk = tmp_path / "disk.raw"
    disk.touch()
    with disk.open("r+b") as file:
        file.truncate(64 << 20)
    name = f"i-{secrets.token_hex(8)}"
    address = f"127.42.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 4}"
    seed = Seed(name, "an-arm-guest", "us-east-1", b"", ())
    return Machine(name, address, (Disk("/dev/xvda", disk),), seed, architecture=ARM)


def test_the_firmware_of_an_arm64_machine_runs_and_looks_for_a_boot_loader(store: Store, machine: Machine) -> None:
    with closing(AutoDriver(store.machines)) as driver:
        driver.start(machine, [SSH])
        try:
            until(lambda: b"UEFI firmware" in driver.console(machine.id), within=SECONDS)
            until(lambda: b"BdsDxe" in driver.console(machine.id), within=SECONDS)
            assert driver.running() == {machine.id}
        finally:
            driver.stop(machine.id, force=True)
        assert driver.running() == frozenset()


@pytest.mark.parametrize("kind", [ContainerDriver, SshdDriver])
def test_a_driver_of_this_computer_s_own_programs_refuses_an_arm64_machine(
    store: Store, machine: Machine, kind: type[ContainerDriver] | type[SshdDriver]
) -> None:
    with closing(kind(store.machines)) as driver:
        with pytest.raises(MachineError, match="its image is for arm64, which the driver"):
            driver.start(machine, [SSH])
        assert driver.running() == frozenset()
