from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from imagepipe.engine import events as ev
from imagepipe.engine import executor
from imagepipe.engine.groups import Groups, Limit
from imagepipe.engine.journal import Lifetime, State
from imagepipe.engine.stage import After, Context, Ref, Stage
from imagepipe.errors import Cancelled, CloudError, CommandFailed, StageError
from tests import run_folders
from tests.engine.rig import RUN, Do, Rig, failing, holding, meeting


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.journal.close()


def test_a_stage_gets_the_outputs_of_those_that_it_needs(rig: Rig) -> None:
    two = rig.add("two", lambda ctx: 2)
    three = rig.add("three", lambda ctx: 3)
    product = rig.add("product", lambda ctx: ctx[two] * ctx[three], two, three)
    outcome = rig.execute()
    assert outcome.ok
    assert outcome[product] == 6


def test_stages_that_do_not_need_one_another_run_at_the_same_time(rig: Rig) -> None:
    barrier = threading.Barrier(3)
    for name in ("a", "b", "c"):
        rig.add(name, meeting(barrier))
    assert rig.execute().ok


def test_a_stage_starts_the_moment_its_own_inputs_are_there_whatever_else_runs(rig: Rig) -> None:
    follower_ran = threading.Event()
    first = rig.add("first")
    rig.add("slow", lambda ctx: follower_ran.wait(60) or pytest.fail("the follower waited for the slow one"))
    rig.add("follower", lambda ctx: follower_ran.set(), first)
    assert rig.execute().ok


def test_after_the_first_failure_nothing_new_starts_and_waits_end(rig: Rig) -> None:
    started: list[str] = []

    def wait_long(ctx: Context) -> None:
        ctx.cancel.sleep(60)

    waiting = rig.add("waiting", wait_long)
    broken = rig.add("broken", failing)
    rig.add("after the wait", lambda ctx: started.append("after the wait"), waiting)
    rig.add("after the failure", lambda ctx: started.append("after the failure"), broken)
    began = time.monotonic()
    outcome = rig.execute()
    assert time.monotonic() - began < 50
    assert [failure.stage for failure in outcome.failures] == ["broken"]
    assert started == []
    assert not outcome.cancelled, "what merely obeyed is no cancelled run"


def test_a_failed_run_cleans_up_everything_newest_first(rig: Rig) -> None:
    key = rig.add("key", holding("key"))
    instance = rig.add("instance", holding("instance"), key)
    image = rig.add("image", holding("image", Lifetime.PRODUCT), instance)
    rig.add("broken", failing, image)
    outcome = rig.execute()
    assert rig.released == ["image", "instance", "key"]
    assert outcome.held == ()


def test_a_succeeded_run_cleans_up_what_is_temporary_and_nothing_else(rig: Rig) -> None:
    instance = rig.add("instance", holding("instance"))
    rig.add("image", holding("image", Lifetime.PRODUCT), instance)
    assert rig.execute().ok
    assert rig.released == ["instance"]


def test_undo_goes_on_past_what_cannot_be_cleaned_up_and_names_it(rig: Rig) -> None:
    rig.fails = {"instance"}
    key = rig.add("key", holding("key"))
    instance = rig.add("instance", holding("instance"), key)
    rig.add("broken", failing, instance)
    outcome = rig.execute()
    assert rig.released == ["key"]
    assert [str(held) for held in outcome.held] == ["instance instance-1 in us-east-1 (no way to delete a instance)"]
    assert [str(failure.error) for failure in outcome.failures] == ["as told"], "the cause is not hidden"


def test_a_claim_that_was_never_bound_is_cleaned_up_too(rig: Rig) -> None:
    def dies_in_between(ctx: Context) -> None:
        ctx.intend("instance", "us-east-1", lifetime=Lifetime.RUN)
        raise RuntimeError("the answer never came")

    rig.add("launch", dies_in_between)
    rig.execute()
    assert rig.released == ["instance"]


