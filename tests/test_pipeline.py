"""The recipe: what the graph of every sample spec has, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from imagepipe.assembly import plan
from imagepipe.capture.ebs import CaptureEbs
from imagepipe.capture.instance_store.stages import BundleRoot
from imagepipe.capture.scan.bundle import CheckBundle
from imagepipe.capture.scan.gate import Allowed, Gate
from imagepipe.capture.scan.stages import CheckHygiene, CheckNewInstance, Offline
from imagepipe.capture.scrub import Scrub
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import Access, Session
from imagepipe.communicator.ssh import Connections
from imagepipe.engine.graph import Graph
from imagepipe.errors import CheckFailed, CommandFailed, ConnectError
from imagepipe.launch.machine import Launch
from imagepipe.local.disks.search import scan_disk
from imagepipe.provision.checks.check import Check
from imagepipe.provision.reboot import RebootMachine
from imagepipe.provision.shell import RunShell
from imagepipe.provision.step import Step
from imagepipe.publish.copy_ebs import CopyLimits, CopyToRegion
from imagepipe.publish.keep import Keep
from imagepipe.publish.test import UseImage
from imagepipe.spec.load import Build, load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given
from imagepipe.wiring.existing import Existing, Settled
from imagepipe.wiring.tools import Tools
from tests.bundle.samples import recipients

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = sorted((ROOT / "specs").glob("*.yaml"))
BUILD = Build("b1", "20261123T000000Z", "c0ffee")


def _loaded(*files: Path, **variables: str) -> list[LoadedSpec]:
    loaded = load(files, Given(command_line=variables), build=BUILD)
    refuse(loaded)
    return loaded


def _graph(
    loaded: list[LoadedSpec], folder: Path, *, offline: bool = False, existing: Mapping[str, Existing] | None = None
) -> Graph:
    access = Access(region="us-east-1", access_key_id="x", secret_access_key="y")
    regions = Regions(Session(access), SystemClock())
    reads = Offline(Path, scan_disk) if offline else None
    tools = Tools(regions, Connections(), CopyLimits(), folder, "r1", lambda *_: recipients(), offline=reads)
    settled = Settled(existing or {})
    return plan(loaded, tools, region=lambda spec: spec.launch.region or "us-east-1", settled=settled).graph


def _spec(folder: Path, steps: str, more: str = "") -> Path:
    path = folder / "spec.yaml"
    (folder / "imagepipe.yaml").write_text("defaults: {ssh_user: admin}\n")
    path.write_text(
        "imagepipe: 1\nname: x\nvariables: {flag: {default: yes it is}}\nsource: {ami: ami-12345678}\n"
        f"provision:\n{steps}\noutput: {{name: xyz}}\n{more}"
    )
    return path


def test_there_are_samples() -> None:
    assert len(SAMPLES) >= 3


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_step_lies_between_launch_and_capture_in_its_order(sample: Path, tmp_path: Path) -> None:
    loaded = _loaded(sample)
    graph = _graph(loaded, tmp_path)
    assert isinstance(graph.stages["launch"], Launch)
    [capture] = [n for n, s in graph.stages.items() if isinstance(s, CaptureEbs | BundleRoot)]
    steps = [n for n in graph.order() if isinstance(graph.stages[n], Step) and n.startswith("step-")]
    before = graph.before(capture)
    for earlier, later in pairwise(steps):
        assert earlier in graph.before(later)
    assert all("launch" in graph.before(step) and step in before for step in steps)
    decided = [at for at in loaded[0].steps if at.conditions == ()]
    assert len(steps) >= len(decided) - 1


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_nothing_is_launched_before_the_names_are_known_to_be_free(sample: Path, tmp_path: Path) -> None:
    graph = _graph(_loaded(sample), tmp_path)
    assert {"names", "source", "key", "network"} <= graph.before("launch")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_nothing_is_kept_before_every_copy_is_there_and_the_instance_is_gone(sample: Path, tmp_path: Path) -> None:
    graph = _graph(_loaded(sample), tmp_path)
    copies = {n for n, s in graph.stages.items() if isinstance(s, CopyToRegion)}
    captured = {"bundle", "register"} if "bundle" in graph.stages else {"scrub", "stop", "capture"}
    assert copies | captured | {"terminate"} <= graph.before("keep")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_nothing_is_tested_or_copied_before_the_captured_disk_was_looked_at(sample: Path, tmp_path: Path) -> None:
    graph = _graph(_loaded(sample), tmp_path, offline=True)
    assert isinstance(graph.stages["hygiene"], CheckHygiene | CheckBundle)
    later = [n for n, s in graph.stages.items() if isinstance(s, CopyToRegion | UseImage | Keep)]
    assert later
    assert all("hygiene" in graph.before(one) for one in later)
    assert not [s for s in graph.stages.values() if isinstance(s, Scrub | BundleRoot) and s.offline is None]
    assert not [s for s in graph.stages.values() if isinstance(s, CheckNewInstance)]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_where_no_disk_can_be_read_the_machine_and_the_test_instance_are_looked_at(
    sample: Path, tmp_path: Path
) -> None:
    loaded = _loaded(sample)
    graph = _graph(loaded, tmp_path)
    assert "hygiene" not in graph.stages
    assert [s for s in graph.stages.values() if isinstance(s, Scrub | BundleRoot) and s.offline is None]
    tests = [n for n, s in graph.stages.items() if isinstance(s, Step | Check) and n.startswith("test-")]
    assert bool(tests) == bool(loaded[0].tests)
    assert all("test-hygiene" in graph.before(one) for one in tests)


def test_the_gate_knows_the_exceptions_and_the_secrets_and_shows_neither_secret(tmp_path: Path) -> None:
    more = "hygiene: {allow: [{path: /a/*, rule: private-key, reason: keys of tests}]}\n"
    path = _spec(tmp_path, "- {shell: a, env: {T: '{{ var.flag }}'}}", more)
    path.write_text(path.read_text().replace("{default: yes it is}", "{sensitive: true}"))
    stage = _graph(_loaded(path, flag="hunter2hunter2"), tmp_path).stages["scrub"]
    assert isinstance(stage, Scrub)
    assert stage.gate == Gate((Allowed("/a/*", "private-key", "keys of tests"),))
    assert stage.gate is not None
    assert stage.gate.secrets == ("hunter2hunter2",)
    assert "hunter2" not in repr(stage)


def test_copies_need_the_image_and_not_one_another(tmp_path: Path) -> None:
    more = "launch: {region: us-east-1}\npublish: {regions: [us-west-2, eu-west-1, us-east-1]}\n"
    graph = _graph(_loaded(_spec(tmp_path, "- shell: a", more)), tmp_path)
    copies = [n for n, s in graph.stages.items() if isinstance(s, CopyToRegion)]
    assert copies == ["copy-us-west-2", "copy-eu-west-1"], "the launch region keeps its own image"
    assert all(not graph.before(one) & set(copies) for one in copies)


def test_several_specs_share_no_stage(tmp_path: Path) -> None:
    graph = _graph(_loaded(*SAMPLES), tmp_path)
    for name in graph.order():
        spec = name.partition("/")[0]
        assert all(other.startswith(f"{spec}/") for other in graph.before(name))


def test_a_step_whose_when_is_false_already_is_left_out_and_a_late_one_is_not(tmp_path: Path) -> None:
    steps = """\
