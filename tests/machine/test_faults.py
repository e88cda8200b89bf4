"""Faults that only machines with an SSH can meet, on each driver's own way in; and what builds make of them."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.machine.bakery import Baked, Bakery, until
from tests.reliability.bench import differences, inventory

pytestmark = pytest.mark.machine


def _spec(bakery: Bakery, name: str, step: str, more: str = "") -> Path:
    path = bakery.spec(name, step)
    path.write_text(path.read_text().replace("publish: {regions: [us-west-2]}\n", more))
    return path


def _in_the_step(bakery: Bakery, effect: str, step: str, *words: str, seconds: float = 2.5) -> Baked:
    """Build with a fault so many seconds after the start; later, if it came before the step had begun on this computer.

    The step prints "begun", and fails with "ended" if nothing has happened after ten times as long, its `SLEEP`.
    """
    for _ in range(6):
        spec = _spec(bakery, effect, step.replace("SLEEP", f"{{ sleep {10 * seconds}; echo ended; exit 1; }}"))
        with bakery.fault(effect=effect, action="RunInstances", seconds=seconds, times=1):
            baked = bakery("build", str(spec), "--local", *words)
        printed = set(re.findall("^ .* (begun|ended)$", baked.out + baked.err, re.MULTILINE))
        if printed == {"begun"}:
            return baked
        seconds *= 2
    raise AssertionError(f"the fault came before the step, after {seconds / 2} s too: {baked.err}")


def test_a_connection_that_is_reset_fails_the_step_and_the_machine_goes_on(quick: Bakery) -> None:
    before = inventory(quick)
    baked = _in_the_step(quick, "drop-ssh", "- shell: echo begun; SLEEP")
    assert baked.code == 7, baked.err
    assert "broke" in baked.err
    assert "idempotent: true" in baked.err
    assert "is terminated" not in baked.err
    assert not differences(before, inventory(quick))


def test_a_step_that_may_be_run_again_is_where_its_connection_is_reset(quick: Bakery) -> None:
    step = "- shell: echo begun | sudo tee -a /etc/begun; [ $(wc -l < /etc/begun) = 2 ] || SLEEP\n  idempotent: true"
    baked = _in_the_step(quick, "drop-ssh", step, "--format", "json")
    assert baked.code == 0, baked.err
    assert "running it again, because the step is idempotent" in baked.err
    with quick.instance(baked.images["us-east-1"], "us-east-1") as booted:
        assert booted.sh("cat /etc/begun") == "begun\nbegun"


@pytest.mark.parametrize("cloud", ["quick", "bakery"])
def test_a_machine_whose_ports_answer_late_is_waited_for(cloud: str, request: pytest.FixtureRequest) -> None:
    bakery: Bakery = request.getfixturevalue(cloud)
    spec = _spec(bakery, "late", "- shell: 'true'")
    began = time.monotonic()
    with bakery.fault(effect="late-ssh", action="RunInstances", seconds=6, times=1):
        baked = bakery.build(spec)
    assert time.monotonic() - began > 6
    assert list(baked.images) == ["us-east-1"]


def test_connections_to_a_container_that_boots_are_reset_too(bakery: Bakery) -> None:
    baked = _in_the_step(bakery, "drop-ssh", "- shell: echo begun; SLEEP", seconds=20)
    assert baked.code == 7, baked.err
    assert "broke" in baked.err


def test_an_instance_that_dies_in_the_middle_of_a_step_is_named_with_its_state(quick: Bakery) -> None:
    before = inventory(quick)
    baked = _in_the_step(quick, "die", "- shell: echo begun; SLEEP")
    assert baked.code == 7, baked.err
    assert "terminated" in baked.err or "shutting-down" in baked.err
    assert not differences(before, inventory(quick))


def test_a_copy_that_hangs_is_given_up_in_time_and_taken_back(quick: Bakery) -> None:
    before = inventory(quick)
    spec = _spec(quick, "hangs", "- shell: 'true'", "publish: {regions: [us-west-2], timeout: 3s}\n")
    with quick.fault(effect="hang", action="CopyImage", times=1):
        baked = quick("build", str(spec), "--local")
    assert baked.code == 3, baked.err
    assert "us-west-2 to be available: timed out after 3 s; last state: pending" in baked.err
    assert not differences(before, inventory(quick))


def test_credentials_that_end_in_the_middle_leave_a_run_that_goes_on_once_they_are_good(quick: Bakery) -> None:
    before = inventory(quick)
    spec = _spec(quick, "expires", "- {shell: echo once | sudo tee -a /etc/begun, idempotent: true}")
    with quick.fault(effect="expire", action="CreateSnapshots", times=1):
        baked = quick("build", str(spec), "--local")
        run = quick.journal()[0]["id"]
    assert baked.code == 3, baked.err
    assert "(RequestExpired)" in baked.err
    assert "log in again" in baked.err
    assert "still held: instance i-" in baked.err
    assert f"Once your credentials are valid again, run: imagepipe resume {run}\n" in baked.err
    assert f"To delete it later, run: imagepipe clean {run}" in baked.err
    resumed = quick("resume", run, "--format", "json")
    assert resumed.code == 0, resumed.err
    assert list(resumed.images) == ["us-east-1"]
    words = ["images", "deregister", resumed.images["us-east-1"], "--local", "--region", "us-east-1", "--delete-data"]
    assert quick(*words).code == 0
    assert not differences(before, inventory(quick))


def test_a_cloud_that_runs_gets_a_files_faults_shows_them_and_loses_them(quick: Bakery) -> None:
    file = quick.write("faults.yaml", "seed: 7\nfaults: [{effect: refuse, action: DescribeVolumes, times: 2}]\n")
    put = quick("local", "faults", str(file))
    assert put.code == 0, put.err
    assert put.out == "active faults (seed: 7):\n  refuse DescribeVolumes, 2 times\n"
    quick.client().describe_volumes()
    shown = quick("local", "faults")
    assert "refuse DescribeVolumes: 2 times" in shown.out
    assert quick("local", "faults", "--clear").out == "no faults are set\n"
    assert quick("local", "faults", str(file), "--clear").code == 2


@pytest.mark.parametrize("runs_already", [True, False], ids=["that runs", "that it starts"])
def test_serve_sets_the_faults_of_a_file_on_a_cloud(quick: Bakery, tmp_path: Path, runs_already: bool) -> None:
    file = quick.write("faults.yaml", "faults: [{effect: refuse, action: DescribeVolumes, times: 1}]\n")
    store = quick.store.root if runs_already else tmp_path / "store"
    words = ("local", "--store", str(store), "serve", "--faults", str(file))
    process = quick.start(*words)
    try:
        shown = until(lambda: _listed(quick, store), "the faults are set")
        assert "refuse DescribeVolumes, 1 times: injected 0 times" in shown
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=900)
        quick("local", "faults", "--clear")
    assert process.returncode == 0, err
    assert re.search(r"active faults \(seed: \d+\):\n  refuse DescribeVolumes, 1 times", err)


def _listed(bakery: Bakery, store: Path) -> str | None:
    done = bakery("local", "--store", str(store), "faults")
    return done.out if done.code == 0 and ": injected " in done.out else None
