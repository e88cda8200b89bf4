"""A build outlives its output: no closed pipe, full disk or vanished terminal breaks the run or its clean-up."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from tests.machine.bakery import Bakery, until, without_boot
from tests.reliability.outputs import BUILD, WAYS, losses

pytestmark = pytest.mark.machine

SEED = int(os.environ.get("IMAGEPIPE_OUTPUT_SEED", "3"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bakery]:
    with without_boot(tmp_path_factory.mktemp("outputs")) as bakery:
        yield bakery


def test_a_build_that_loses_its_output_ends_in_order_and_leaks_nothing(bench: Bakery) -> None:
    found = list(losses(bench, SEED, moments=len(WAYS)))
    sys.stdout.write(f"IMAGEPIPE_OUTPUT_SEED={SEED}: {'; '.join(loss.words() for loss in found)}\n")
    assert [loss.words() for loss in found if loss.wrong] == []


def test_a_build_whose_reader_has_enough_succeeds_and_exits_with_1(bench: Bakery) -> None:
    spec = bench.spec("piped", "- shell: echo hello")
    command = f"{' '.join(BUILD)} {spec} --local 2>errors | head -1 >first; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=bench.folder,
        env=bench.env,
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    assert done.stdout == "1\n"
    assert bench.journal()[-1]["outcome"] == "succeeded"
    run = bench.journal()[0]["id"]
    assert (bench.folder / "first").read_text().count("\n") == 1
    assert (
        (bench.folder / "errors")
        .read_text()
        .endswith(f"the result could not be written to standard output; run: imagepipe show {run}\n")
    )


def test_a_build_with_closed_standard_streams_opens_no_file_in_their_place(bench: Bakery) -> None:
    spec = bench.spec("closed", "- shell: echo hello")
    command = f"{' '.join(BUILD)} {spec} --local <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", command], cwd=bench.folder, env=bench.env, timeout=900, check=False)
    assert done.returncode == 1, "the result was lost"
    assert bench.journal()[-1]["outcome"] == "succeeded", "every line of the journal is one of its own"
    assert bench.events()[-1]["event"] == "RunFinished"


def test_a_reader_who_has_stopped_reading_does_not_keep_a_cancelled_build_from_ending(bench: Bakery) -> None:
    before = bench.inventory()
    spec = bench.spec("stalled", "- shell: head -c 300000 /dev/zero | tr '\\0' a | fold -w 500; sleep 600")
    read, write = os.pipe()
    process = subprocess.Popen(
        [*BUILD, str(spec), "--local"], cwd=bench.folder, env=bench.env, stdout=write, stderr=write
    )
    os.close(write)
    until(lambda: _has_started(bench, "stalled", "step-1"), "the step runs")
    process.terminate()
    assert process.wait(timeout=900) == 130
    os.close(read)
    assert bench.inventory() == before


def test_a_report_that_cannot_be_written_after_the_build_is_an_error(bench: Bakery) -> None:
    junit = bench.folder / "report.xml"
    process = bench.start("build", str(bench.spec("unreported", "- shell: sleep 3")), "--local", "--junit", str(junit))
    until(lambda: _has_started(bench, "unreported", "step-1"), "the step runs")
    [begun] = ET.parse(junit).getroot().iter("error")
    assert "did not finish" in str(begun.get("message"))
    junit.unlink()
    junit.symlink_to("/dev/full")
    _, err = process.communicate(timeout=900)
    assert process.returncode == 1
    assert f"error: writing {junit}: No space left on device" in err
    assert bench.journal()[-1]["outcome"] == "succeeded"


def _has_started(bakery: Bakery, spec: str, stage: str) -> bool | None:
    """Return True if the newest run is of this spec and has begun this stage; None otherwise."""
    if not bakery.journal() or bakery.journal()[0]["specs"] != [spec]:
        return None
    return any(each["event"] == "StageStarted" and each["stage"] == stage for each in bakery.events()) or None