- {shell: never, when: var.flag == 'no'}
- {shell: always, when: var.flag == 'yes it is'}
- {shell: perhaps, when: source.owner == 'self' and var.flag}
"""
    graph = _graph(_loaded(_spec(tmp_path, steps)), tmp_path)
    found = [s for s in graph.stages.values() if isinstance(s, RunShell)]
    assert [s.title() for s in found] == ["always", "perhaps"]
    assert [len(s.options.when) for s in found] == [0, 1]


def test_options_reach_their_stage(tmp_path: Path) -> None:
    steps = """\
- shell: {inline: [a, b], args: [x], interpreter: /bin/dash}
  name: called
  timeout: 90s
  retries: 3
  sudo: true
  exit_codes: [0, 2]
  expect_disconnect: true
  idempotent: true
  env: {A: b}
- reboot: {timeout: 2m}
"""
    graph = _graph(_loaded(_spec(tmp_path, steps)), tmp_path)
    shell, reboot = graph.stages["step-1"], graph.stages["step-2"]
    assert isinstance(shell, RunShell)
    assert isinstance(reboot, RebootMachine)
    assert (shell.script, shell.args, shell.interpreter) == (("a", "b"), ("x",), "/bin/dash")
    options = shell.options
    assert (options.title, options.timeout_seconds, options.retries, options.sudo) == ("called", 90.0, 3, True)
    assert (options.exit_codes, options.expect_disconnect, options.idempotent) == ((0, 2), True, True)
    assert options.env == {"A": "b"}
    assert options.where.endswith("spec.yaml:6")
    assert reboot.timeout_seconds == 120.0


def test_a_provisioners_options_come_from_its_use_where_it_says_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "provisioners" / "p"
    folder.mkdir(parents=True)
    (folder / "provisioner.yaml").write_text(
        "description: d\nsteps:\n- {shell: one, timeout: 10s}\n- {shell: two, sudo: false, env: {A: inner}}\n"
    )
    steps = "- {use: p, sudo: true, timeout: 20s, env: {A: outer, B: outer}}\n"
    graph = _graph(_loaded(_spec(tmp_path, steps)), tmp_path)
    one, two = (s for s in graph.stages.values() if isinstance(s, RunShell))
    assert (one.options.sudo, one.options.timeout_seconds, one.options.env) == (
        True,
        10.0,
        {"A": "outer", "B": "outer"},
    )
    assert (two.options.sudo, two.options.timeout_seconds) == (False, 20.0)
    assert two.options.env == {"A": "inner", "B": "outer"}


def test_no_secret_is_in_a_stages_text(tmp_path: Path) -> None:
    path = _spec(
        tmp_path, "- {shell: 'x {{ source.id }}', env: {T: '{{ var.token }} {{ region }}', U: '{{ var.token }}'}}"
    )
    path.write_text(path.read_text().replace("flag: {default: yes it is}", "token: {sensitive: true}"))
    graph = _graph(_loaded(path, token="hunter2"), tmp_path)
    assert "hunter2" not in repr(graph.stages)


TESTED = "test: [{shell: 'true'}, {shell: 'false'}]\n"


def test_nothing_is_published_before_the_new_image_has_booted_and_passed_every_test(tmp_path: Path) -> None:
    more = TESTED + 'publish: {regions: [us-west-2], share: {accounts: ["123456789012"]}}\n'
    graph = _graph(_loaded(_spec(tmp_path, "- shell: a", more)), tmp_path)
    for stage in ("copy-us-west-2", "share-us-east-1", "share-us-west-2", "keep"):
        assert {"test-boot", "test-1", "test-2", "tested"} <= graph.before(stage)
    assert "test-terminate" in graph.before("keep")


def test_tests_run_one_after_another_and_none_needs_that_another_passed(tmp_path: Path) -> None:
    more = "test: [{shell: a}, {port: 80}, {path: /x}]\n"
    graph = _graph(_loaded(_spec(tmp_path, "- shell: a", more)), tmp_path)
    assert "test-2" in graph.before("test-3")
    assert all(not graph.inputs(name) & {"test-1", "test-2", "test-3"} for name in ("test-1", "test-2", "test-3"))
    assert {"test-1", "test-2", "test-3"} <= graph.inputs("tested")
    failed, lost = CheckFailed("no"), ConnectError("gone")
    for name in ("test-2", "test-3"):
        assert not graph.stages[name].stops_others(failed)
        assert graph.stages[name].stops_others(lost), "the other tests need the machine as well"
    assert not graph.stages["test-1"].stops_others(CommandFailed("no", code=1))


def test_with_fail_fast_the_first_failed_test_stops_the_others(tmp_path: Path) -> None:
    more = "fail_fast: true\ntest: [{shell: a}, {port: 80}]\n"
    graph = _graph(_loaded(_spec(tmp_path, "- shell: a", more)), tmp_path)
    assert graph.stages["test-1"].stops_others(CommandFailed("no", code=1))
    assert graph.stages["test-2"].stops_others(CheckFailed("no"))
    assert graph.stages["step-1"].stops_others(CommandFailed("no", code=1))


def test_every_kind_of_test_has_a_title_and_its_place(tmp_path: Path) -> None:
    more = """\