def test_a_cancel_ends_waits_undoes_and_is_no_failure(rig: Rig) -> None:
    instance = rig.add("instance", holding("instance"))

    def wait_long(ctx: Context) -> None:
        threading.Timer(0.1, lambda: rig.cancel.set("got SIGINT")).start()
        ctx.cancel.sleep(60)

    rig.add("waiting", wait_long, instance)
    outcome = rig.execute()
    assert outcome.cancelled
    assert outcome.failures == ()
    assert rig.released == ["instance"]
    assert run_folders.read(rig.folder / RUN.id).outcome == "cancelled"


def test_kept_on_failure_means_that_nothing_is_cleaned_up(rig: Rig) -> None:
    instance = rig.add("instance", holding("instance"))
    rig.add("broken", failing, instance)
    rig.execute(keep_on_failure=True)
    assert rig.released == []
    assert [claim.state for claim in rig.journal.claims()] == [State.BOUND]


def test_a_cancel_that_comes_while_the_last_stage_ends_is_too_late(rig: Rig) -> None:
    """Its images are kept by then: a run that ended as cancelled, with images left, would be neither."""

    def keep(ctx: Context) -> None:
        rig.cancel.set("got SIGTERM")
        for claim in ctx.journal.claims():
            ctx.journal.keep(claim)

    rig.add("keep", keep, rig.add("image", holding("image", Lifetime.PRODUCT)))
    outcome = rig.execute()
    assert (outcome.ok, outcome.cancelled, rig.released) == (True, False, [])


def test_a_cancelled_run_is_cleaned_up_even_if_failures_are_to_be_kept(rig: Rig) -> None:
    instance = rig.add("instance", holding("instance"))
    rig.add("cancel", lambda ctx: rig.cancel.set("got SIGTERM"), instance)
    rig.execute(keep_on_failure=True)
    assert rig.released == ["instance"]


def test_nothing_is_claimed_once_the_run_is_to_stop(rig: Rig) -> None:
    def late(ctx: Context) -> None:
        rig.cancel.set("got SIGINT")
        ctx.intend("instance", "us-east-1", lifetime=Lifetime.RUN)

    rig.add("late", late)
    outcome = rig.execute()
    assert outcome.cancelled
    assert rig.journal.claims() == ()


def test_the_events_tell_the_whole_story(rig: Rig) -> None:
    good = rig.add("good", lambda ctx: ctx.say("hello"))
    rig.add("bad", failing, good)
    rig.execute()
    kinds = {type(event) for event in rig.seen}
    assert {ev.StageStarted, ev.Line, ev.StageFinished, ev.StageFailed, ev.RunFinished} <= kinds
    finished = rig.seen[-1]
    assert isinstance(finished, ev.RunFinished)
    assert finished.outcome == "failed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CloudError("taken", code="InvalidAMIName.Duplicate"), "InvalidAMIName.Duplicate"),
        (CommandFailed("exit code 3", code=3), "3"),
        (CommandFailed("the connection broke", code=None), ""),
        (StageError("no"), ""),
    ],
)
def test_a_failure_has_the_code_of_the_cloud_or_of_the_command(rig: Rig, error: Exception, code: str) -> None:
    def work(ctx: Context) -> None:
        raise error

    rig.add("stage", work)
    rig.execute()
    assert [event.code for event in rig.seen if isinstance(event, ev.StageFailed)] == [code]


def test_two_hundred_stages_wait_side_by_side(rig: Rig) -> None:
    barrier = threading.Barrier(200)
    for number in range(200):
        rig.add(f"stage {number}", meeting(barrier))
    assert rig.execute().ok


def test_what_blocks_is_told_of_a_cancel(rig: Rig) -> None:
    closed = threading.Event()

    def blocks(ctx: Context) -> None:
        with ctx.cancel.calling(closed.set):
            threading.Timer(0.05, lambda: rig.cancel.set("got SIGINT")).start()
            assert closed.wait(60)
        ctx.cancel.check()

    rig.add("blocks", blocks)
    assert rig.execute().cancelled


def test_calling_raises_at_once_in_a_run_that_is_to_stop(rig: Rig) -> None:
    rig.cancel.set("got SIGINT")
    with pytest.raises(Cancelled), rig.cancel.calling(lambda: None):
        pytest.fail("must not get here")


