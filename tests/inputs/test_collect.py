"""The inputs of an image: what changes its fingerprint, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imagepipe.inputs.collect import collect_inputs
from imagepipe.inputs.compare import compare
from imagepipe.inputs.manifest import Input, InputManifest
from imagepipe.spec.load import Build, load, refuse
from imagepipe.spec.variables import Given

FIRST = Build("b1", "20261123T000000Z", "c0ffee")
SECOND = Build("b2", "20270101T123456Z", "decade")

SPEC = """\
imagepipe: 1
name: web
variables:
  greeting: {default: hello}
  unused: {default: a}
  team: {default: web}
  token: {sensitive: true}
matrix: {release: [bookworm]}
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, ssh: {user: admin}, block_devices: [{device: /dev/xvda, size_gib: 8}]}
provision:
- shell: {script: install.sh}
- file: {src: site/, dest: /srv/site/}
- template: {src: page.j2, dest: /srv/page}
- name: release
  shell: "echo {{ matrix.release }}"
  env: {TOKEN: "{{ var.token }}"}
- shell: "never"
  when: var.greeting == 'no'
test:
- shell: test -e /srv/page
output:
  name: "web-{{ build.timestamp }}"
  description: "of {{ build.git_sha }}"
  tags: {team: "{{ var.team }}"}
publish: {regions: [us-west-2]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a.css").write_text("a")
    (tmp_path / "site/link").symlink_to("a.css")
    (tmp_path / "page.j2").write_text("{{ var.greeting }}")
    (tmp_path / "install.sh").write_text("echo install")
    for file in ("site/a.css", "page.j2", "install.sh"):
        (tmp_path / file).chmod(0o644)
    (tmp_path / "site").chmod(0o755)
    (tmp_path / "web.yaml").write_text(SPEC)
    return tmp_path


def _inputs(folder: Path, build: Build = FIRST, **variables: str) -> InputManifest:
    loaded = load([folder / "web.yaml"], Given(command_line={"token": "s3cr3t-canary", **variables}), build=build)
    refuse(loaded)
    found = collect_inputs(loaded[0])
    assert found is not None
    return found.with_source("ami-1")


def test_every_input_has_a_place_in_the_list(folder: Path) -> None:
    assert [(each.kind, each.name) for each in _inputs(folder).inputs] == [
        ("file", "install.sh"),
        ("file", "page.j2"),
        ("file", "site"),
        ("file", "site/a.css"),
        ("file", "site/link"),
        ("format", "imagepipe"),
        ("launch", "launch.block_devices"),
        ("output", "output.imds_support"),
        ("output", "output.type"),
        ("source", "image"),
        ("step", "provision.0"),
        ("step", "provision.1"),
        ("step", "provision.2"),
        ("step", "provision.3"),
        ("step", "test.0"),
        ("variable", "matrix.release"),
        ("variable", "var.greeting"),
        ("variable", "var.token"),
    ]


def test_another_run_at_another_time_has_the_same_fingerprint(folder: Path) -> None:
    assert _inputs(folder).fingerprint() == _inputs(folder, SECOND).fingerprint()


def _edit(old: str, new: str, file: str = "web.yaml") -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return edit


def _relink(folder: Path) -> None:
    (folder / "site/link").unlink()
    (folder / "site/link").symlink_to("b.css")


@pytest.mark.parametrize(
    "edit",
    [
        _edit('"web-{{', '"www-{{'),
        _edit("of {{ build.git_sha }}", "by hand"),
        _edit("team: {default: web}", "team: {default: platform}"),
        _edit("unused: {default: a}", "unused: {default: b}"),
        _edit("name: release", "name: the release"),
        _edit("regions: [us-west-2]", "regions: [us-west-2, eu-west-1]"),
    ],
    ids=["name", "description", "tag", "unused-variable", "step-name", "regions"],
)
def test_names_tags_and_regions_do_not_count(folder: Path, edit: Callable[[Path], None]) -> None:
    before = _inputs(folder)
    edit(folder)
    assert compare(before, _inputs(folder)) == []
    assert before.fingerprint() == _inputs(folder).fingerprint()


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (_edit("a", "b", "site/a.css"), ["file site/a.css"]),
        (lambda folder: (folder / "install.sh").chmod(0o755), ["file install.sh"]),
        (_relink, ["file site/link"]),
        (lambda folder: (folder / "site/new").mkdir(), ["file site/new"]),
        (_edit("{{ var.greeting }}", "{{ var.greeting }}!", "page.j2"), ["file page.j2"]),
        (_edit("default: hello", "default: hi"), ["variable var.greeting", "step provision.2"]),
        (_edit("[bookworm]", "[trixie]"), ["variable matrix.release", "step provision.3"]),
        (_edit("echo {{ m", "print {{ m"), ["step provision.3"]),
        (_edit("greeting == 'no'", "greeting != 'no'"), ["step provision.4"]),
        (_edit("test -e", "test -s"), ["step test.0"]),
        (_edit("size_gib: 8", "size_gib: 9"), ["launch launch.block_devices"]),
        (_edit("output:", "output:\n  encrypt: true"), ["output output.encrypt"]),
    ],
    ids=(
        *("bytes", "mode", "link", "folder", "template", "variable", "axis", "step", "condition", "test"),
        *("device", "output"),
    ),
)  # fmt: skip
def test_a_change_of_an_input_is_found_and_named(
    folder: Path, edit: Callable[[Path], object], changed: list[str]
) -> None:
    before = _inputs(folder)
    edit(folder)
    after = _inputs(folder)
    assert [f"{each.kind} {each.name}" for each in compare(before, after)] == changed
    assert before.fingerprint() != after.fingerprint()


def test_another_source_image_is_the_first_change(folder: Path) -> None:
    before = _inputs(folder)
    _edit("test -e", "test -s")(folder)
    changes = compare(before, _inputs(folder).with_source("ami-2"))
    assert changes[0].describe() == "source image: ami-1 -> ami-2"


def test_a_secret_is_nowhere_in_the_list_and_does_not_change_it(folder: Path) -> None:
    inputs = _inputs(folder)
    assert inputs.fingerprint() == _inputs(folder, token="other-canary").fingerprint()
    text = inputs.to_bytes().decode()
    assert "canary" not in text
    assert "(sensitive)" in text


def test_a_list_that_was_written_is_read_again(folder: Path) -> None:
    inputs = _inputs(folder)
    assert InputManifest.from_bytes(inputs.to_bytes(), "web.json") == inputs


def test_a_newer_format_makes_every_image_stale() -> None:
    one, two = Input("format", "imagepipe", "1", value="1"), Input("format", "imagepipe", "2", value="2")
    changes = compare(InputManifest((one,)), InputManifest((two,)))
    assert [each.describe() for each in changes] == ["format imagepipe: 1 -> 2"]