test:
- http: http://localhost/
- port: {port: 80, host: db, state: closed}
- package: {name: nginx, version: "1.*"}
- service: {name: nginx, enabled: true, state: stopped}
- path: /etc/x
- path: {path: /etc/x, mode: "0644"}
- path: {path: /etc/x, absent: true}
- command: [nginx, -t]
- command: "echo {{ source.id }}"
  name: called
"""
    graph = _graph(_loaded(_spec(tmp_path, "- shell: a", more)), tmp_path)
    tests = [stage for stage in graph.stages.values() if isinstance(stage, Check)]
    assert [stage.title() for stage in tests] == [
        "GET http://localhost/",
        "port 80/tcp of db is closed",
        "package nginx 1.* is installed",
        "service nginx is stopped and enabled",
        "/etc/x exists",
        "/etc/x is as expected",
        "/etc/x does not exist",
        "nginx -t",
        "called",
    ]
    assert tests[1].options.where.endswith("spec.yaml:10")
    assert (tests[1].options.within_seconds, tests[1].options.sudo) == (30.0, False)


def test_the_test_instance_is_of_the_new_image_and_has_a_key_of_its_own(tmp_path: Path) -> None:
    graph = _graph(_loaded(_spec(tmp_path, "- shell: a", TESTED)), tmp_path)
    launch = graph.stages["test-launch"]
    assert isinstance(launch, Launch)
    assert (launch.source.stage, launch.key.stage, launch.devices, launch.user_data) == (
        "test-image",
        "test-key",
        (),
        None,
    )
    assert "capture" in graph.before("test-launch")


PUBLISHED = """\
publish:
  regions: [us-west-2, eu-west-1]
  best_effort: [eu-west-1]
  share: {accounts: ["123456789012"]}
  deprecate_after: 90d
  deregistration_protection: true
  launch_templates: [{name: web}, {id: lt-12345678}]
  ssm_parameter: /images/web
