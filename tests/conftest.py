"""Settings of all tests: none may be skipped silently, and the machine tests print how many ran."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.account import Account
    from tests.communicator.sshd import Sshd

_counts = {"passed": 0, "failed": 0, "skipped": 0}


TESTS = Path(__file__).parent
MACHINE = TESTS / "machine"
MEMORY_FILES = Path("/dev/shm")
ROOM = 4 << 30
CLOUDS = {"account", "cloud", "clouds", "served", "world"}
"""Fixtures that start a local cloud in this process."""


def pytest_configure(config: pytest.Config) -> None:
    """Give the memory of one test back before the next: hundreds of them make and drop megabytes in threads.

    Hundreds of local clouds are started and stopped, each syncs its records to disk, and all wait for the same disk. So
    their folders are in memory, unless the machine tests run, whose disks would fill it.
    """
    # A shell starts background jobs with SIGINT ignored, and every child of a test would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    is_set = {"TMPDIR", "PYTEST_DEBUG_TEMPROOT"} & os.environ.keys()
    if not _is_machine_run(config) and not is_set and _free(MEMORY_FILES) >= ROOM:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY_FILES)
    from hypothesis import settings

    from imagepipe.local.host.processes import return_memory
    from tests.fuzzing import NO_CHECKS

    settings.register_profile("any speed", deadline=None, suppress_health_check=NO_CHECKS)
    settings.load_profile("any speed")
    return_memory()
    # The collector would walk botocore's and moto's models, hundreds of thousands of objects, thousands of times.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # pytest rewrites the asserts of each test module, which takes longer than all the rest of collecting it. Keep the
    # result, also for someone who wants no bytecode: each worker would rewrite every module in every run.
    sys.dont_write_bytecode = False


def pytest_sessionstart(session: pytest.Session) -> None:
    """Share the rewriting of test modules among the workers: each begins to import with another module.

    They collect in step, so on a new clone each worker would rewrite every module at the same time as the others.
    """
    worker: dict[str, Any] | None = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    modules = sorted(path for path in TESTS.rglob("test_*.py") if not _is_left_out(path, session.config))
    number = int(worker["workerid"].removeprefix("gw"))
    first = number * len(modules) // int(worker["workercount"])
    for path in (*modules[first:], *modules[:first]):
        with suppress(Exception):  # the collection reports it
            importlib.import_module(".".join(path.relative_to(TESTS.parent).with_suffix("").parts))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of machine tests, which would be imported only to be deselected."""
    return True if _is_left_out(collection_path, config) else None


def _is_left_out(path: Path, config: pytest.Config) -> bool:
    return MACHINE in (path, *path.parents) and str(config.getoption("-m")).startswith(("not machine", "cloud"))


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start a local cloud: a third of the tests, and three quarters of their time."""
    for item in items:
        if CLOUDS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("cloud")


def pytest_collection_finish() -> None:
    """Keep the collector from the imported modules and the collected tests, which live until the end."""
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        _counts[report.outcome] += 1


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A machine test that cannot run here is a failure: a green run must mean that machines booted."""
    if _is_machine_run(session.config) and _counts["skipped"] and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    if _is_machine_run(config) and not hasattr(config, "workerinput"):
        failed = f", {_counts['failed']} failed" if _counts["failed"] else ""
        print(f"machine: {_counts['passed']} passed{failed}, {_counts['skipped']} skipped")  # noqa: T201 - CI reads this line


def _free(folder: Path) -> int:
    """Return the free bytes of a file system; 0 if it does not exist or cannot be written to."""
    return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0


def _is_machine_run(config: pytest.Config) -> bool:
    return str(config.getoption("-m")).startswith("machine")


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """The product's own way into a local cloud in this process, whose machines do not boot."""
    # The local cloud takes a while to load, and most tests do not need it.
    from tests.account import Account
    from tests.local.aws.harness import Cloud

    (tmp_path / "cloud").mkdir()
    cloud = Cloud(root=tmp_path / "cloud")
    cloud.start()
    made = Account(cloud, tmp_path / "runs")
    yield made
    made.journal.close()
    cloud.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An OpenSSH server that this run's tests share."""
    from tests.communicator.sshd import sshd

    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server
