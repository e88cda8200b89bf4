"""Fingerprints of planned stages: the same in every run, and another one for everything that depends on a change."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imagepipe.assembly import Plan, plan
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import Access, Session
from imagepipe.communicator.ssh import Connections
from imagepipe.engine.fingerprint import UNKNOWN
from imagepipe.publish.copy_ebs import CopyLimits
from imagepipe.spec.load import Build, load, refuse
from imagepipe.spec.variables import Given
from imagepipe.wiring.tools import Tools
from tests.bundle.samples import recipients

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = sorted((ROOT / "specs").glob("*.yaml"))
FIRST = Build("b1", "20261123T000000Z", "c0ffee")
SECOND = Build("b2", "20270101T123456Z", "decade")

SPEC = """\
imagepipe: 1
name: web
variables:
  release: {default: "12"}
  greeting: {default: hello}
  mode: {default: fast}
  token: {sensitive: true}
source: {ami: {name: "debian-{{ var.release }}-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}, tags: {build: "{{ build.id }}"}}
provision:
- shell: {script: install.sh}
  timeout: 90s
- file: {src: site/, dest: "/srv/{{ build.timestamp }}/"}
- template: {src: page.j2, dest: /srv/page}
- shell: "echo {{ build.git_sha }} {{ source.id }} {{ var.mode }}"
  env: {TOKEN: "{{ var.token }}"}
- shell: "login {{ var.token }}"
  when: var.token != 'none' and build.git_sha != 'c0ffee'
- shell: "guarded"
  when: (var.token | default('')) == 'some'
test:
- shell: test -e /srv/page
output:
  name: "web-{{ build.timestamp }}"
  description: "of {{ build.git_sha }} for {{ region }}"
  tags: {commit: "{{ build.git_sha }}"}
publish: {regions: [us-west-2], share: {accounts: ["123456789012"]}}
"""


@dataclass
class Project:
    """A folder with one spec and its files."""

    folder: Path
    token: str = "hunter2"
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "site/inner").mkdir(parents=True)
        self.write("web.yaml", SPEC)
        self.write("install.sh", "apt-get install nginx\n")
        self.write("site/index.html", "<html>")
        self.write("site/inner/style.css", "body {}")
        self.write("page.j2", "{{ var.greeting }} {{ build.id }} {{ var.unknown | default('nobody') }}\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def replace(self, old: str, new: str) -> None:
        """Change one place of the spec."""
        text = (self.folder / "web.yaml").read_text()
        assert text.count(old) == 1
        self.write("web.yaml", text.replace(old, new))

    def plan(self) -> Plan:
        return _plan([self.folder / "web.yaml"], self.folder / "run", FIRST, token=self.token, **self.variables)


def _plan(files: list[Path], run: Path, build: Build, **variables: str) -> Plan:
    loaded = load(files, Given(command_line=variables), build=build)
    refuse(loaded)
    access = Access(region="us-east-1", access_key_id="x", secret_access_key="y")
    regions = Regions(Session(access), SystemClock())
    tools = Tools(regions, Connections(), CopyLimits(), run, build.id, lambda *_: recipients())
    return plan(loaded, tools, region=lambda spec: spec.launch.region or "us-east-1")


def _by_spec(plan: Plan, spec: str) -> Mapping[str, str]:
    """The fingerprints of one spec's stages, without its prefix."""
    return {n.removeprefix(f"{spec}/"): f for n, f in plan.fingerprints.items() if n.startswith(f"{spec}/")}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_stage_of_a_sample_has_the_same_fingerprint_in_another_run(sample: Path, tmp_path: Path) -> None:
    first = _plan([sample], tmp_path / "first", FIRST)
    second = _plan([sample], tmp_path / "second", SECOND)
    assert first.fingerprints == second.fingerprints
    assert first.fingerprints.keys() == first.graph.stages.keys()


def test_every_stage_of_a_sample_has_the_same_fingerprint_alone_and_beside_the_others(tmp_path: Path) -> None:
    together = _plan(SAMPLES, tmp_path, FIRST)
    for sample, baked in zip(SAMPLES, together.baked, strict=True):
        assert _plan([sample], tmp_path, FIRST).fingerprints == _by_spec(together, baked.spec)


def test_every_stage_has_the_same_fingerprint_in_another_folder_and_at_another_time(project: Project) -> None:
    elsewhere = project.folder / "elsewhere"
    shutil.copytree(project.folder, elsewhere, ignore=lambda *_: ["elsewhere", "run"])
    again = _plan([elsewhere / "web.yaml"], elsewhere / "run", SECOND, token=project.token)
    assert again.fingerprints == project.plan().fingerprints


def test_a_secret_is_in_no_fingerprint_where_it_could_be_guessed(project: Project) -> None:
    before = project.plan().fingerprints
    project.token = "another"
    assert project.plan().fingerprints == before


def _make_executable(project: Project) -> None:
    (project.folder / "site/inner/style.css").chmod(0o755)


def _close_folder(project: Project) -> None:
    (project.folder / "site/inner").chmod(0o700)


CHANGES: dict[str, tuple[Callable[[Project], object], set[str]]] = {
    "a byte of a script": (lambda p: p.write("install.sh", "apt-get install nginX\n"), {"step-1"}),
    "a byte of a file in a folder": (lambda p: p.write("site/inner/style.css", "body { }"), {"step-2"}),
    "the mode of a file": (_make_executable, {"step-2"}),
    "the mode of a folder": (_close_folder, {"step-2"}),
    "a file's place in a folder": (
        lambda p: (p.folder / "site/inner/style.css").rename(p.folder / "site/style.css"),
        {"step-2"},
    ),
    "a byte of a template": (lambda p: p.write("page.j2", "{{ var.greeting }}!"), {"step-3"}),
    "a variable that a template file reads": (lambda p: p.variables.update(greeting="bye"), {"step-3"}),
    "a variable that a template file only asks for": (
        lambda p: p.replace("  mode: {default: fast}", "  mode: {default: fast}\n  unknown: {default: me}"),
        {"step-3"},
    ),
    "a variable that a late text reads": (lambda p: p.variables.update(mode="slow"), {"step-4"}),
    "a variable that the source is found by": (lambda p: p.variables.update(release="13"), {"source"}),
    "an option of a step": (lambda p: p.replace("timeout: 90s", "timeout: 91s"), {"step-1"}),
    "the environment of a step": (lambda p: p.replace("TOKEN:", "OTHER:"), {"step-4"}),
    "a condition": (lambda p: p.replace("'none'", "'some'"), {"step-5"}),
    "a test": (lambda p: p.replace("test -e", "test -f"), {"test-1"}),
    "the name": (lambda p: p.replace('"web-{{ build.timestamp }}"', '"w-{{ build.timestamp }}"'), {"name"}),
    "the description": (lambda p: p.replace("of {{ build.git_sha }}", "for {{ build.git_sha }}"), {"name"}),
    "a tag of temporary resources": (
        lambda p: p.replace("tags: {build:", "tags: {run:"),
        {"key", "network", "launch", "test-key"},
    ),
    "the accounts": (lambda p: p.replace("123456789012", "210987654321"), {"share-us-east-1", "share-us-west-2"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_alters_the_stages_that_depend_on_it_and_no_other(change: str, project: Project) -> None:
    before = project.plan()
    apply, own = CHANGES[change]
    apply(project)
    after = project.plan()
    changed = {name for name in before.fingerprints if before.fingerprints[name] != after.fingerprints[name]}
    assert changed == own | {name for name in before.graph.stages if before.graph.before(name) & own}


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.replace("- shell: {script: install.sh}", "- name: install\n  shell: {script: install.sh}"),
        lambda p: p.replace("variables:\n", "variables:\n  unused: {default: x}\n"),
        lambda p: p.write("not-named.txt", "by the spec"),
        lambda p: (p.folder / "site/index.html").touch(),
    ],
    ids=["the name of a step", "a variable that nothing uses", "a file that nothing names", "a time"],
)
def test_a_change_that_no_stage_depends_on_alters_nothing(
    change: Callable[[Project], object], project: Project
) -> None:
    before = project.plan().fingerprints
    change(project)
    assert project.plan().fingerprints == before


def test_what_build_or_a_secret_decides_is_decided_by_the_run_so_that_all_runs_have_the_same_stages(
    project: Project,
) -> None:
    first = _plan([project.folder / "web.yaml"], project.folder, FIRST, token="none")
    second = _plan([project.folder / "web.yaml"], project.folder, SECOND, token="some")
    assert first.graph.stages.keys() == second.graph.stages.keys() == first.fingerprints.keys()
    assert {"step-5", "step-6"} <= first.graph.stages.keys()


def test_no_secret_is_in_the_spec_that_fingerprints_are_made_of(project: Project) -> None:
    [loaded] = load([project.folder / "web.yaml"], Given(command_line={"token": "hunter2"}), build=FIRST)
    assert "hunter2" in repr(loaded.spec)
    assert loaded.reference is not None
    assert "hunter2" not in repr(loaded.reference.spec)
    assert loaded.reference.secrets == {"secret"}


PROVISIONER = """\
description: d
parameters:
  commit: {description: c, default: ""}
  pin: {description: p, type: integer, default: 1}
steps:
- {shell: outside, when: param.commit == ''}
- {shell: "inside {{ param.pin }}", when: param.commit != ''}
- {use: inner, with: {inherited: "{{ param.commit }}"}}
"""
INNER = """\
description: d
parameters: {inherited: {description: i, default: ""}}
steps: [{shell: deeper, when: param.inherited == ''}]
"""


def _add_provisioners(project: Project) -> None:
    for name, text in (("outer", PROVISIONER), ("inner", INNER)):
        (project.folder / "provisioners" / name).mkdir(parents=True)
        project.write(f"provisioners/{name}/provisioner.yaml", text)
    step = '- {use: outer, with: {commit: "{{ build.git_sha }}", pin: "{{ var.token }}"}}\n'
    project.replace("test:\n", f"{step}test:\n")
    project.token = "1234"


def test_a_parameter_from_build_is_decided_by_the_run_in_every_provisioner_that_gets_it(project: Project) -> None:
    _add_provisioners(project)
    text = (project.folder / "web.yaml").read_text()
    project.write("web.yaml", text.replace("build.git_sha", "build.git_sha | default('')"))
    files, run = [project.folder / "web.yaml"], project.folder / "run"
    outside, inside = (
        _plan(files, run, Build("b1", "20261123T000000Z", sha), token=project.token) for sha in ("", "c0ffee")
    )
    assert outside.graph.stages.keys() == inside.graph.stages.keys() == inside.fingerprints.keys()
    assert outside.fingerprints == inside.fingerprints
    assert UNKNOWN not in inside.fingerprints.values()


def test_a_secret_that_is_a_number_is_in_no_fingerprint_either(project: Project) -> None:
    _add_provisioners(project)
    before = project.plan().fingerprints
    project.token = "4321"
    assert project.plan().fingerprints == before


def test_a_file_that_is_named_by_the_commit_does_not_bring_secrets_into_fingerprints(project: Project) -> None:
    project.replace("script: install.sh", 'script: "install-{{ build.git_sha }}.sh"')
    project.write("install-c0ffee.sh", "apt-get install nginx\n")
    before = project.plan().fingerprints
    project.token = "another"
    after = _plan([project.folder / "web.yaml"], project.folder, Build("b9", "20300101T000000Z", "c0ffee"), token="x")
    assert project.plan().fingerprints == before == after.fingerprints
    assert UNKNOWN not in before.values()


def test_a_spec_that_takes_a_secret_apart_has_no_fingerprints_rather_than_some_with_a_secret(project: Project) -> None:
    project.replace("login {{ var.token }}", "login {{ var.token.split('-')[1] }}")
    project.token = "user-password"
    assert set(project.plan().fingerprints.values()) == {UNKNOWN}
