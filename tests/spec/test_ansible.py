"""Ansible steps as a spec has them: their short form, their mistakes, and the files that they read."""

from __future__ import annotations

import pytest

from imagepipe.inputs.collect import names_of_step
from imagepipe.spec.step_models import AnsibleStep
from imagepipe.spec.titles import step_title
from tests.spec.conftest import Loader

FILES = {"play/site.yml": "- hosts: all\n", "play/roles/web/tasks/main.yml": "[]\n", "play/other.txt": "no\n"}


def test_a_path_is_the_short_form_and_the_files_beside_the_playbook_are_its_inputs(loaded: Loader) -> None:
    spec = loaded("provision: [{ansible: play/site.yml}]\n", files=FILES)
    assert not spec.problems
    (at,) = spec.steps
    assert isinstance(at.step, AnsibleStep)
    assert at.step.ansible.run == "here"
    assert step_title(at.step) == "site.yml"
    assert names_of_step(at) == ("play/site.yml", "play/roles")


def test_named_files_replace_those_that_ansible_looks_for(loaded: Loader) -> None:
    text = "provision: [{ansible: {playbook: play/site.yml, files: [other.txt]}}]\n"
    spec = loaded(text, files=FILES)
    assert not spec.problems
    assert names_of_step(spec.steps[0]) == ("play/site.yml", "play/other.txt")


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ("play/sit.yml", "provision.0.ansible.playbook", "file play/sit.yml does not exist"),
        ("play", "provision.0.ansible.playbook", "play is not a regular file"),
        ("{playbook: play/site.yml, files: [rules]}", "provision.0.ansible.files.0", "file rules does not exist"),
        ("{playbook: play/site.yml, files: [../web.yaml]}", "provision.0.ansible.files.0", "is not below"),
        ("{playbook: play/site.yml, run: there}", "provision.0.ansible.run", "must be 'here' or 'machine'"),
        ("{extra_vars: {a: 1}}", "provision.0.ansible", "key 'playbook' is required"),
    ],
)
def test_each_mistake_has_its_place(loaded: Loader, value: str, path: str, message: str) -> None:
    (problem,) = loaded(f"provision:\n  - ansible: {value}\n", files=FILES).problems
    assert message in problem.message
    assert problem.path == path


@pytest.mark.parametrize("group", ["all", "machine", "ungrouped", "", "a b", "0web"])
def test_a_group_that_would_break_the_inventory_is_refused(loaded: Loader, group: str) -> None:
    text = f"provision: [{{ansible: {{playbook: site.yml, groups: [web, '{group}']}}}}]\n"
    (problem,) = loaded(text, files={"site.yml": "- hosts: all\n"}).problems
    assert f"'{group}' cannot be a group of the inventory" in problem.message
    assert problem.path == "provision.0.ansible.groups.1"