def test_a_stage_that_does_not_end_keeps_a_cancelled_run_from_nothing(rig: Rig) -> None:
    ends = threading.Event()
    instance = rig.add("instance", holding("instance"))

    def ignores_the_cancel(ctx: Context) -> None:
        rig.cancel.set("got SIGINT")
        ends.wait(60)

    rig.add("deaf", ignores_the_cancel, instance)
    outcome = rig.execute(stop_seconds=0.2)
    ends.set()
    assert outcome.cancelled
    assert outcome.stuck == ("deaf",)
    assert rig.released == ["instance"]
    assert run_folders.read(rig.folder / RUN.id).outcome == "cancelled"


def test_what_a_stuck_stage_may_still_create_stays_claimed(rig: Rig) -> None:
    ends = threading.Event()

    def hangs_in_the_call(ctx: Context) -> None:
        ctx.intend("instance", "us-east-1", lifetime=Lifetime.RUN)
        rig.cancel.set("got SIGTERM")
        ends.wait(60)

    rig.add("launch", hangs_in_the_call)
    outcome = rig.execute(stop_seconds=0.2)
    ends.set()
    assert [str(held.error) for held in outcome.held] == ["its stage has not ended, so it may still be created"]
    assert [claim.state for claim in rig.journal.claims()] == [State.INTENDED], "clean looks for it later"


def test_a_failed_run_does_not_wait_for_ever_for_its_other_stages_either(rig: Rig) -> None:
    begun, ends = threading.Event(), threading.Event()

    def ignores_the_cancel(ctx: Context) -> None:
        begun.set()
        ends.wait(60)

    def fails(ctx: Context) -> None:
        begun.wait(60)
        raise RuntimeError("as told")

    rig.add("deaf", ignores_the_cancel)
    rig.add("broken", fails)
    outcome = rig.execute(stop_seconds=0.2)
    ends.set()
    assert [failure.stage for failure in outcome.failures] == ["broken"]
    assert outcome.stuck == ("deaf",)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_library_that_wants_to_end_the_process_fails_its_stage(rig: Rig, error: BaseException) -> None:
    def leaves(ctx: Context) -> None:
        raise error

    instance = rig.add("instance", holding("instance"))
    rig.add("leaves", leaves, instance)
    outcome = rig.execute()
    assert [failure.stage for failure in outcome.failures] == ["leaves"]
    assert rig.released == ["instance"]


def test_a_stage_whose_summary_fails_is_a_failed_stage(rig: Rig) -> None:
    @dataclass(frozen=True)
    class Unspeakable(Stage[int]):
        def run(self, ctx: Context) -> int:
            return 1

        def summary(self, output: int) -> str:
            raise RuntimeError("no words")

    rig.graph.add("unspeakable", Unspeakable())
    assert [str(failure.error) for failure in rig.execute().failures] == ["no words"]


def two_specs(rig: Rig) -> Groups:
    """Two groups of stages: `bad` fails once `good` has an image, and `good` goes on after that."""
    has_image, has_failed = threading.Event(), threading.Event()

    def image(ctx: Context) -> None:
        holding("image", Lifetime.PRODUCT)(ctx)
        has_image.set()
        while not ctx.cancel.is_set() and not has_failed.wait(0.01):
            pass
        ctx.cancel.check()

    def fails(ctx: Context) -> None:
        holding("snapshots", Lifetime.PRODUCT)(ctx)
        has_image.wait(60)
        has_failed.set()
        raise RuntimeError("as told")

    rig.add("good/last", lambda ctx: None, rig.add("good/image", image, rig.add("good/instance", holding("instance"))))
    rig.add("bad/last", lambda ctx: None, rig.add("bad/fails", fails))
    good, bad = frozenset({"good/instance", "good/image", "good/last"}), frozenset({"bad/fails", "bad/last"})
    return Groups({"good": good, "bad": bad})


def test_a_failed_group_stops_and_undoes_itself_alone(rig: Rig) -> None:
    outcome = rig.execute(groups=two_specs(rig))
    assert [failure.stage for failure in outcome.failures] == ["bad/fails"]
    assert "good/last" in outcome.outputs
    assert "bad/last" not in outcome.outputs
    assert sorted(rig.released) == ["instance", "snapshots"], "the image stays"
    assert not outcome.ok


