"""The files that a build needs on another machine: all of them, and no keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagepipe.errors import UsageError
from imagepipe.inputs.files import files_of
from imagepipe.spec.load import load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given

SPEC = """\
imagepipe: 1
name: {name}
source: {source}
launch: {{region: us-east-1, ssh: {{user: admin{ssh}}}}}
provision:
{steps}
output: {{name: "{name}"}}
"""


def _spec(folder: Path, name: str, steps: str, source: str = "{ami: ami-12345678}", ssh: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(SPEC.format(name=name, steps=steps, source=source, ssh=ssh), encoding="utf-8")
    return path


def _names(loaded: list[LoadedSpec], folder: Path) -> set[str]:
    return {os.path.relpath(path, folder) for path in files_of(loaded).paths}


def _load(*files: Path) -> list[LoadedSpec]:
    loaded = load(files, Given())
    refuse(loaded)
    return loaded


def test_specs_their_bases_the_project_scripts_and_folders_are_needed(tmp_path: Path) -> None:
    (tmp_path / "imagepipe.yaml").write_text("defaults: {}\n", encoding="utf-8")
    for name in ("base.sh", "app.conf.j2"):
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    (tmp_path / "site" / "css").mkdir(parents=True)
    (tmp_path / "site" / "css" / "a.css").write_text("x", encoding="utf-8")
    _spec(tmp_path / "specs", "base", "  - shell: {script: ../base.sh}")
    steps = "  - file: {src: ../site, dest: /srv}\n  - template: {src: ../app.conf.j2, dest: /etc/app.conf}"
    app = _spec(tmp_path / "specs", "app", steps, "{image: base}")
    (tmp_path / "other.txt").write_text("not needed", encoding="utf-8")
    assert _names(_load(app), tmp_path) == {
        "imagepipe.yaml",
        "specs",
        "specs/app.yaml",
        "specs/base.yaml",
        "base.sh",
        "app.conf.j2",
        "site",
        "site/css",
        "site/css/a.css",
    }


def test_own_provisioners_are_needed_whole_and_shipped_ones_are_not(tmp_path: Path) -> None:
    own = tmp_path / "provisioners" / "motd"
    own.mkdir(parents=True)
    (own / "provisioner.yaml").write_text("description: d\nsteps:\n  - file: {src: motd, dest: /etc/motd}\n")
    (own / "motd").write_text("hello")
    web = _spec(tmp_path, "web", "  - use: motd\n  - use: apt-install\n    with: {packages: [nginx]}")
    assert _names(_load(web), tmp_path) == {
        "web.yaml",
        "provisioners/motd",
        "provisioners/motd/provisioner.yaml",
        "provisioners/motd/motd",
    }


def test_a_link_is_needed_with_the_file_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real.sh").write_text("true", encoding="utf-8")
    (tmp_path / "run.sh").symlink_to("real.sh")
    web = _spec(tmp_path, "web", "  - shell: {script: run.sh}")
    assert _names(_load(web), tmp_path) == {"web.yaml", "run.sh", "real.sh"}


def test_private_keys_stay_here(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("PRIVATE KEY", encoding="utf-8")
    web = _spec(tmp_path, "web", "  - shell: 'true'", ssh=", key_pair: ours, private_key: id")
    assert _names(_load(web), tmp_path) == {"web.yaml"}


def test_every_link_on_the_way_to_a_file_is_needed(tmp_path: Path) -> None:
    (tmp_path / "versions" / "2").mkdir(parents=True)
    (tmp_path / "versions" / "2" / "run.sh").write_text("true", encoding="utf-8")
    (tmp_path / "current").symlink_to(tmp_path / "versions" / "2")
    (tmp_path / "newest").symlink_to("current")
    web = _spec(tmp_path, "web", "  - shell: {script: newest/run.sh}")
    found = files_of(_load(web))
    assert {os.path.relpath(path, tmp_path) for path in found.paths} == {
        "web.yaml",
        "newest",
        "current",
        "versions/2/run.sh",
    }
    assert found.followed == {tmp_path / "current", tmp_path / "newest"}


def test_a_spec_that_is_a_link_needs_the_files_beside_the_link(tmp_path: Path) -> None:
    shared = _spec(tmp_path / "shared", "web", "  - shell: {script: run.sh}")
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "run.sh").write_text("true", encoding="utf-8")
    link = tmp_path / "specs" / "web.yaml"
    link.symlink_to(shared)
    assert _names(_load(link), tmp_path) == {"specs/web.yaml", "shared/web.yaml", "specs/run.sh"}


def test_links_in_a_folder_that_is_uploaded_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "log").symlink_to("/var/log")
    found = files_of(_load(_spec(tmp_path, "web", "  - file: {src: site, dest: /srv}")))
    assert {os.path.relpath(path, tmp_path) for path in found.paths} == {"web.yaml", "site", "site/log"}
    assert not found.followed


def test_a_provisioner_beside_the_folder_of_the_spec_is_needed(tmp_path: Path) -> None:
    (tmp_path / "motd").mkdir()
    (tmp_path / "motd" / "provisioner.yaml").write_text("description: d\nsteps:\n  - shell: 'true'\n")
    web = _spec(tmp_path / "specs", "web", "  - use: motd")
    assert _names(_load(web), tmp_path) == {"specs/web.yaml", "motd", "motd/provisioner.yaml"}


def test_an_absolute_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("true", encoding="utf-8")
    web = _spec(tmp_path, "web", f"  - shell: {{script: {tmp_path}/run.sh}}")
    with pytest.raises(UsageError, match=r"web\.yaml:\d+: .*run\.sh is an absolute path") as refused:
        files_of(_load(web))
    assert "relative" in str(refused.value.hint)
