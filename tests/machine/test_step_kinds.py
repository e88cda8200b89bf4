"""The example package with a step kind, installed by pip and used by a build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "imagepipe-sysctl"
STEPS = """\
- sysctl: {set: {vm.swappiness: 10}, file: more.conf}
  sudo: true
- shell: cat /etc/sysctl.d/60-imagepipe.conf
"""


@pytest.fixture
def packages(quick: Bakery) -> str:
    """A folder with the example package, as pip installs it."""
    folder = str(quick.folder / "packages")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", folder]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(EXAMPLE)], check=True, capture_output=True)
    return folder


def test_the_step_kind_of_the_example_works_on_the_machine(quick: Bakery, packages: str) -> None:
    spec = quick.spec("tuned", STEPS)
    (quick.folder / "more.conf").write_text("net.core.somaxconn = 1024\n", encoding="utf-8")
    baked = quick("build", str(spec), "--local", PYTHONPATH=packages)
    assert baked.code == 0, baked.err
    assert "sysctl vm.swappiness" in baked.out
    assert "2 lines written to /etc/sysctl.d/60-imagepipe.conf" in baked.out
    assert "vm.swappiness = 10" in baked.out
    assert "net.core.somaxconn = 1024" in baked.out


def test_a_step_kind_that_fails_fails_as_a_shell_step_does(quick: Bakery, packages: str) -> None:
    before = quick.inventory()
    spec = quick.spec("untuned", "- sysctl: {set: {vm.no_such: 1}}\n  sudo: true\n")
    failed = quick("build", str(spec), "--local", PYTHONPATH=packages)
    assert failed.code == 7
    assert "step 'sysctl vm.no_such'" in failed.err
    assert "exit code 1" in failed.err
    assert "Traceback" not in failed.err
    assert quick.inventory() == before


def test_a_build_without_the_package_says_that_the_kind_is_unknown(quick: Bakery) -> None:
    spec = quick.spec("unknown", "- sysctl: {set: {vm.swappiness: 10}}\n")
    failed = quick("validate", str(spec))
    assert failed.code == 2
    assert "a step needs one of shell" in failed.out
    assert "sysctl" in failed.out
