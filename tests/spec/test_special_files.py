"""Files that a spec names and that are not regular ones, or broken links: found by validate, and not read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from imagepipe.errors import SpecError
from imagepipe.spec.find import spec_files
from imagepipe.spec.load import load, load_var_file
from imagepipe.spec.variables import Given
from tests.spec.conftest import Loader, messages

STEP = "provision:\n  - {step}\n"


def _make(kind: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))  # a long path does not fit into an address
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["a FIFO", "a socket"])
@pytest.mark.parametrize(
    ("src", "place"),
    [("tree", "tree/sub/special"), ("tree/", "tree/.special"), ("special", "special"), ("to", "tree/special")],
)
def test_a_special_file_in_an_uploaded_folder_is_a_problem_with_its_path(
    loaded: Loader, tmp_path: Path, kind: str, src: str, place: str
) -> None:
    _make(kind, tmp_path / place)
    (tmp_path / "to").symlink_to("tree")
    problems = loaded(f"provision:\n  - file: {{src: {src}, dest: /srv/x}}\n").problems
    [problem] = [each for each in problems if each.path == "provision.0.file.src"]
    shown = place.replace("tree", src) if src == "to" else place
    assert problem.message == f"{shown} is {kind}: only regular files, folders and links can be uploaded"


def test_links_in_a_folder_are_uploaded_as_links_wherever_they_lead(loaded: Loader, tmp_path: Path) -> None:
    _make("a device", tmp_path / "tree/zero")
    (tmp_path / "tree/dangling").symlink_to("nowhere")
    assert not loaded("provision:\n  - file: {src: tree, dest: /srv/x}\n").problems


@pytest.mark.parametrize(
    "step",
    ["file: {src: special, dest: /x}", "shell: {script: special}", "template: {src: special, dest: /x}"],
)
@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a device"])
def test_a_step_that_names_one_is_a_problem(loaded: Loader, tmp_path: Path, kind: str, step: str) -> None:
    _make(kind, tmp_path / "special")
    problems = loaded(f"provision:\n  - {step}\n").problems
    assert ["special is" in each.message for each in problems] == [True]


_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
_NOWHERE = " is a link to nowhere, which does not exist"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("provision: [{file: {src: to, dest: /x}}]", id="file"),
        pytest.param("provision: [{file: {src: to/, dest: /x}}]", id="folder"),
        pytest.param("provision: [{template: {src: to, dest: /x}}]", id="template"),
        pytest.param("provision: [{shell: {script: to}}]", id="script"),
        pytest.param("launch: {ssh: {key_pair: k, private_key: to}}", id="private key"),
        pytest.param(
            "launch: {ssh: {bastion: {host: h.example.org, user: u, private_key: to, host_key: KEY}}}", id="bastion"
        ),
    ],
)
def test_a_broken_link_is_named_with_its_target(loaded: Loader, tmp_path: Path, text: str) -> None:
    (tmp_path / "to").symlink_to("nowhere")
    (tmp_path / "too").touch()
    [problem] = [
        each
        for each in loaded(text.replace("KEY", _HOST_KEY)).problems
        if "to" in each.message and "link" in each.message
    ]
    assert problem.message.removeprefix("to").removeprefix("/") == _NOWHERE
    assert problem.hint is None


@pytest.mark.parametrize("key", ["certificate", "private_key", "ec2_certificate"])
def test_a_broken_link_among_the_files_of_a_bundle_is_named(loaded: Loader, tmp_path: Path, key: str) -> None:
    for name in ("certificate", "private_key", "ec2_certificate"):
        (tmp_path / name).touch()
    (tmp_path / key).unlink()
    (tmp_path / key).symlink_to("nowhere")
    files = ", ".join(f"{name}: {name}" for name in ("certificate", "private_key", "ec2_certificate"))
    spec = loaded(
        "imagepipe: 1\nname: web\nsource: {ami: ami-0123456789abcdef0}\n"
        f"output: {{name: web-1, type: instance-store, account: '123456789012', bucket: my-images, {files}}}\n",
        whole=True,
    )
    assert f"{key}{_NOWHERE}" in messages(spec)


def test_a_link_to_itself_and_a_broken_folder_are_named(loaded: Loader, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").symlink_to("nowhere")
    assert messages(loaded("provision: [{file: {src: loop, dest: /x}}, {file: {src: folder/a, dest: /x}}]")) == [
        "loop is a link that leads back to itself",
        f"folder/a: folder{_NOWHERE}",
    ]


def test_a_broken_link_is_not_suggested_for_another_file(loaded: Loader, tmp_path: Path) -> None:
    (tmp_path / "script.sh").symlink_to("nowhere")
    [problem] = loaded("provision: [{shell: {script: scripd.sh}}]").problems
    assert problem.hint == "paths are relative to the file that names them"


def test_a_provisioner_behind_a_broken_link_is_named(loaded: Loader, tmp_path: Path) -> None:
    (tmp_path / "provisioners").mkdir()
    (tmp_path / "provisioners" / "mine").symlink_to("nowhere")
    [message] = messages(loaded("provision: [{use: mine}]"))
    assert message.endswith(f"provisioners/mine{_NOWHERE}")


def test_a_project_file_that_is_a_broken_link_is_an_error(loaded: Loader, tmp_path: Path) -> None:
    assert not loaded().problems
    (tmp_path / "imagepipe.yaml").unlink()
    (tmp_path / "imagepipe.yaml").symlink_to("nowhere")
    [broken] = load([Path("web.yaml")], Given())
    assert messages(broken) == [f"cannot be read: it{_NOWHERE}"]


def test_a_spec_and_a_variable_file_that_are_broken_links_are_named(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").symlink_to("nowhere")
    with pytest.raises(SpecError, match=f"web.yaml{_NOWHERE}"):
        spec_files(["web.yaml"], folder=tmp_path)
    with pytest.raises(SpecError, match=_NOWHERE):
        load_var_file(tmp_path / "web.yaml")


@pytest.mark.parametrize(
    "step",
    [
        "file: {src: LONG, dest: /etc/a}",
        "shell: {script: LONG}",
        "template: {src: LONG, dest: /etc/a}",
        "ansible: LONG",
        "ansible: {playbook: site.yml, files: [LONG]}",
        "use: LONG",
    ],
)
def test_a_name_that_no_file_can_have_is_a_problem_with_its_place(loaded: Loader, step: str) -> None:
    text = f"provision:\n  - {step.replace('LONG', 'a' * 300)}\n  - shell: {{script: nothing.sh}}\n"
    first, second = messages(loaded(text, files={"site.yml": "- hosts: all\n"}))
    assert "a" * 300 in first
    assert "nothing.sh does not exist" in second


def test_a_key_whose_name_is_too_long_does_not_exist(loaded: Loader) -> None:
    ssh = f"launch: {{ssh: {{user: admin, key_pair: me, private_key: {'k' * 300}}}}}\n"
    assert "does not exist" in "".join(messages(loaded(ssh)))
