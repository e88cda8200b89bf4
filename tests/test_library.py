"""imagepipe as a library: its public names, specs, plans, and builds whose machines do not boot."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

import imagepipe
from imagepipe import (
    BuildError,
    BuildResult,
    BuiltImage,
    Cloud,
    CloudError,
    Event,
    Events,
    Failure,
    ImagepipeError,
    Plan,
    PlannedAction,
    PlannedSpec,
    Problem,
    SpecError,
    Specs,
    UsageError,
    build,
    load_specs,
    plan,
)
from imagepipe.engine.events import KINDS
from tests.account import Account
from tests.local.aws import harness
from tests.local.aws.harness import KEY_ID, SECRET
from tests.published import kept_image

ROOT = Path(__file__).resolve().parents[1]
SPEC = """\
imagepipe: 1
name: web
variables: {greeting: {default: hello}, token: {sensitive: true, default: s3cr3t-canary}, port: {default: 80}}
source: {ami: {name: "debian-12-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}}
provision: [{shell: "echo {{ var.greeting }} {{ var.port }}", env: {TOKEN: "{{ var.token }}"}}]
output: {name: "web-{{ build.id }}"}
publish: {regions: [us-west-2]}
"""
A_LIST: Any = ["a"]
LOADED = """\
import sys
import imagepipe
assert "build" in dir(imagepipe)
print(sorted(name for name in sys.modules if name.startswith("imagepipe.")))
imagepipe.SpecError
print(sorted(name for name in sys.modules if name.startswith("imagepipe.")))
imagepipe.load_specs
print(sorted({"boto3", "botocore", "paramiko", "cryptography", "rich", "networkx"} & sys.modules.keys()))
"""


@pytest.fixture(autouse=True)
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec, and the surroundings of a program."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "web.yaml"
    file.write_text(SPEC)
    return file


def _at(account: Account) -> Cloud:
    return Cloud(endpoint_url=account.cloud.endpoint)


def _left(account: Account) -> list[object]:
    """Return everything that a build leaves in the account."""
    ec2 = account.cloud.client()
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    return [
        *(each for each in instances if each["State"]["Name"] != "terminated"),
        *ec2.describe_key_pairs()["KeyPairs"],
        *(each for each in ec2.describe_security_groups()["SecurityGroups"] if each["GroupName"] != "default"),
        *ec2.describe_images(Owners=["self"])["Images"],
    ]


def test_the_public_names_and_their_parameters_are_these() -> None:
    assert imagepipe.__all__ == [
        *("BuildError", "BuildResult", "BuiltImage", "Cloud", "CloudError", "Event", "Events", "Failure"),
        *("ImagepipeError", "LocalCloudError", "Machine", "Plan", "PlannedAction", "PlannedSpec", "Problem"),
        *("SpecError", "Specs", "StepKind", "StepKindError", "UsageError", "__version__", "build", "load_specs"),
        "plan",
    ]
    parameters = {each.__name__: list(inspect.signature(each).parameters) for each in (load_specs, plan, build)}
    assert parameters == {
        "load_specs": ["paths", "variables", "only", "with_dependents", "force"],
        "plan": ["specs", "cloud", "state"],
        "build": ["specs", "cloud", "state", "on_event", "timeout", "keep_on_failure", "fail_fast"],
    }
    for name in imagepipe.__all__:
        assert getattr(imagepipe, name) is not None
    with pytest.raises(AttributeError, match="module 'imagepipe' has no attribute 'bake'"):
        imagepipe.bake  # type: ignore[attr-defined]  # noqa: B018


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "library.md").read_text(encoding="utf-8")
    assert [name for name in imagepipe.__all__ if f"`{name}" not in text] == []


def test_every_event_and_field_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "library.md").read_text(encoding="utf-8")
    rows: dict[str, str] = dict(re.findall(r"^\| `Events\.(\w+)` \| (.*) \|$", text, re.MULTILINE))
    assert rows.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        own = [each.name for each in fields(kind) if each.name not in ("time", "run")]
        assert [each for each in own if f"`{each}`" not in rows[name]] == []
    for value in (Specs, Cloud, Plan, PlannedSpec, PlannedAction, BuildResult, BuiltImage, Failure, Problem):
        public = [each.name for each in fields(value) if not each.name.startswith("_")]
        undocumented = {"excerpt", "length"}  # for the text of a problem
        assert [each for each in public if f"`{each}`" not in text and each not in undocumented] == [], value


def test_the_events_are_all_those_of_a_run() -> None:
    assert {name: kind for name, kind in vars(Events).items() if isinstance(kind, type)} == KINDS
    assert set(get_args(Event)) == set(KINDS.values())


def test_the_package_loads_only_what_is_used() -> None:
    code = [sys.executable, "-c", LOADED]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines() == ["[]", "['imagepipe.dataclass', 'imagepipe.errors']", "[]"]


def test_specs_name_themselves_and_their_files(web: Path, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(SPEC.replace("name: web", "name: more").replace("web-", "more-"))
    specs = load_specs(web, "more")
    assert specs.names == ("web", "more")
    assert [file.resolve() for file in specs.files] == [web, tmp_path / "more.yaml"]
    assert load_specs(tmp_path, only="web").names == load_specs(tmp_path, only=["web"]).names == ("web",)


def test_every_problem_of_all_specs_is_in_one_error(web: Path, tmp_path: Path) -> None:
    web.write_text(SPEC.replace("launch:", "lunch:").replace("output: {name", "output: {nme"))
    (tmp_path / "more.yaml").write_text("imagepipe: 2\n")
    with pytest.raises(SpecError) as caught:
        load_specs(web, tmp_path / "more.yaml")
    assert {Path(problem.file).name for problem in caught.value.problems} == {"web.yaml", "more.yaml"}
    assert len(caught.value.problems) > 3


def test_a_warning_is_a_value_and_is_not_printed(web: Path, capfd: pytest.CaptureFixture[str]) -> None:
    web.write_text(SPEC.replace("variables: {", "variables: {spare: {default: 1}, "))
    [warning] = load_specs(web).warnings
    assert warning.message == "variable 'spare' is never used"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_specs(), "no path was given to load_specs"),
        (lambda: load_specs("web.yaml", variables={"greting": "a"}), "'greting'; did you mean 'greeting'?"),
        (lambda: load_specs("web.yaml", variables={"greeting": A_LIST}), "variable 'greeting': a value is a string"),
        (lambda: load_specs("web.yaml", only="wbe"), "wbe: no spec has this name"),
        (
            lambda: plan(load_specs("web.yaml"), cloud=Cloud(local=True, profile="mine")),
            "local=True cannot be combined",
        ),
        (lambda: build(load_specs("web.yaml"), cloud=Cloud(role="admin")), "admin: not a role's ARN"),
        (lambda: build(load_specs("web.yaml"), cloud=Cloud(region="us-esat-1")), "us-esat-1"),
    ],
    ids=["no path", "unknown variable", "a list", "unknown spec", "two clouds", "role", "region"],
)
def test_bad_input_raises_a_usage_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
    assert isinstance(caught.value, ImagepipeError)


def test_a_value_of_a_variable_has_the_type_of_its_default(web: Path) -> None:
    load_specs(web, variables={"greeting": 3.5, "port": 8080, "token": "other"})
    with pytest.raises(SpecError, match="does not have the type of the default"):
        load_specs(web, variables={"port": True})
    web.write_text(SPEC.replace("greeting: {default: hello}", "greeting: {allowed: [hello, hi]}"))
    with pytest.raises(SpecError, match="'bye' is not allowed"):
        load_specs(web, variables={"greeting": "bye"})


def test_a_cloud_that_does_not_answer_is_a_cloud_error(web: Path) -> None:
    with pytest.raises(CloudError, match="Could not connect"):
        plan(load_specs(web), cloud=Cloud(endpoint_url="http://127.0.0.1:9"))
    for call in (plan, build):
        with pytest.raises(CloudError, match="missing"):
            call(load_specs(web), cloud=Cloud(profile="missing"))


def test_a_plan_has_every_action_and_changes_nothing(account: Account, web: Path) -> None:
    specs = load_specs(web)
    planned = plan(specs, cloud=_at(account))
    [spec] = planned.specs
    assert (spec.spec, spec.action, spec.reason, dict(spec.images)) == ("web", "bake", "it was not baked yet", {})
    assert spec.source_image is not None
    assert planned.changes
    assert planned.seconds is None
    assert "copy the image to us-west-2" in [str(action) for action in planned.actions]
    assert "launch an instance (t3.small) in us-east-1 (temporary)" in [str(action) for action in planned.actions]
    assert json.loads(json.dumps(planned.to_json()))["decisions"][0]["spec"] == "web"
    assert "canary" not in repr(planned) + json.dumps(planned.to_json()) + repr(specs)
    assert plan(specs, cloud=_at(account)).actions == planned.actions, "specs can be used again"
    calls = account.cloud.admin("GET", "calls")
    assert all(name.partition(":")[2].startswith(("Describe", "Get")) for name in calls), calls


def test_a_build_returns_the_images_that_exist_and_the_copies_that_it_makes(account: Account, web: Path) -> None:
    web.write_text(SPEC + "reuse: unchanged\n")
    specs = load_specs(web)
    mark = plan(specs, cloud=_at(account)).to_json()["decisions"][0]["fingerprint"]
    old = kept_image(account, **{"imagepipe:fingerprint": mark})
    [spec] = plan(specs, cloud=_at(account)).specs
    assert (spec.action, dict(spec.images), spec.seconds) == ("use", {"us-east-1": old.id}, None)

    result = build(specs, cloud=_at(account), on_event=None).check()
    assert (result.ok, result.failures, result.unfinished, result.stop_reason) == (True, (), (), None)
    here, copy = result.images
    assert here == BuiltImage("web", "us-east-1", old.id, "web-1", old.snapshots, None, is_unchanged=True)
    assert (copy.region, copy.name, copy.is_unchanged) == ("us-west-2", "web-1", False)
    assert harness.image(account.cloud.client(region="us-west-2"), copy.image_id)["State"] == "available"


def test_a_failed_build_is_a_result_that_raises_when_it_is_checked(
    account: Account, web: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    account.fault("refuse", "RunInstances", code="UnauthorizedOperation", status=403)
    seen: list[Event] = []
    threads = set()

    def follow(event: Event) -> None:
        seen.append(event)
        threads.add(threading.current_thread())

    result = build(load_specs(web), cloud=_at(account), on_event=follow)
    assert (result.outcome, result.ok, result.images, result.unfinished) == ("failed", False, (), ("web",))
    [failure] = result.failures
    assert failure.spec == "web"
    assert "UnauthorizedOperation" in failure.message
    assert failure.hint
    with pytest.raises(BuildError) as caught:
        result.check()
    assert str(caught.value).startswith(f"run {result.run} failed: {failure.stage}: {failure.message}")
    assert (caught.value.hint, caught.value.result) == (failure.hint, result)
    assert threads == {threading.main_thread()}
    assert isinstance(seen[0], Events.RunStarted)
    assert isinstance(seen[-1], Events.RunFinished)
    assert failure.stage in [event.stage for event in seen if isinstance(event, Events.StageFailed)]
    assert {event.run for event in seen} == {result.run}
    assert _left(account) == []
    assert capfd.readouterr() == ("", "")
    assert list((web.parent / "state/imagepipe/runs").iterdir()) == [web.parent / "state/imagepipe/runs" / result.run]


def test_a_subscriber_that_raises_does_not_harm_the_build(
    account: Account, web: Path, caplog: pytest.LogCaptureFixture
) -> None:
    account.fault("refuse", "RunInstances", code="UnauthorizedOperation", status=403)
    calls = []

    def follow(event: Event) -> None:
        calls.append(event)
        raise ValueError("a bug of the subscriber")

    with caplog.at_level(logging.WARNING, "imagepipe"):
        result = build(load_specs(web), cloud=_at(account), on_event=follow)
    assert str(result.subscriber_error) == "a bug of the subscriber"
    assert len(calls) == 1
    assert "UnauthorizedOperation" in result.failures[0].message, "the build went on to its own failure"
    assert [record.message for record in caplog.records if "subscriber" in record.message] == [
        "the build continues without its subscriber: ValueError: a bug of the subscriber"
    ]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_build_cleans_up_and_raises_the_interrupt_again(
    account: Account, web: Path, kind: type[BaseException]
) -> None:
    """The exception comes from a signal handler, while the instance runs and the build waits for SSH."""
    seen: list[Event] = []

    def handler(number: int, frame: object) -> None:
        raise kind

    def follow(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Events.Held) and event.kind == "instance":
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(kind):
            build(load_specs(web), cloud=_at(account), on_event=follow)
        assert signal.getsignal(signal.SIGINT) is handler, "the library leaves handlers alone"
    finally:
        signal.signal(signal.SIGINT, before)
    assert "instance" in {event.kind for event in seen if isinstance(event, Events.Released)}
    assert isinstance(seen[-1], Events.RunFinished), "the clean-up is followed too"
    assert seen[-1].outcome == "cancelled"
    assert _left(account) == []


def test_a_second_interrupt_is_raised_at_once(account: Account, web: Path) -> None:
    account.fault("delay", "TerminateInstances", seconds=5)
    interrupts: list[int] = []

    def interrupt_in(seconds: float) -> None:
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()

    def handler(number: int, frame: object) -> None:
        interrupts.append(number)
        if len(interrupts) == 1:
            interrupt_in(0.5)  # while the clean-up waits for the cloud
        raise KeyboardInterrupt(len(interrupts))

    def follow(event: Event) -> None:
        if isinstance(event, Events.Held) and event.kind == "instance":
            interrupt_in(0.2)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            build(load_specs(web), cloud=_at(account), on_event=follow)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.args == (2,)
    [thread] = [each for each in threading.enumerate() if each.name == "imagepipe build"]
    thread.join(60)  # the clean-up still goes on for as long as the process lives
    assert _left(account) == []


def test_a_build_that_takes_too_long_is_stopped(account: Account, web: Path) -> None:
    result = build(load_specs(web), cloud=_at(account), timeout=timedelta(seconds=2))
    assert (result.outcome, result.failures) == ("cancelled", ())
    assert result.stop_reason is not None
    assert "not done within 2 s" in result.stop_reason
    with pytest.raises(BuildError, match="cancelled: not done within 2 s"):
        result.check()
    assert _left(account) == []


def test_a_build_keeps_its_run_in_a_bucket(account: Account, web: Path, capfd: pytest.CaptureFixture[str]) -> None:
    account.cloud.client("s3").create_bucket(Bucket="our-state")
    account.fault("refuse", "RunInstances", code="UnauthorizedOperation", status=403)
    result = build(load_specs(web), cloud=_at(account), state="s3://our-state/team")
    assert result.outcome == "failed"
    objects = account.cloud.client("s3").list_objects_v2(Bucket="our-state", Prefix="team/")["Contents"]
    assert any(result.run in each["Key"] for each in objects)
    assert capfd.readouterr() == ("", "")


def test_builds_run_at_the_same_time_in_threads_of_a_program(account: Account, web: Path) -> None:
    specs, results = load_specs(web), []
    account.fault("refuse", "RunInstances", code="UnauthorizedOperation", status=403, times=9)

    def run() -> None:
        results.append(build(specs, cloud=_at(account)))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.outcome for result in results] == ["failed", "failed"]
    assert len({result.run for result in results}) == 2


def test_a_result_with_everything_left_out_is_ok_unless_something_is_held() -> None:
    good = BuildResult("r1", "succeeded", ())
    assert good.check() is good
    held = BuildResult("r1", "succeeded", (), held=("instance i-0ab in us-east-1 (not allowed)",))
    with pytest.raises(BuildError) as caught:
        held.check()
    assert str(caught.value) == "run r1 succeeded: still held: instance i-0ab in us-east-1 (not allowed)"
    assert caught.value.hint == "to delete what is held: imagepipe clean r1"
    two = (Failure("web", "web/launch", "no room", None), Failure("web", "web/key", "denied", "ask"))
    with pytest.raises(BuildError, match=r"run r1 failed: web/launch: no room \(1 more failure\)"):
        BuildResult("r1", "failed", (), failures=two).check()
