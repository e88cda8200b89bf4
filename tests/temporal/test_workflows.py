"""Builds on a real Temporal server: layers, failures, limits, cancels, and workers that die."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from imagepipe.errors import CloudError, UsageError
from imagepipe.temporal import client, connection
from imagepipe.temporal.connection import Server as Address
from imagepipe.temporal.connection import connect
from imagepipe.temporal.messages import LONGEST_TEXT, Limit
from imagepipe.temporal.worker import WorkerOptions, run_worker
from tests.temporal.conftest import Yard, request
from tests.temporal.server import free_port

pytestmark = pytest.mark.server


def _states(end: client.End) -> dict[str, str]:
    return {each.spec: each.state for each in end.result.progress}


def test_a_layer_is_baked_after_its_base_and_gets_its_images(yard: Yard) -> None:
    yard.worker()
    end = yard.build("layers", request("base", "middle<base", "leaf<middle", "alone"))
    assert _states(end) == dict.fromkeys(("base", "middle", "leaf", "alone"), "baked")
    begun = {note.spec: note for note in yard.diary("begin")}
    ended = {note.spec: note for note in yard.diary("end")}
    assert ended["base"].time < begun["middle"].time
    assert begun["middle"].bases == {"base": {"us-east-1": "ami-base"}}
    assert begun["leaf"].bases == {"middle": {"us-east-1": "ami-middle"}, "base": {"us-east-1": "ami-base"}}
    images = [image["image_id"] for each in end.result.baked for image in each.images]
    assert sorted(images) == ["ami-alone", "ami-base", "ami-leaf", "ami-middle"], "not the images of other specs"
    assert "base: baked: ami-base in us-east-1" in yard.lines


def test_a_failed_base_leaves_out_its_layers_and_nothing_else(yard: Yard) -> None:
    yard.worker()
    end = yard.build("failed", request("fails-base", "middle<fails-base", "leaf<middle", "alone"))
    wanted = {"fails-base": "failed", "middle": "left out", "leaf": "left out", "alone": "baked"}
    assert _states(end) == wanted
    failed, _, leaf, _ = end.result.progress
    assert failed.text == "error: step 1: exit 1\n  hint: read the log"
    assert leaf.failed_base == "fails-base"
    assert [each.spec for each in end.result.baked] == ["alone"]
    assert [note.spec for note in yard.diary("begin")].count("fails-base") == 1, "an error of a spec is not tried again"
    assert [note.spec for note in yard.diary("clean")] == ["fails-base"]


def test_the_first_failure_stops_a_build_that_fails_fast(yard: Yard) -> None:
    yard.worker()
    end = yard.build("fast", request("slow", "fails-beside-slow", fail_fast=True))
    assert _states(end) == {"slow": "cancelled", "fails-beside-slow": "failed"}
    assert [note.spec for note in yard.diary("interrupted")] == ["slow"]


def test_a_clean_up_goes_on_when_the_build_is_cancelled_meanwhile_and_is_tried_again(yard: Yard) -> None:
    yard.worker()

    async def cancelled() -> client.End:
        building = asyncio.create_task(yard.building("unclean", request("fails-slow-clean", "slow")))
        await asyncio.to_thread(yard.until, lambda: len(yard.diary("clean")) == 2)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.to_thread(yard.until, lambda: yard.diary("interrupted"))
        await asyncio.sleep(3)  # a clean-up that the cancel reaches would end
        yard.go()
        return await building

    end = asyncio.run(cancelled())
    assert end.is_cancelled
    assert _states(end) == {"fails-slow-clean": "failed", "slow": "cancelled"}
    assert "fails-slow-clean" in [note.spec for note in yard.diary("cleaned")]


def test_a_run_that_cannot_be_cleaned_up_is_named_beside_the_error(yard: Yard) -> None:
    yard.worker(clean_attempts=2)
    end = yard.build("held", request("unclean"))
    [progress] = end.result.progress
    assert progress.text == "error: step 1: exit 1\n  hint: read the log\nnot cleaned up: error: vol-1 is in use"
    assert len(yard.diary("clean")) == 2


def test_an_error_of_any_length_travels_shortened(yard: Yard) -> None:
    yard.worker()
    [progress] = yard.build("long", request("fails-long")).result.progress
    assert progress.text == f"error: {'x' * (LONGEST_TEXT - 7)} …"


def test_images_are_kept_when_something_else_is_still_held(yard: Yard) -> None:
    yard.worker()
    end = yard.build("holds", request("holds", "layer<holds"))
    assert _states(end) == {"holds": "baked", "layer": "baked"}
    assert [note.spec for note in yard.diary("cleaned")] == ["holds"]
    assert [each.held for each in end.result.baked] == ["", ""], "cleaned up since"


def test_a_clean_up_and_bakes_do_not_wait_for_one_another(yard: Yard) -> None:
    yard.worker(bakes=1)

    async def both() -> tuple[client.End, client.End]:
        failing = asyncio.create_task(yard.building("busy-1", request("fails-slow-clean")))
        await asyncio.to_thread(yard.until, lambda: len(yard.diary("clean")) == 2)
        slow = asyncio.create_task(yard.building("busy-2", request("slow")))
        await asyncio.to_thread(yard.until, lambda: "slow" in [note.spec for note in yard.diary("begin")])
        yard.go()
        return await failing, await slow

    assert [_states(end) for end in asyncio.run(both())] == [{"fails-slow-clean": "failed"}, {"slow": "baked"}]


def test_a_worker_lets_go_of_a_bake_that_cleans_up_after_a_cancel(yard: Yard) -> None:
    first = yard.worker(grace=600)

    async def stopped() -> client.End:
        building = asyncio.create_task(yard.building("stuck", request("slow-stuck")))
        await asyncio.to_thread(yard.until, lambda: yard.diary("begin"))
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.to_thread(yard.until, lambda: yard.diary("interrupted"))
        first.terminate()
        await asyncio.to_thread(yard.until, lambda: "1 running" in yard.log(0))
        first.terminate()
        await asyncio.to_thread(yard.until, lambda: first.poll() is not None)
        yard.worker()
        return await building

    assert asyncio.run(stopped()).is_cancelled
    assert [note.spec for note in yard.diary("cleaned")] == ["slow-stuck"]


def test_variants_of_a_matrix_wait_for_room(yard: Yard) -> None:
    yard.worker()
    names = [f"variant-{number}" for number in range(4)]
    yard.build("limit", request(*names, limits=[Limit(names, 1)]))
    order = [note.what for note in yard.diary()]
    assert order == ["begin", "end"] * 4


def test_a_bake_whose_process_died_goes_on_as_the_same_run(yard: Yard) -> None:
    yard.worker()
    end = yard.build("dies", request("dies", "held"))
    assert _states(end) == {"dies": "baked", "held": "baked"}
    begun = [note for note in yard.diary("begin") if note.spec == "dies"]
    assert len({note.pid for note in begun}) == 2
    assert {note.run for note in begun} == {"00000000"}


def test_ctrl_c_cancels_the_build_and_every_bake_cleans_up_within_ten_seconds(yard: Yard) -> None:
    yard.worker()

    async def interrupted() -> tuple[client.End, float]:
        building = asyncio.create_task(yard.building("cancelled", request("slow", "layer<slow")))
        await asyncio.to_thread(yard.until, lambda: yard.diary("begin"))
        began = asyncio.get_running_loop().time()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.to_thread(yard.until, lambda: yard.diary("interrupted"))
        told = asyncio.get_running_loop().time() - began
        return await building, told

    end, seconds = asyncio.run(interrupted())
    assert end.is_cancelled
    assert seconds < 10, "the clean-up of a bake begins in this time"
    assert _states(end) == {"slow": "cancelled", "layer": "cancelled"}
    assert [note.spec for note in yard.diary("clean")] == ["slow"]


def test_a_build_of_one_spec_is_cancelled_and_has_not_failed(yard: Yard) -> None:
    yard.worker()

    async def interrupted() -> client.End:
        building = asyncio.create_task(yard.building("one", request("slow")))
        await asyncio.to_thread(yard.until, lambda: yard.diary("begin"))
        os.kill(os.getpid(), signal.SIGINT)
        return await building

    assert asyncio.run(interrupted()).is_cancelled


def test_a_build_that_is_terminated_cancels_its_bakes(yard: Yard) -> None:
    yard.worker()

    async def terminated() -> client.End:
        building = asyncio.create_task(yard.building("terminated", request("slow")))
        await asyncio.to_thread(yard.until, lambda: yard.diary("begin"))
        own = await connect(Address.at(yard.temporal.address), {})
        await own.get_workflow_handle(f"{client.PREFIX}terminated").terminate()
        return await building

    with pytest.raises(UsageError, match="ended in Temporal") as refused:
        asyncio.run(terminated())
    assert "--workflow-id imagepipe-terminated" in str(refused.value.hint)
    yard.until(lambda: yard.diary("cleaned"))
    assert [note.spec for note in yard.diary("interrupted")] == ["slow"]


def test_another_worker_goes_on_when_one_is_killed_and_its_bakes_end_with_it(yard: Yard) -> None:
    first = yard.worker()

    async def moved() -> client.End:
        building = asyncio.create_task(yard.building("moved", request("slow")))
        await asyncio.to_thread(yard.until, lambda: yard.diary("begin"))
        [begun] = yard.diary("begin")
        first.kill()
        first.wait()
        await asyncio.to_thread(yard.until, lambda: not _lives(begun.pid))
        yard.worker()
        await asyncio.to_thread(yard.until, lambda: len(yard.diary("begin")) == 2)
        yard.go()
        return await building

    assert _states(asyncio.run(moved())) == {"slow": "baked"}
    one, other = yard.diary("begin")
    assert (one.run, one.spec) == (other.run, other.spec)
    assert [note.pid for note in yard.diary("end")] == [other.pid]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("grace", "signals"), [(0.5, 1), (600, 2)], ids=["after the grace time", "at a second signal"])
def test_a_worker_that_is_told_to_stop_lets_go_of_its_bakes(yard: Yard, grace: float, signals: int) -> None:
    first = yard.worker(grace=grace)

    async def moved() -> client.End:
        building = asyncio.create_task(yard.building(f"stopped-{signals}", request("slow")))
        await asyncio.to_thread(yard.until, lambda: yard.diary("begin"))
        first.terminate()
        await asyncio.to_thread(yard.until, lambda: "stopping: no more bakes; 1 running" in yard.log(0))
        if signals > 1:
            first.terminate()
        await asyncio.to_thread(yard.until, lambda: first.poll() is not None)
        yard.worker()
        await asyncio.to_thread(yard.until, lambda: len(yard.diary("begin")) == 2)
        yard.go()
        return await building

    assert _states(asyncio.run(moved())) == {"slow": "baked"}
    assert first.returncode == 0
    assert "letting go of 1 bake; other workers resume them" in yard.log(0)
    assert "Traceback" not in yard.log(0)


def test_a_build_outlives_its_client_and_its_server(yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    yard.worker()

    async def left() -> None:
        building = asyncio.create_task(yard.building("left", request("slow", "layer<slow")))
        await asyncio.to_thread(yard.until, lambda: yard.diary("begin"))
        building.cancel()

    asyncio.run(left())

    async def again() -> client.End:
        building = asyncio.create_task(yard.building("left", request("another")))
        await asyncio.to_thread(yard.until, lambda: "slow: baking (run 00000000)" in yard.lines)
        yard.temporal.kill()
        await asyncio.sleep(1)
        yard.temporal.start()
        yard.go()
        return await building

    yard.lines.clear()
    end = asyncio.run(again())
    assert _states(end) == {"slow": "baked", "layer": "baked"}, "the build that exists, and no other one"
    assert "build left exists already: following it" in yard.lines
    assert capfd.readouterr() == ("", ""), "the library prints nothing into our output"


def test_a_server_that_restarts_interrupts_no_bake(yard: Yard) -> None:
    yard.worker()

    async def restarted() -> client.End:
        building = asyncio.create_task(yard.building("restarted", request("slow")))
        await asyncio.to_thread(yard.until, lambda: yard.diary("begin"))
        yard.temporal.kill()
        await asyncio.sleep(9)
        yard.temporal.start()
        await asyncio.sleep(10)  # the server would give the bake to another worker now
        yard.go()
        return await building

    assert _states(asyncio.run(restarted())) == {"slow": "baked"}
    assert [note.what for note in yard.diary()] == ["begin", "end"]


def test_a_cancel_that_waits_for_a_worker_says_so(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "QUIET", 1.0)
    wanted = request("alone")
    wanted.jobs[0] = replace(wanted.jobs[0], queue="nobody")

    async def left() -> client.End:
        building = asyncio.create_task(yard.building("unserved", wanted))
        await asyncio.to_thread(yard.until, lambda: any("no worker takes" in line for line in yard.lines))
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.to_thread(yard.until, lambda: any("so the cancel waits for one" in line for line in yard.lines))
        os.kill(os.getpid(), signal.SIGINT)
        return await building

    end = asyncio.run(left())
    assert end.is_detached
    assert end.is_cancelled


def test_a_build_that_ended_is_told_again(yard: Yard) -> None:
    yard.worker()
    first = yard.build("again", request("base"))
    assert yard.build("again", request("another")) == first
    assert [note.spec for note in yard.diary("begin")] == ["base"]


def test_health_and_metrics_answer(yard: Yard) -> None:
    health, metrics = free_port(), free_port()
    yard.worker(health=health, metrics=metrics)
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=60) as answer:
        idle = answer.read().decode()
    assert re.search(r"^imagepipe_bakes_running\b.* 0$", idle, re.MULTILINE), "a number that is missing raises alarms"
    assert re.search(r'^imagepipe_bakes_ended_total\{.*outcome="failed".* 0$', idle, re.MULTILINE)
    yard.build("metrics", request("base"))
    with urllib.request.urlopen(f"http://127.0.0.1:{health}/healthz", timeout=60) as answer:
        told = json.load(answer)
    assert (answer.status, told["status"], told["queue"], told["bakes"]) == (200, "ok", "imagepipe", 0)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{health}/other", timeout=60)
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    assert 'imagepipe_bakes_ended_total{outcome="baked"' in text
    assert "imagepipe_bake_seconds_count" in text


def test_a_server_that_is_not_there_is_named(yard: Yard) -> None:
    address = f"127.0.0.1:{free_port()}"

    async def build() -> client.End:
        return await client.build(Address.at(address), {}, "x", lambda: request("a"), {"a": "imagepipe"}, print)

    with pytest.raises(CloudError, match=f"connecting to the Temporal server {address}") as refused:
        asyncio.run(build())
    assert str(refused.value).endswith(": Connection refused")
    assert "start-dev" in str(refused.value.hint)


def test_a_server_that_says_nothing_is_named_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address.at(f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(CloudError, match="no answer within 1 s"):
            asyncio.run(connect(address, {}))


def test_a_queue_without_workers_is_named_once(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "QUIET", 1.0)
    yard.worker()
    wanted = request("here", "there")
    wanted.jobs[1] = replace(wanted.jobs[1], queue="account-b")

    def named() -> list[str]:
        return [line for line in yard.lines if "no worker takes bakes from queue 'account-b'" in line]

    async def joined() -> client.End:
        building = asyncio.create_task(yard.building("lonely", wanted))
        await asyncio.to_thread(yard.until, named)
        await asyncio.sleep(3)
        await asyncio.to_thread(yard.worker, queue="account-b")
        return await building

    assert _states(asyncio.run(joined())) == {"here": "baked", "there": "baked"}
    assert len(named()) == 1


def test_a_client_that_is_interrupted_while_the_build_starts_cancels_it(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.worker()
    start = Client.start_workflow

    async def interrupted(*args: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        return await start(*args, **named)

    monkeypatch.setattr(Client, "start_workflow", interrupted)
    assert yard.build("early", request("slow")).is_cancelled


def test_a_server_that_goes_away_at_the_end_of_a_build_is_asked_again(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.worker()
    result, asked = WorkflowHandle.result, []

    async def away_once(handle: WorkflowHandle[Any, Any], **named: Any) -> Any:
        asked.append(handle)
        if len(asked) == 1:
            raise RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b"")
        return await result(handle, **named)

    monkeypatch.setattr(WorkflowHandle, "result", away_once)
    assert _states(yard.build("away", request("base"))) == {"base": "baked"}
    assert "the server answers again" in yard.lines


def test_a_worker_in_a_namespace_that_is_not_there_says_so(yard: Yard) -> None:
    options = WorkerOptions(
        Address.at(yard.temporal.address, "nowhere"), "imagepipe", 1, None, timedelta(0), None, None
    )
    with pytest.raises(CloudError, match="Namespace nowhere") as refused:
        asyncio.run(run_worker(options, ["false"], {}, print))
    assert "check that the namespace exists" in str(refused.value.hint)
