"""Real machines for tests: a base image that is built once, and proof that nothing is left over."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagepipe.cli.local_store import terminate_everything
from imagepipe.local.client import connect
from imagepipe.local.daemon import rendezvous
from imagepipe.local.disks.base_image import BaseImage, ensure_base
from imagepipe.local.disks.files import Disks
from imagepipe.local.machines.driver import Disk, Machine, Seed
from imagepipe.local.machines.nspawn.driver import ContainerDriver
from imagepipe.local.machines.registry import open_driver
from imagepipe.local.store import Store, default_base_cache, default_root
from tests.machine.bakery import WITHOUT_BOOT, Bakery, Booted, without_boot
from tests.machine.guests import GIB, Guest, KeyPair, NewGuest, host_key_user_data, leftovers


@pytest.fixture(scope="session")
def base_cache() -> Path:
    """The folder of the base image between runs: $IMAGEPIPE_LOCAL_BASE_CACHE, else the user's own store."""
    return default_base_cache(os.environ) or default_root(os.environ) / "base"


@pytest.fixture
def store(tmp_path: Path, base_cache: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store", base_cache=base_cache)
    yield store
    # pytest keeps the folders of its last runs; disks would fill the computer. The machines' stay, for the leak check.
    shutil.rmtree(store.disks, ignore_errors=True)


@pytest.fixture
def base(store: Store) -> BaseImage:
    return ensure_base(store, lambda line: None)


LONGEST = (
    "test_docs_blocks",
    *("test_instance_store", "test_policy", "test_publish", "test_crash_matrix", "test_killed", "test_provisioners"),
    *("test_hygiene", "test_aws_cli", "test_workers", "test_machines_cloud", "test_tutorial_family", "test_many"),
    *("test_workflows", "test_build", "test_canaries", "test_outputs", "test_samples", "test_bad_input", "test_storm"),
    "test_qemu",
)
"""Files to begin with: whatever begins last would otherwise run alone at the end. QEMU emulates the processor here."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark every test of this folder, because the default run does not even read its files."""
    item.add_marker("machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files of machine tests first, in this order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


SPACE = 8 * GIB
"""Free disk that three files of machine tests need at once, with room for what the base image takes."""


@pytest.fixture(scope="session", autouse=True)
def _there_is_space(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ends the run at once on a full disk; every launch would fail, minutes apart, each with an error of its own."""
    folder = tmp_path_factory.getbasetemp()
    if (free := shutil.disk_usage(folder).free) < SPACE:
        pytest.exit(
            f"{folder} has {free / GIB:.1f} GiB free; tests of machines need {SPACE // GIB}. "
            "Delete what earlier runs left there, or set TMPDIR to a folder with more room.",
            returncode=4,
        )


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the run if anything of a machine outlives it, after failed tests too."""
    netns = Path("/run/netns")
    before = set(netns.iterdir()) if netns.exists() else set()
    yield
    left = leftovers(tmp_path_factory.getbasetemp())
    left += [f"namespace {path}" for path in (set(netns.iterdir()) if netns.exists() else set()) - before]
    assert not left, "left over:\n" + "\n".join(left)


@pytest.fixture
def new_guest(store: Store, base: BaseImage) -> Iterator[NewGuest]:
    """Makes a machine of the base image, with further empty disks if asked; it is not started."""
    disks = Disks(store.disks)

    def make(
        *, further: tuple[str, ...] = (), user_data: str | None = None, of: BaseImage = base, size_gib: int = 8
    ) -> Guest:
        login, host = KeyPair(), KeyPair()
        name = secrets.token_hex(8)
        snapshot = f"snap-{of.name}"
        if not disks.snapshot_path(snapshot).exists():
            disks.adopt_snapshot(of.path, snapshot)
        volume = disks.create_volume(f"vol-{name}", size_bytes=size_gib * GIB, snapshot_id=snapshot)
        files = [Disk(of.root_device, volume)]
        for at, device in enumerate(further):
            files.append(Disk(device, disks.create_volume(f"vol-{name}-{at}", size_bytes=GIB, snapshot_id=None)))
        data = host_key_user_data(host) if user_data is None else user_data
        seed = Seed(f"i-{name}", "a-guest", "us-east-1", data.encode(), (login.public_line,))
        address = f"127.42.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 4}"
        return Guest(Machine(f"i-{name}", address, tuple(files), seed), login, host)

    yield make
    # What a failed test left running.
    last = ContainerDriver(store.machines)
    for machine_id in last.running():
        last.stop(machine_id, force=True)
    last.close()


@pytest.fixture
def driver(store: Store) -> Iterator[ContainerDriver]:
    """Machines in the test's own store, all of them ended after it."""
    driver = ContainerDriver(store.machines)
    try:
        yield driver
    finally:
        for machine_id in driver.running():
            driver.stop(machine_id, force=True)
        driver.close()


def _bakery(folder: Path, base_cache: Path) -> Iterator[Bakery]:
    """A local cloud of its own, as a process; ended with all its instances, whatever the tests did."""
    store = Store.open(folder / "store", base_cache=base_cache)
    ensure_base(store, lambda line: None)
    with connect.connect(store) as cloud:
        bakery = Bakery(folder, store, cloud)
        yield bakery
        bakery.end()
        _end_cloud(store)
    shutil.rmtree(store.disks, ignore_errors=True)


def _end_cloud(store: Store) -> None:
    """End a cloud and its machines, though a test has killed it; by force where it does not do it itself."""
    try:
        with connect.connect(store):  # one that was killed adopts its machines, and can then terminate them
            connect.stop(store, terminate=terminate_everything)
    finally:
        if left := rendezvous.current(store):
            os.kill(left.pid, signal.SIGKILL)
        machines = open_driver("auto", store.machines)
        for machine_id in machines.running():
            machines.stop(machine_id, force=True)
        machines.close()


@pytest.fixture(scope="session")
def shared_cloud(tmp_path_factory: pytest.TempPathFactory, base_cache: Path) -> Iterator[Bakery]:
    yield from _bakery(tmp_path_factory.mktemp("cloud"), base_cache)


@pytest.fixture
def bakery(shared_cloud: Bakery, tmp_path: Path) -> Iterator[Bakery]:
    """imagepipe on the cloud that the tests share, with a state of the test's own."""
    yield from _with_own_state(shared_cloud, tmp_path, {})


def _with_own_state(shared: Bakery, folder: Path, env: dict[str, str]) -> Iterator[Bakery]:
    shared.admin("DELETE", "faults")
    bakery = Bakery(folder, shared.store, shared.cloud, env=env)
    yield bakery
    bakery.end()


@pytest.fixture
def fresh_bakery(tmp_path: Path, base_cache: Path) -> Iterator[Bakery]:
    """imagepipe on a cloud of the test's own, which it may break."""
    yield from _bakery(tmp_path, base_cache)


@pytest.fixture(scope="session")
def shared_quick_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bakery]:
    with without_boot(tmp_path_factory.mktemp("quick-cloud")) as bakery:
        yield bakery


@pytest.fixture
def quick(shared_quick_cloud: Bakery, tmp_path: Path) -> Iterator[Bakery]:
    """imagepipe on a shared cloud whose machines do not boot, with a state of the test's own.

    For tests of what imagepipe does, not of what happens on the machine.
    """
    yield from _with_own_state(shared_quick_cloud, tmp_path, WITHOUT_BOOT)


@pytest.fixture
def quick_bakery(tmp_path: Path) -> Iterator[Bakery]:
    """imagepipe on a cloud of the test's own, whose machines do not boot."""
    folder = tmp_path / "quick"
    folder.mkdir()
    with without_boot(folder) as bakery:
        yield bakery


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """An instance of the base image whose machine does not boot, for the tests of one file."""
    with without_boot(tmp_path_factory.mktemp("quick")) as bakery:
        found = bakery.client().describe_images(Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}])
        with bakery.instance(found["Images"][0]["ImageId"], "us-east-1") as booted:
            yield booted
