"""Ctrl-C at any moment: exit code 130 and the account as it was; twice, and `clean` deletes the rest."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagepipe.local.daemon import rendezvous
from tests.machine.bakery import Bakery, until

pytestmark = pytest.mark.machine


def _delay(action: str, seconds: float = 2) -> dict[str, Any]:
    return {"effect": "delay-after", "action": action, "seconds": seconds, "times": 1}


def _stage(name: str) -> Callable[[Bakery], bool | None]:
    """Return a check that is true once the newest run is in this stage."""
    return lambda b: any(e["event"] == "StageStarted" and e["stage"] == name for e in b.events()) or None


def _made(what: str) -> Callable[[Bakery], bool | None]:
    """Return a check that is true once the newest run has tagged such a thing, though it still waits for the answer."""
    region, kind = what.split()

    def came(bakery: Bakery) -> bool | None:
        if not bakery.journal():
            return None
        mine = [{"Name": "tag:imagepipe:run", "Values": [bakery.journal()[0]["id"]]}]
        ec2 = bakery.client(region=region)
        answer = {
            "instances": lambda: ec2.describe_instances(Filters=mine)["Reservations"],
            "snapshots": lambda: ec2.describe_snapshots(Filters=mine)["Snapshots"],
            "images": lambda: ec2.describe_images(Filters=mine)["Images"],
        }[kind]()
        return bool(answer) or None

    return came


MOMENTS: dict[str, tuple[dict[str, Any] | None, Callable[[Bakery], bool | None]]] = {
    "key and group": (_delay("ImportKeyPair"), _stage("key")),
    "launch": (_delay("RunInstances"), _made("us-east-1 instances")),
    "connect": (None, _stage("connect")),
    "step": (None, lambda b: any("sleeping" in e.get("text", "") for e in b.events()) or None),
    "stop": (_delay("StopInstances"), _stage("stop")),
    "snapshot": (_delay("CreateSnapshots"), _made("us-east-1 snapshots")),
    "copy": (_delay("CopyImage"), _made("us-west-2 images")),
}


def _interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=900)
    return process.returncode, err


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_gives_everything_back(moment: str, request: pytest.FixtureRequest) -> None:
    fault, came = MOMENTS[moment]
    bakery: Bakery = request.getfixturevalue("bakery" if moment in ("connect", "stop") else "quick")
    before = bakery.inventory()
    if fault:
        bakery.admin("POST", "faults", fault)
    process = bakery.start("build", str(bakery.spec("cancelled", "- shell: echo sleeping; sleep 1")), "--local")
    until(lambda: came(bakery), moment)
    code, err = _interrupt(process)
    assert code == 130, err
    assert "cleaning up everything" in err
    assert "Traceback" not in err
    assert bakery.inventory() == before
    assert bakery("clean", "--all").out == "nothing to delete\n"
    assert not list(bakery.runs.glob("*/id_ed25519*"))


def test_after_a_second_ctrl_c_clean_cleans_up_the_rest(quick: Bakery) -> None:
    before = quick.inventory()
    process = quick.start("build", str(quick.spec("twice", "- shell: echo sleeping; sleep 60")), "--local")
    until(lambda: MOMENTS["step"][1](quick), "the step runs")
    quick.admin("POST", "faults", _delay("TerminateInstances", 40))
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    began = time.monotonic()
    code, err = _interrupt(process)
    assert code == 130
    assert time.monotonic() - began < 30, "at once, and not after the call that hangs"
    assert "imagepipe clean --all" in err
    cleaned = quick("clean", "--all")
    assert cleaned.code == 0, cleaned.err
    assert quick.inventory() == before


def test_a_build_that_takes_longer_than_it_may_gives_everything_back(quick: Bakery) -> None:
    before = quick.inventory()
    spec = quick.spec("long", "- shell: echo sleeping; sleep 60")
    stopped = quick("build", str(spec), "--local", "--timeout", "6s")
    assert stopped.code == 130
    assert "error: not done within 6 s (--timeout); interrupted: " in stopped.err
    assert quick.inventory() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_build_is_interrupted_while_the_base_image_is_made(quick: Bakery, number: signal.Signals) -> None:
    store, cache = quick.folder / "other-store", quick.folder / "cache"
    process = quick.start(
        "build",
        str(quick.spec("early", "- shell: 'true'")),
        "--local",
        IMAGEPIPE_LOCAL_STORE=str(store),
        IMAGEPIPE_LOCAL_BASE_CACHE=str(cache),
    )
    until(lambda: list(cache.glob(".build-*/builder")) or None, "mmdebstrap runs")
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 40, "not after the base image is done"
    assert "Traceback" not in err
    assert not list(cache.glob(".build-*")), "nothing half made"
    assert not rendezvous.is_locked(store / "lock"), "no cloud was started"


def test_a_demo_that_is_interrupted_waits_for_its_build_to_give_everything_back(quick: Bakery) -> None:
    before = quick.inventory()
    spec: Path = quick.spec("shown", "- shell: echo sleeping; sleep 60")
    process = quick.start("demo", str(spec))
    until(lambda: MOMENTS["step"][1](quick), "the step runs")
    code, err = _interrupt(process)
    assert code == 130, err
    assert quick.inventory() == before
