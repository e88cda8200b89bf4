"""A dead run is resumed: its journal is compared with a cloud that may have lost some of its resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from imagepipe.capture.stop import TerminateInstance
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage
from imagepipe.engine.encoding import encode
from imagepipe.engine.fingerprint import fingerprints
from imagepipe.engine.graph import Graph
from imagepipe.engine.journal import Finished, JournalState
from imagepipe.engine.stage import After, Context, Ref, Stage
from imagepipe.errors import UsageError
from imagepipe.inputs.manifest import Input, InputManifest
from imagepipe.launch.access import Key
from imagepipe.launch.record_inputs import RecordInputs
from imagepipe.launch.source import CheckNames, NameImages
from imagepipe.resume import Recovered, recover
from imagepipe.values import Endpoint, Image, ImageText, Instance, Reachable, Sealed
from tests.account import Account
from tests.local.aws import harness


@dataclass(frozen=True)
class Find(Stage[Mapping[str, str]]):
    """The source."""

    word: str = "debian"

    def run(self, ctx: Context) -> Mapping[str, str]:
        return {}


@dataclass(frozen=True)
class Make(Stage[Key]):
    """A key."""

    def run(self, ctx: Context) -> Key:
        raise NotImplementedError


@dataclass(frozen=True)
class Start(Stage[Instance]):
    """An instance."""

    source: Ref[Mapping[str, str]]
    key: Ref[Key]

    def run(self, ctx: Context) -> Instance:
        raise NotImplementedError


@dataclass(frozen=True)
class Reach(Stage[Reachable]):
    """The same, reached."""

    instance: Ref[Instance]

    def run(self, ctx: Context) -> Reachable:
        raise NotImplementedError


@dataclass(frozen=True)
class Work(Stage[Sealed]):
    """A step that must not simply be run again."""

    machine: Ref[Reachable]

    def run(self, ctx: Context) -> Sealed:
        raise NotImplementedError


@dataclass(frozen=True)
class Take(Stage[Image]):
    """The image."""

    machine: Ref[Sealed]

    def run(self, ctx: Context) -> Image:
        raise NotImplementedError


@dataclass(frozen=True)
class Spread(Stage[Image]):
    """A copy."""

    image: Ref[Image]

    def run(self, ctx: Context) -> Image:
        raise NotImplementedError


@dataclass(frozen=True)
class Try(Stage[Reachable]):
    """A test."""

    machine: Ref[Reachable]
    follows: tuple[After, ...]
    repeatable: bool

    def run(self, ctx: Context) -> Reachable:
        raise NotImplementedError

    def is_repeatable(self) -> bool:
        return self.repeatable


@dataclass
class Dead:
    """A run of these stages that died, and what it had in an account."""

    account: Account
    graph: Graph = field(default_factory=Graph)
    outputs: dict[str, Any] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        ec2: Ec2 = self.account.ec2
        client = self.account.cloud.client()
        graph = self.graph
        source = graph.add("source", Find())
        key = graph.add("key", Make())
        launch = graph.add("launch", Start(source, key))
        reach = graph.add("connect", Reach(launch))
        work = graph.add("work", Work(reach))
        image = graph.add("capture", Take(work))
        graph.add("terminate", TerminateInstance(ec2, launch, image))
        graph.add("copy", Spread(image))
        self.instance = Instance(harness.running(client), "us-east-1", "t3.small", "/dev/xvda", None)
        self.key = self.account.folder / "id_ed25519"
        self.key.write_text("a key")
        self.image = harness.base_image(client)

    def came_to(self, *stages: str) -> None:
        """These are finished."""
        reachable = Reachable(self.instance, _endpoint(self.key))
        known = {
            "source": {},
            "key": Key("k", str(self.key)),
            "launch": self.instance,
            "connect": reachable,
            "work": Sealed(self.instance),
            "capture": Image(self.image, "us-east-1", "web", ()),
        }
        self.outputs = {name: known[name] for name in stages}

    def recover(self) -> Recovered:
        marks = fingerprints(self.graph)
        outputs = {name: Finished(marks[name], encode(value)) for name, value in self.outputs.items()}
        record = self.account.journal.run
        past = JournalState(record, (), None, is_alive=False, outputs=outputs, begun=frozenset(self.begun))
        return recover(self.graph, marks, past, self.account.regions)


def _endpoint(key: Path) -> Endpoint:
    return Endpoint("127.0.0.1", 22, "admin", None, str(key))


@pytest.fixture
def dead(account: Account) -> Dead:
    return Dead(account)


def test_what_is_done_and_still_there_is_not_done_again(dead: Dead) -> None:
    dead.came_to("source", "key", "launch", "connect")
    found = dead.recover()
    assert found.finished == dead.outputs
    assert found.dropped == {}
    assert found.describe(dead.graph) == ["4 of 8 stages are done", "continues with work"]


def test_a_machine_that_is_gone_is_launched_again_and_all_that_came_of_it(dead: Dead) -> None:
    dead.came_to("source", "key", "launch", "connect", "work")
    dead.account.ec2.instances.terminate(dead.instance.id)
    harness.until(lambda: harness.state(dead.account.cloud.client(), dead.instance.id) == "terminated")
    found = dead.recover()
    assert list(found.finished) == ["source", "key"]
    assert found.dropped["launch"] == f"{dead.instance.id} in us-east-1 is terminated"
    assert {"connect", "work", "capture", "terminate", "copy"} <= found.dropped.keys()
    assert "launch runs again, because" in "\n".join(found.describe(dead.graph))


def test_a_machine_on_which_a_step_was_cut_short_is_launched_again(dead: Dead) -> None:
    dead.came_to("source", "key", "launch", "connect")
    dead.begun = {"work"}
    found = dead.recover()
    assert list(found.finished) == ["source", "key"]
    assert found.dropped["launch"] == "work was interrupted, and cannot be repeated on the same machine"


def test_a_machine_that_nobody_needs_any_more_may_be_gone(dead: Dead) -> None:
    dead.came_to("source", "key", "launch", "connect", "work", "capture")
    dead.begun = {"work"}
    dead.account.ec2.instances.terminate(dead.instance.id)
    found = dead.recover()
    assert found.dropped == {}
    assert found.describe(dead.graph)[-1] == "continues with copy, terminate"


def test_an_image_that_is_gone_is_taken_again_of_the_machine_that_is_there(dead: Dead) -> None:
    dead.came_to("source", "key", "launch", "connect", "work", "capture")
    dead.image = "ami-00000000000000000"
    dead.came_to("source", "key", "launch", "connect", "work", "capture")
    found = dead.recover()
    assert found.dropped["capture"] == "ami-00000000000000000 in us-east-1 is gone"
    assert "work" in found.finished


def test_a_key_that_is_gone_opens_nothing(dead: Dead) -> None:
    dead.came_to("source", "key")
    dead.key.unlink()
    assert list(dead.recover().finished) == ["source"]


def test_a_machine_whose_key_is_on_another_computer_is_launched_again_with_a_new_key(dead: Dead) -> None:
    dead.came_to("source", "key", "launch", "connect")
    dead.key.unlink()
    found = dead.recover()
    assert list(found.finished) == ["source"]
    assert found.dropped["launch"] == f"the private key {dead.key} is not here"


def test_a_machine_whose_bastion_needs_a_key_of_another_computer_is_launched_again(dead: Dead) -> None:
    dead.came_to("source", "key", "launch", "connect")
    bastion = _endpoint(dead.account.folder / "of-another-home")
    dead.outputs["connect"] = Reachable(dead.instance, replace(_endpoint(dead.key), via=bastion))
    assert list(dead.recover().finished) == ["source", "key"]


def test_a_machine_that_nobody_logs_in_to_any_more_needs_no_key(dead: Dead) -> None:
    dead.came_to("source", "key", "launch", "connect", "work")
    dead.key.unlink()
    found = dead.recover()
    assert found.dropped == {}
    assert "work" in found.finished


def test_a_spec_that_has_changed_is_refused_and_the_stage_named_that_changed_first(dead: Dead) -> None:
    dead.came_to("source", "key", "launch")
    changed = Graph()
    source = changed.add("source", Find("ubuntu"))
    changed.add("launch", Start(source, changed.add("key", Make())))
    marks = fingerprints(dead.graph)
    outputs = {name: Finished(marks[name], encode(value)) for name, value in dead.outputs.items()}
    past = JournalState(dead.account.journal.run, (), None, is_alive=False, outputs=outputs)
    with pytest.raises(UsageError, match=r"has changed since: source$"):
        recover(changed, fingerprints(changed), past, dead.account.regions)


def _tested(dead: Dead, *, repeatable: bool) -> None:
    """Add two tests, of which the first failed and the second passed."""
    first = dead.graph.add("test-1", Try(Ref("connect"), (), repeatable))
    dead.graph.add("test-2", Try(Ref("connect"), (After(first.stage),), True))
    dead.came_to("source", "key", "launch", "connect")
    dead.outputs["test-2"] = Reachable(dead.instance, _endpoint(dead.key))


def test_a_failed_test_that_can_be_repeated_runs_again_on_the_same_machine(dead: Dead) -> None:
    _tested(dead, repeatable=True)
    found = dead.recover()
    assert found.dropped == {}
    assert "test-2" in found.finished
    assert "test-1" not in found.finished


def test_after_a_failed_test_that_cannot_be_repeated_all_tests_run_on_a_new_machine(dead: Dead) -> None:
    _tested(dead, repeatable=False)
    dead.begun = {"test-1"}
    found = dead.recover()
    assert {"launch", "connect", "test-2"} <= found.dropped.keys()


def test_an_output_that_another_version_wrote_is_refused_with_the_way_out(dead: Dead) -> None:
    dead.came_to("source", "key")
    dead.outputs["launch"] = {"id": "i-1"}
    with pytest.raises(UsageError, match="the output of launch was written by another version of imagepipe") as refused:
        dead.recover()
    assert "imagepipe clean r1" in (refused.value.hint or "")


@dataclass(frozen=True)
class Look(Stage[SourceImage]):
    """The source image."""

    def run(self, ctx: Context) -> SourceImage:
        raise NotImplementedError


def _listed(dead: Dead, *, step: str) -> None:
    """Add the list of inputs, and the texts of the image that have its fingerprint; both were made with one step."""
    made, now = (InputManifest.of([Input("step", "provision.0", digest)]) for digest in ("before", step))
    looked = dead.graph.add("look", Look())
    inputs = dead.graph.add("inputs", RecordInputs(looked, "web", now))
    texts = dead.graph.add("names", NameImages(("us-east-1",), looked, "web", "", {}, inputs))
    dead.graph.add("free", CheckNames({}, texts))
    dead.came_to("source", "key", "launch", "connect")
    source = SourceImage("ami-0", "debian-12", "1", "x86_64", "hvm", "/dev/xvda", "ebs", ())
    text = {"us-east-1": ImageText("web", "", {})}
    fingerprint = made.with_source("ami-0").fingerprint()
    dead.outputs |= {"look": source, "inputs": fingerprint, "names": text, "free": text}


def test_a_step_that_was_mended_gives_the_image_another_fingerprint_and_the_machine_goes_on(dead: Dead) -> None:
    _listed(dead, step="after")
    found = dead.recover()
    assert found.dropped == {"inputs": "the spec has changed", "names": "after inputs", "free": "after inputs"}
    assert {"look", "launch", "connect"} <= found.finished.keys()
    assert "inputs runs again, because the spec has changed" in found.describe(dead.graph)


def test_a_spec_that_has_not_changed_keeps_its_list_of_inputs(dead: Dead) -> None:
    _listed(dead, step="before")
    assert dead.recover().dropped == {}


def test_an_image_that_is_made_keeps_the_fingerprint_among_its_tags(dead: Dead) -> None:
    _listed(dead, step="after")
    dead.graph.add("made", Made(Ref("free")))
    dead.outputs["made"] = Image(dead.image, "us-east-1", "web", ())
    assert dead.recover().dropped == {}


@dataclass(frozen=True)
class Made(Stage[Image]):
    """An image that has the texts among its tags."""

    texts: Ref[Mapping[str, ImageText]]

    def run(self, ctx: Context) -> Image:
        raise NotImplementedError


def test_the_image_of_another_spec_keeps_no_list_of_inputs_that_has_changed(dead: Dead) -> None:
    _listed(dead, step="after")
    dead.graph.add("other", Finish())
    dead.outputs["other"] = Image(dead.image, "us-east-1", "other", ())
    assert set(dead.recover().dropped) == {"inputs", "names", "free"}


@dataclass(frozen=True)
class Finish(Stage[Image]):
    """The image of another spec."""

    def run(self, ctx: Context) -> Image:
        raise NotImplementedError
