"""Provisioners become steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import Convert, template

LINE = 12
"""Line of the first provisioner of a template."""


def _shell(options: str) -> str:
    return f'  provisioner "shell" {{\n{options}\n  }}'


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ('inline = ["id", "date"]', {"shell": "id\ndate"}),
        ('inline = ["echo $HOME"]', {"shell": {"inline": "echo $HOME", "interpreter": "/bin/sh -e"}}),
        ('inline = ["set -euo pipefail", "echo $HOME"]', {"shell": "set -euo pipefail\necho $HOME"}),
        (
            'inline = ["print(1)"]\n inline_shebang = "/usr/bin/python3"',
            {"shell": {"inline": "print(1)", "interpreter": "/usr/bin/python3"}},
        ),
        (
            'inline = ["id"]\n environment_vars = ["A=b=c", "D="]\n timeout = "90m"\n max_retries = 2',
            {"shell": "id", "env": {"A": "b=c", "D": ""}, "timeout": "90m", "retries": 2},
        ),
        ('inline = ["id"]\n env = { A = "b" }', {"shell": "id", "env": {"A": "b"}}),
        ('inline = ["id"]\n valid_exit_codes = [0, 3]', {"shell": "id", "exit_codes": [0, 3]}),
        ('inline = ["id"]\n execute_command = "sudo {{ .Vars }} {{ .Path }}"', {"shell": "id", "sudo": True}),
        ('inline = ["sudo reboot"]\n expect_disconnect = true', {"reboot": {}}),
        ('inline = ["echo bye", "sudo shutdown -r now"]\n timeout = "5m"', {"reboot": {"timeout": "5m"}}),
        (
            'inline = ["apt-get upgrade -y && reboot"]\n expect_disconnect = true',
            {"shell": "apt-get upgrade -y && reboot", "expect_disconnect": True},
        ),
        ('inline = ["id"]\n remote_folder = "/tmp"\n skip_clean = true\n binary = false', {"shell": "id"}),
        ('inline = ["id"]\n override = { "amazon-ebs.web" = { inline = ["date"] } }', {"shell": "date"}),
    ],
)
def test_a_shell_provisioner_is_a_shell_step(converted: Convert, options: str, step: dict[str, Any]) -> None:
    result = converted(template(steps=_shell(options)))
    assert result.listed == []
    assert result.steps == [step]


@pytest.mark.parametrize(
    ("head", "keys"),
    [
        ("#!/bin/bash\nid\n", {"interpreter": "/bin/bash"}),
        ("#!/usr/bin/env bash\nset -euo pipefail\nid\n", {}),
        ("#!/usr/bin/python3\nprint()\n", {"interpreter": "/usr/bin/python3"}),
        ("id\n", {"interpreter": "/bin/sh"}),
    ],
)
def test_a_script_keeps_its_interpreter(converted: Convert, tmp_path: Path, head: str, keys: dict[str, str]) -> None:
    (tmp_path / "a.sh").write_text(head)
    result = converted(template(steps=_shell('scripts = ["a.sh", "./a.sh"]')))
    assert result.listed == []
    assert result.steps == [{"shell": {"script": "../a.sh", **keys}}] * 2


def test_a_script_that_does_not_exist_is_left_out_and_the_others_stay(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("#!/bin/sh\nset -euo pipefail\n")
    result = converted(template(steps=_shell('scripts = ["none.sh", "a.sh", "nowhere/b.sh"]')))
    assert result.steps == [{"shell": {"script": "../a.sh"}}]
    assert [each.partition(";")[0] for each in result.listed] == [
        f"{LINE}: shell.script: file none.sh does not exist: the step is left out",
        f"{LINE}: shell.script: folder nowhere does not exist: the step is left out",
    ]
    assert "# TODO web.pkr.hcl:12: " in result.conversion.specs[0].text


def test_a_pause_is_a_sleep_but_not_after_a_reboot(converted: Convert) -> None:
    steps = "\n".join(
        [
            _shell('inline = ["id"]\n pause_before = "10s"'),
            _shell('inline = ["date"]\n pause_before = "1m"'),
            _shell('inline = ["sudo reboot"]\n expect_disconnect = true'),
            _shell('inline = ["uptime"]\n pause_before = "30s"'),
        ]
    )
    result = converted(template(steps=steps))
    assert result.steps == [
        *({"shell": "id"}, {"shell": "sleep 60"}, {"shell": "date"}, {"reboot": {}}, {"shell": "uptime"}),
    ]


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ('source = "app"\n destination = "/tmp"', {"src": "../app", "dest": "/tmp/"}),
        ('source = "app/"\n destination = "/opt/app"', {"src": "../app/", "dest": "/opt/app"}),
        ('source = "app/x"\n destination = "/opt/x"', {"src": "../app/x", "dest": "/opt/x"}),
        ('source = "app/x"\n destination = "/tmp"', {"src": "../app/x", "dest": "/tmp/"}),
        ('source = "app/x"\n destination = "x"', {"src": "../app/x", "dest": "/home/admin/x"}),
        ('source = "app/x"\n destination = "~/x"', {"src": "../app/x", "dest": "/home/admin/x"}),
        ('source = "${path.root}/app/x"\n destination = "/x/"', {"src": "../app/x", "dest": "/x/"}),
    ],
)
def test_a_file_provisioner_is_a_file_step(
    converted: Convert, tmp_path: Path, options: str, file: dict[str, str]
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/x").touch()
    result = converted(template(steps=f'provisioner "file" {{\n{options}\n}}'))
    assert result.listed == []
    assert result.steps == [{"file": file}]


def test_the_content_of_a_file_is_written_by_a_script(converted: Convert) -> None:
    steps = 'provisioner "file" {\n content = "a {{`{{`}}b\\n"\n destination = "/tmp/x y"\n}\n'
    steps += 'provisioner "file" {\n content = "it\'s"\n destination = "/tmp/x"\n}'
    result = converted(template(steps=steps))
    assert [each["shell"] for each in result.steps] == [
        "cat >'/tmp/x y' <<'END_OF_FILE'\na {{ '{{' }}b\nEND_OF_FILE\n",
        "printf %s 'it'\"'\"'s' >/tmp/x\n",
    ]


def test_ansible_runs_the_playbook_from_here(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("[]\n")
    steps = (
        'provisioner "ansible" {\n playbook_file = "site.yml"\n groups = ["web"]\n use_proxy = false\n'
        ' extra_arguments = ["--tags", "install"]\n ansible_env_vars = ["ANSIBLE_FORCE_COLOR=1"]\n}\n'
        'provisioner "ansible" {\n playbook_file = "site.yml"\n galaxy_file = "req.yml"\n}'
    )
    result = converted(template(steps=steps))
    assert result.steps == [
        {
            "ansible": {"playbook": "../site.yml", "groups": ["web"], "args": ["--tags", "install"]},
            "env": {"ANSIBLE_FORCE_COLOR": "1"},
        },
        {"ansible": "../site.yml"},
    ]
    assert len(result.listed) == 1
    assert "galaxy_file" in str(result.listed[0])


def test_ansible_local_uploads_the_playbook_and_runs_it(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("[]\n")
    (tmp_path / "roles/web").mkdir(parents=True)
    (tmp_path / "req.yml").write_text("[]\n")
    steps = (
        'provisioner "ansible-local" {\n playbook_file = "site.yml"\n role_paths = ["roles/web"]\n'
        ' galaxy_file = "req.yml"\n extra_arguments = ["--extra-vars", "\\"a=b\\""]\n staging_directory = "/tmp/s"\n}'
    )
    result = converted(template(steps=steps))
    assert result.listed == []
    assert result.steps == [
        {"name": "folders for Ansible", "shell": "mkdir -p /tmp/s /tmp/s/roles"},
        {"file": {"src": "../site.yml", "dest": "/tmp/s/site.yml"}},
        {"file": {"src": "../roles/web/", "dest": "/tmp/s/roles/web/"}},
        {"file": {"src": "../req.yml", "dest": "/tmp/s/req.yml"}},
        {
            "name": "Ansible",
            "shell": "cd /tmp/s\nansible-galaxy install -r /tmp/s/req.yml -p /tmp/s/roles\n"
            'ANSIBLE_FORCE_COLOR=1 PYTHONUNBUFFERED=1 ansible-playbook /tmp/s/site.yml --extra-vars "a=b"'
            " -c local -i 127.0.0.1,\n",
        },
    ]


@pytest.mark.parametrize(
    ("steps", "listed"),
    [
        ('provisioner "puppet-masterless" {\n manifest_file = "x.pp"\n}', "run puppet apply in a shell step"),
        ('provisioner "windows-restart" {\n}', "imagepipe supports Linux only"),
        ('provisioner "breakpoint" {\n}', "imagepipe build --keep-on-failure"),
        ('provisioner "shell-local" {\n inline = ["x"]\n}', "run the command before `imagepipe build`"),
        ('provisioner "made-up" {\n}', "run it in a shell step"),
        ('provisioner "file" {\n direction = "download"\n source = "/a"\n destination = "a"\n}', "`download`"),
        (_shell('inline = ["id"]\n execute_command = "sudo -u app {{ .Path }}"'), "set sudo, and shell.interpreter"),
        (_shell('inline = ["id"]\n expect_disconnect = true'), "set it only on a step that ends the connection"),
        (_shell('inline = ["id"]\n made_up = 1'), "shell's `made_up` has no counterpart"),
        (_shell('inline = ["id"]\n environment_vars = ["UID=1"]'), "the shell sets UID itself"),
        ('post-processor "manifest" {\n}', "`imagepipe build --format json`"),
        ('post-processors {\n post-processor "vagrant" {\n }\n}', "imagepipe makes Amazon images only"),
        ('error-cleanup-provisioner "shell" {\n inline = ["x"]\n}', "listed"),
    ],
)
def test_a_provisioner_without_a_counterpart_is_listed_at_its_line(converted: Convert, steps: str, listed: str) -> None:
    result = converted(template(steps=steps))
    assert len(result.listed) == 1
    assert listed in result.listed[0] or listed == "listed"
    assert LINE <= int(result.listed[0].partition(":")[0]) <= LINE + 3


def test_a_disabled_breakpoint_is_nothing(converted: Convert) -> None:
    result = converted(template(steps='provisioner "breakpoint" {\n disable = true\n}'))
    assert result.listed == []
    assert "provision" not in result.spec


def test_only_and_except_choose_the_steps_of_a_source(converted: Convert) -> None:
    first = template(
        steps=_shell('only = ["amazon-ebs.db"]\n inline = ["db"]')
        + "\n"
        + _shell('except = ["amazon-ebs.db"]\n inline = ["web"]')
    )
    second = template().split("build {")[0].replace('"web"', '"db"')
    text = first.replace('["source.amazon-ebs.web"]', '["source.amazon-ebs.web", "source.amazon-ebs.db"]') + second
    result = converted(text)
    assert result.listed == []
    assert {each["name"]: each["provision"] for each in result.documents} == {
        "web": [{"shell": "web"}],
        "db": [{"shell": "db"}],
    }