def test_without_groups_the_first_failure_withdraws_everything(rig: Rig) -> None:
    two_specs(rig)
    outcome = rig.execute()
    assert "good/last" not in outcome.outputs
    assert sorted(rig.released) == ["image", "instance", "snapshots"]


def test_what_failed_groups_hold_can_be_kept_while_the_others_clean_up(rig: Rig) -> None:
    rig.execute(groups=two_specs(rig), keep_on_failure=True)
    assert rig.released == ["instance"]


def test_a_cancel_stops_all_groups_and_undoes_them(rig: Rig) -> None:
    rig.add("a/image", holding("image", Lifetime.PRODUCT))

    def cancels(ctx: Context) -> None:
        holding("instance")(ctx)
        rig.cancel.set("got SIGHUP")
        ctx.cancel.check()

    rig.add("b/stops", cancels)
    outcome = rig.execute(groups=Groups({"a": frozenset({"a/image"}), "b": frozenset({"b/stops"})}))
    assert outcome.cancelled
    assert sorted(rig.released) == ["image", "instance"]


def test_a_failed_group_stops_the_groups_that_depend_on_it_and_no_other(rig: Rig) -> None:
    rig.add("base/image", failing)
    rig.add("layer/key", holding("key"))
    rig.add("other/image", holding("image", Lifetime.PRODUCT))
    stages = {name: frozenset({stage}) for name, stage in (("base", "base/image"), ("layer", "layer/key"))}
    groups = Groups({**stages, "other": frozenset({"other/image"})}, after={"layer": frozenset({"base/image"})})
    outcome = rig.execute(groups=groups)
    assert outcome.outputs.keys() == {"other/image"}
    assert rig.released == [], "the layer began nothing, and the image of the other group stays"


def test_with_fail_fast_a_failed_group_stops_every_group_that_is_not_finished(rig: Rig) -> None:
    groups = replace(two_specs(rig), fail_fast=True)
    outcome = rig.execute(groups=groups)
    assert "good/last" not in outcome.outputs
    assert sorted(rig.released) == ["image", "instance", "snapshots"]


def _with_an_optional_group(rig: Rig) -> Groups:
    """A spec with an image and a copy; the copy fails, and its group is optional."""
    image = rig.add("image", holding("image", Lifetime.PRODUCT))

    def copy(ctx: Context) -> None:
        holding("snapshots", Lifetime.PRODUCT)(ctx)
        failing(ctx)

    bad = rig.add("copy", copy, image)
    rig.add("keep-copy", lambda ctx: None, bad)
    rig.add("key", holding("key"), image)
    stages = {"spec": frozenset({"image", "key"}), "region": frozenset({"copy", "keep-copy"})}
    return Groups(stages, after={"region": frozenset({"image"})}, optional=frozenset({"region"}))


@pytest.mark.parametrize("fail_fast", [False, True])
def test_an_optional_group_fails_and_is_undone_alone_and_the_run_succeeds(rig: Rig, fail_fast: bool) -> None:
    groups = replace(_with_an_optional_group(rig), fail_fast=fail_fast)
    outcome = rig.execute(groups=groups)
    assert outcome.ok
    assert [failure.stage for failure in outcome.tolerated] == ["copy"]
    assert sorted(rig.released) == ["key", "snapshots"], "the image stays"
    assert {"image", "key"} == outcome.outputs.keys()


def test_an_optional_group_that_fails_is_not_kept_for_a_look_as_the_run_did_not_fail(rig: Rig) -> None:
    rig.execute(groups=_with_an_optional_group(rig), keep_on_failure=True)
    assert sorted(rig.released) == ["key", "snapshots"]


def test_a_failure_of_the_spec_ends_its_optional_groups_too(rig: Rig) -> None:
    image = rig.add("image", holding("image", Lifetime.PRODUCT))
    rig.add("bad", failing, image)
    copy = rig.add("copy", holding("snapshots", Lifetime.PRODUCT), image)
    rig.add("late", lambda ctx: ctx.cancel.sleep(30), copy)
    stages = {"spec": frozenset({"image", "bad"}), "region": frozenset({"copy", "late"})}
    groups = Groups(stages, after={"region": frozenset({"image"})}, optional=frozenset({"region"}))
    outcome = rig.execute(groups=groups)
    assert not outcome.ok
    assert [failure.stage for failure in outcome.failures] == ["bad"]
    assert {"image"} <= set(rig.released) <= {"image", "snapshots"}