"""


def test_each_region_continues_as_soon_as_its_copy_is_there(tmp_path: Path) -> None:
    graph = _graph(_loaded(_spec(tmp_path, "- shell: a", PUBLISHED)), tmp_path)
    for region in ("us-west-2", "eu-west-1"):
        others = {f"copy-{each}" for each in ("us-west-2", "eu-west-1") if each != region}
        assert f"copy-{region}" in graph.before(f"share-{region}")
        assert not others & graph.before(f"deprecate-{region}")
        assert f"share-{region}" in graph.before(f"deprecate-{region}")


def test_nothing_names_an_image_before_all_required_ones_are_kept_and_the_parameter_is_last(tmp_path: Path) -> None:
    graph = _graph(_loaded(_spec(tmp_path, "- shell: a", PUBLISHED)), tmp_path)
    required = {f"deprecate-{region}" for region in ("us-east-1", "us-west-2")}
    assert required | {"terminate"} <= graph.before("keep")
    for region in ("us-east-1", "us-west-2"):
        for name in ("protect", "template-1", "parameter"):
            assert "keep" in graph.before(f"{name}-{region}")
        assert {f"protect-{region}", f"template-1-{region}"} <= graph.before(f"parameter-{region}")
    assert "template-2-us-east-1" in graph.stages
    assert "template-2-us-west-2" not in graph.stages, "a template that is named by its id is in one region"
    assert {"parameter", "templates"} <= graph.before("launch"), "both are checked before anything is launched"


def test_a_region_that_may_fail_is_waited_for_by_no_other(tmp_path: Path) -> None:
    loaded = _loaded(_spec(tmp_path, "- shell: a", PUBLISHED))
    graph = _graph(loaded, tmp_path)
    own = {name for name in graph.stages if name.endswith("-eu-west-1")}
    assert own == {
        f"{name}-eu-west-1" for name in ("copy", "share", "deprecate", "keep", "protect", "template-1", "parameter")
    }
    for name in graph.stages.keys() - own:
        assert not graph.before(name) & own
    assert "keep" in graph.before("keep-eu-west-1"), "a copy is never the only image"


def test_a_region_that_another_run_did_not_reach_is_left_to_it(tmp_path: Path) -> None:
    loaded = _loaded(_spec(tmp_path, "- shell: a", PUBLISHED))
    key, images = str(loaded[0].key), {"us-east-1": "ami-11111111", "us-west-2": "ami-22222222"}
    assert "copy-eu-west-1" in _graph(loaded, tmp_path, existing={key: Existing(images)}).stages
    published = Existing(images, is_published=True)
    assert _graph(loaded, tmp_path, existing={key: published}).stages.keys() == {
        "image-us-east-1",
        "image-us-west-2",
        "published",
    }
    assert Existing.from_record(published.record()) == published, "a bake that is resumed has the same stages"


def test_an_image_that_takes_over_a_name_is_deprecated_and_named_under_that_name(tmp_path: Path) -> None:
    more = "publish: {regions: [us-west-2], deprecate_after: 90d, ssm_parameter: /images/web}\n"
    spec = _spec(tmp_path, "- shell: a", more)
    spec.write_text(spec.read_text().replace("{name: xyz}", "{name: xyz, on_name_taken: replace}"))
    graph = _graph(_loaded(spec), tmp_path)
    for region in ("us-east-1", "us-west-2"):
        assert {f"replace-{region}"} <= graph.before(f"deprecate-{region}") & graph.before(f"parameter-{region}")


def test_the_old_image_gives_up_its_name_only_after_everything_is_kept(tmp_path: Path) -> None:
    more = TESTED + "publish: {regions: [us-west-2]}\n"
    spec = _spec(tmp_path, "- shell: a", more)
    spec.write_text(spec.read_text().replace("{name: xyz}", "{name: xyz, on_name_taken: replace}"))
    graph = _graph(_loaded(spec), tmp_path)
    assert {"keep", "tested", "copy-us-west-2"} <= graph.before("replace-us-east-1") & graph.before("replace-us-west-2")


def test_each_copy_is_encrypted_with_the_key_of_its_region(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "- shell: a", "publish: {regions: [us-west-2, eu-west-1]}\n")
    keys = "{kms_key: alias/a, per_region: {us-west-2: {kms_key: alias/b}}}"
    spec.write_text(spec.read_text().replace("{name: xyz}", f"{{name: xyz, encrypt: {keys}}}"))
    graph = _graph(_loaded(spec), tmp_path)
    copies = {n: s.kms_key for n, s in graph.stages.items() if isinstance(s, CopyToRegion)}
    assert copies == {"copy-us-west-2": "alias/b", "copy-eu-west-1": None}
