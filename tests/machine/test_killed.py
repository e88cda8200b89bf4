"""`kill -9`, of a build and of the local cloud: nothing that was answered is lost, and `clean` deletes the rest."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest

from imagepipe.cloud import tags
from imagepipe.local.client import connect
from tests.machine.bakery import REGIONS, Bakery, kill, until
from tests.machine.guests import leftovers

pytestmark = pytest.mark.machine

STEP = "- shell: echo sleeping; sleep 12"


def _claims(bakery: Bakery, state: str, kind: str, region: str) -> bool | None:
    """Return True if the newest run's journal has such a claim; None otherwise."""
    keys = {
        r["claim"] for r in bakery.journal() if r["type"] == "intended" and (r["kind"], r["region"]) == (kind, region)
    }
    return any(r["type"] == state and r["claim"] in keys for r in bakery.journal()) or None


MOMENTS: dict[str, tuple[dict[str, Any] | None, Callable[[Bakery], bool | None]]] = {
    "at launch": (
        {"effect": "delay-after", "action": "RunInstances", "seconds": 6, "times": 1},
        lambda bakery: bool(bakery.inventory()["us-east-1 instances"]) or None,
    ),
    "while it provisions": (
        None,
        lambda bakery: any("sleeping" in e.get("text", "") for e in bakery.events()) or None,
    ),
    "in the middle of a copy": (
        {"effect": "delay-after", "action": "CopyImage", "seconds": 6, "times": 1},
        lambda bakery: bool(bakery.inventory()["us-west-2 images"]) or None,
    ),
    "between RegisterImage's effect and its answer": (
        {"effect": "delay-after", "action": "RegisterImage", "seconds": 6, "times": 1},
        lambda bakery: bool(bakery.inventory()["us-east-1 images"]) or None,
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_after_kill_9_clean_leaves_the_account_as_it_was(moment: str, request: pytest.FixtureRequest) -> None:
    boots = moment == "while it provisions"
    bakery: Bakery = request.getfixturevalue("fresh_bakery" if boots else "quick_bakery")
    fault, came = MOMENTS[moment]
    before, machines_before = bakery.inventory(), leftovers(bakery.folder)
    spec = bakery.spec("killed", STEP)
    if fault:
        bakery.admin("POST", "faults", fault)
    process = bakery.start("build", str(spec), "--local")
    until(lambda: came(bakery), moment)
    kill(process)
    bakery.admin("DELETE", "faults")
    during = bakery.inventory()
    assert during != before, "the killed build left something to clean"
    if moment == "in the middle of a copy":
        assert during["us-west-2 images"], "the copy is there; the instance is terminated while it runs"
    else:
        assert during["us-east-1 instances"], "the instance lives on"
    run = bakery.journal()[0]["id"]
    assert f"{run}  " in bakery("runs").out

    cleaned = bakery("clean", run, "--local")

    assert cleaned.code == 0, cleaned.err
    assert bakery.inventory() == before
    assert leftovers(bakery.folder) == machines_before, "no process, mount, loop device or group more than before"
    assert not list(bakery.runs.glob("*/id_ed25519*")), "the run's private key is gone"
    again = bakery("clean", run, "--local")
    assert (again.code, again.out) == (0, "nothing to delete\n")


def test_kill_9_of_the_cloud_while_a_build_waits_loses_nothing(fresh_bakery: Bakery) -> None:
    bakery = fresh_bakery
    spec = bakery.spec("survives", "- shell: echo sleeping; sleep 12")
    process = bakery.start("build", str(spec), "--local", "--format", "json")
    until(lambda: any("sleeping" in e.get("text", "") for e in bakery.events()) or None, "the step runs")
    before = bakery.inventory()
    serving = connect.status(bakery.store)
    assert serving is not None
    os.kill(serving.pid, signal.SIGKILL)
    with connect.connect(bakery.store) as again:
        assert again.endpoint_url == bakery.cloud.endpoint_url, "on its old port, where the build looks for it"
        assert bakery.inventory() == before
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        assert '"us-west-2"' in out


def test_an_image_of_an_hour_ago_survives_clean_all_and_can_be_launched(quick_bakery: Bakery) -> None:
    bakery = quick_bakery  # the clock of its cloud stays an hour ahead
    baked = bakery.build(bakery.spec("aged", "- shell: echo here | sudo tee /etc/here"))
    bakery.admin("POST", "clock", {"advance": 3600})
    before = bakery.inventory()
    cleaned = bakery("clean", "--all", "--local")
    assert cleaned.code == 0, cleaned.err
    assert bakery.inventory() == before
    with bakery.instance(baked.images["us-west-2"], "us-west-2") as booted:
        assert booted.sh("cat /etc/here") == "here"


def test_a_run_that_goes_on_is_not_cleaned(quick: Bakery) -> None:
    spec = quick.spec("alive", "- shell: echo sleeping; sleep 12")
    process = quick.start("build", str(spec), "--local", "--format", "json")
    until(lambda: any("sleeping" in e.get("text", "") for e in quick.events()) or None, "the step runs")
    run = quick.journal()[0]["id"]
    refused = quick("clean", run)
    assert refused.code == 2
    assert "in progress" in refused.err
    assert quick("clean", "--all").code == 0
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err


def _age(bakery: Bakery) -> None:
    """Everything of ours says that it began a day ago."""
    for region in REGIONS:
        ec2 = bakery.client(region=region)
        ours = [{"Name": "tag-key", "Values": [tags.RUN]}]
        found = [
            row["ResourceId"] for row in ec2.describe_tags(Filters=[{"Name": "key", "Values": [tags.RUN]}])["Tags"]
        ]
        found += [row["ImageId"] for row in ec2.describe_images(Owners=["self"], Filters=ours)["Images"]]
        if found:
            ec2.create_tags(Resources=sorted(set(found)), Tags=[{"Key": tags.STARTED, "Value": "20200101T000000Z"}])


def test_a_sweep_by_tags_takes_what_a_dead_run_left_and_no_image_of_one_that_succeeded(quick_bakery: Bakery) -> None:
    """With no journal: the disk of the CI runner that had it is gone."""
    bakery = quick_bakery
    kept = bakery.build(bakery.spec("kept", "- shell: echo kept | sudo tee /etc/kept"))
    before = bakery.inventory()
    process = bakery.start("build", str(bakery.spec("dead", STEP)), "--local")
    until(lambda: bool(bakery.inventory()["us-east-1 instances"]) or None, "an instance runs")
    until(lambda: any("sleeping" in e.get("text", "") for e in bakery.events()) or None, "it is provisioned")
    kill(process)
    shutil.rmtree(bakery.runs)

    young = bakery("clean", "--older-than", "3h", "--local")
    assert (young.code, young.out) == (0, "nothing to delete\n"), young.err
    _age(bakery)
    shown = bakery("clean", "--older-than", "3h", "--local", "--dry-run")
    swept = bakery("clean", "--older-than", "3h", "--local")
    assert shown.code == swept.code == 0, swept.err
    assert shown.out.replace("would delete", "deleted:") == swept.out
    assert {line.split()[2] for line in swept.out.splitlines()} == {"instance", "security-group", "key-pair"}
    assert bakery.inventory() == before
    with bakery.instance(kept.images["us-west-2"], "us-west-2") as booted:
        assert booted.sh("cat /etc/kept") == "kept"


def test_a_killed_build_goes_on_with_its_machine_where_it_was(fresh_bakery: Bakery) -> None:
    """In the middle of a step that may be run again: on the same instance, with the steps before it done once."""
    bakery = fresh_bakery
    steps = f"""
- shell: echo once | sudo tee -a /etc/steps
{STEP}
  idempotent: true
- shell: echo last | sudo tee -a /etc/steps
"""
    process = bakery.start("build", str(bakery.spec("killed", steps)), "--local")
    until(lambda: any("sleeping" in e.get("text", "") for e in bakery.events()) or None, "it is provisioned")
    kill(process)  # at once: the step does not sleep for long
    [instance] = bakery.inventory()["us-east-1 instances"]
    run = bakery.journal()[0]["id"]

    shown = bakery("resume", run, "--dry-run")
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[-1] == "continues with step-2"
    assert bakery.inventory()["us-east-1 instances"] == [instance]
    resumed = bakery("resume", run, "--format", "json", "--junit", "report.xml")
    assert resumed.code == 0, resumed.err
    report = (bakery.folder / "report.xml").read_text(encoding="utf-8")
    assert 'tests="1" failures="0" errors="0" skipped="0"' in report
    assert "anew" not in resumed.err
    assert f"deleted         instance {instance}" in resumed.err
    with bakery.instance(resumed.images["us-west-2"], "us-west-2") as booted:
        assert booted.sh("cat /etc/steps") == "once\nlast"
    assert bakery("resume", run).code == 2, "there is nothing left to do"