def test_a_cancel_while_only_an_optional_group_still_runs_is_a_cancel(rig: Rig) -> None:
    image = rig.add("image", lambda ctx: None)

    def stop(ctx: Context) -> None:
        rig.cancel.set("Ctrl-C")
        ctx.cancel.sleep(30)

    rig.add("copy", stop, image)
    stages = {"spec": frozenset({"image"}), "region": frozenset({"copy"})}
    assert rig.execute(groups=Groups(stages, optional=frozenset({"region"}))).cancelled


def test_no_more_groups_than_the_limit_run_at_once(rig: Rig) -> None:
    at_work: list[str] = []
    most: list[int] = []

    def work(name: str) -> Callable[[Context], None]:
        def run(ctx: Context) -> None:
            at_work.append(name)
            most.append(len(at_work))
            ctx.cancel.sleep(0.02)
            at_work.remove(name)

        return run

    names = [f"v{number}" for number in range(6)]
    for name in names:
        rig.add(f"{name}/last", work(name), rig.add(f"{name}/first", lambda ctx: None))
    groups = Groups(
        {name: frozenset({f"{name}/first", f"{name}/last"}) for name in names}, limits=(Limit(frozenset(names), 2),)
    )
    assert rig.execute(groups=groups).ok
    assert len(most) == 6
    assert max(most) <= 2


def test_a_failed_group_makes_room_for_the_next_one_of_its_limit(rig: Rig) -> None:
    rig.add("a/fails", failing)
    rig.add("b/image", lambda ctx: None)
    groups = Groups(
        {"a": frozenset({"a/fails"}), "b": frozenset({"b/image"})}, limits=(Limit(frozenset({"a", "b"}), 1),)
    )
    assert rig.execute(groups=groups).outputs.keys() == {"b/image"}


@dataclass(frozen=True)
class Independent(Stage[Any]):
    """A stage whose ordinary failures do not stop those that come after it."""

    what: Callable[[Context], Any]
    needs: tuple[Ref[Any], ...] = ()
    follows: tuple[After, ...] = ()

    def run(self, ctx: Context) -> Any:
        return self.what(ctx)

    def stops_others(self, error: Exception) -> bool:
        return not isinstance(error, RuntimeError)


def _tests(rig: Rig, *work: Callable[[Context], Any]) -> list[Ref[Any]]:
    """Add stages test-1, test-2, … in this order, and a gate that takes all their outputs."""
    refs: list[Ref[Any]] = []
    for number, what in enumerate(work, start=1):
        follows = tuple(After(ref.stage) for ref in refs[-1:])
        refs.append(rig.graph.add(f"test-{number}", Independent(what, (), follows)))
    rig.add("gate", lambda ctx: rig.released.append("the gate ran"), *refs)
    return refs


def test_stages_after_one_that_failed_alone_still_run_in_order_and_the_run_fails(rig: Rig) -> None:
    ran: list[int] = []
    _tests(rig, lambda ctx: ran.append(1), failing, lambda ctx: ran.append(3), failing, lambda ctx: ran.append(5))
    outcome = rig.execute()
    assert ran == [1, 3, 5]
    assert [failure.stage for failure in outcome.failures] == ["test-2", "test-4"]
    assert not outcome.ok
    assert rig.released == [], "the gate takes the outputs of failed stages, so it must not run"
    failed = [event.stage for event in rig.seen if isinstance(event, ev.StageFailed)]
    assert failed == ["test-2", "test-4"]


def test_other_work_stops_as_soon_as_the_gate_can_no_longer_open_and_not_before(rig: Rig) -> None:
    was_free = threading.Event()

    def last_test(ctx: Context) -> None:
        if not ctx.cancel.is_set():
            was_free.set()

    def long_copy(ctx: Context) -> None:
        ctx.cancel.sleep(60)

    rig.add("copy of another spec", long_copy)
    _tests(rig, failing, last_test)
    began = time.monotonic()
    outcome = rig.execute()
    assert was_free.is_set()
    assert time.monotonic() - began < 50
    assert outcome.interrupted == ("copy of another spec",)


def test_a_failure_that_stops_others_also_stops_the_stages_that_only_follow(rig: Rig) -> None:
    def breaks(ctx: Context) -> None:
        raise ValueError("the machine is gone")

    ran: list[int] = []
    _tests(rig, failing, breaks, lambda ctx: ran.append(3))
    outcome = rig.execute()
    assert ran == []
    assert [failure.stage for failure in outcome.failures] == ["test-1", "test-2"]


def test_a_failed_test_stops_only_its_own_group(rig: Rig) -> None:
    refs = _tests(rig, failing, lambda ctx: None)
    other = rig.add("other", lambda ctx: ctx.cancel.sleep(0.3))
    last = rig.add("last of the other", lambda ctx: "done", other)
    own, others = frozenset({*(ref.stage for ref in refs), "gate"}), frozenset({"other", "last of the other"})
    outcome = rig.execute(groups=Groups({"own": own, "others": others}))
    assert outcome.outputs[last.stage] == "done"
    assert [failure.stage for failure in outcome.failures] == ["test-1"]


def test_an_order_alone_is_an_edge_but_not_an_input(rig: Rig) -> None:
    first = rig.add("first")
    rig.graph.add("second", Independent(lambda ctx: None, follows=(After(first.stage),)))
    assert rig.graph.before("second") == {"first"}
    assert rig.graph.inputs("second") == frozenset()
    with pytest.raises(ValueError, match="'elsewhere', which is not in the graph"):
        rig.graph.add("third", Independent(lambda ctx: None, follows=(After("elsewhere"),)))


def test_a_thread_runs_one_stage_after_another(rig: Rig) -> None:
    threads: set[int] = set()
    before: Ref[None] | None = None
    for place in range(50):
        inputs = () if before is None else (before,)
        before = rig.add(f"stage {place}", lambda ctx: threads.add(threading.get_ident()), *inputs)
    assert rig.execute().ok
    assert len(threads) == 1


def test_no_thread_of_a_finished_run_is_left(rig: Rig) -> None:
    ours: list[threading.Thread] = []
    for place in range(20):
        rig.add(f"stage {place}", lambda ctx: ours.append(threading.current_thread()))
    assert rig.execute().ok
    for thread in ours:
        thread.join(60)
        assert not thread.is_alive()


def test_a_stuck_stage_that_ends_later_starts_no_other(rig: Rig) -> None:
    ends = threading.Event()
    ours: list[threading.Thread] = []

    def ignores_the_cancel(ctx: Context) -> None:
        ours.append(threading.current_thread())
        rig.cancel.set("got SIGINT")
        ends.wait(60)

    deaf = rig.add("deaf", ignores_the_cancel)
    rig.add("after", lambda ctx: ours.append(threading.current_thread()), deaf)
    outcome = rig.execute(stop_seconds=0.2)
    ends.set()
    ours[0].join(60)
    assert not ours[0].is_alive()
    assert len(ours) == 1
    assert outcome.outputs == {}


def test_an_error_of_the_executor_itself_ends_the_run(rig: Rig) -> None:
    class Broken(Do):
        def stops_others(self, error: Exception) -> bool:
            raise RuntimeError("a fault of ours")

    def fails(ctx: Context) -> None:
        raise StageError("as told")

    rig.graph.add("stage", Broken(fails))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        rig.execute()


def test_a_run_that_could_not_start_a_thread_starts_nothing_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    ran: list[str] = []

    class SecondFails(threading.Thread):
        started = 0

        def start(self) -> None:
            SecondFails.started += 1
            if SecondFails.started == 2:
                raise RuntimeError("can't start new thread")
            super().start()

    def waits(ctx: Context) -> None:
        ran.append(ctx.stage)
        ended.wait(60)

    monkeypatch.setattr(executor, "Thread", SecondFails)
    for name in ("one", "other"):
        rig.add(f"after {name}", lambda ctx: ran.append(ctx.stage), rig.add(name, waits))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        rig.execute()
    ended.set()
    for thread in threading.enumerate():
        if isinstance(thread, SecondFails):
            thread.join(60)
    assert len(ran) == 1
