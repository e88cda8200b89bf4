"""Templates as files: HCL2, legacy JSON, HCL2 in JSON, folders, variable files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagepipe.convert.conversion import convert
from imagepipe.errors import SpecError

from .conftest import BUILD, SOURCE, Convert, template

LEGACY = {
    "variables": {
        "greeting": "hello",
        "key": "{{env `KEY`}}",
        "stamped": "{{user `greeting`}}-{{timestamp}}",
        "needed": None,
    },
    "sensitive-variables": ["key"],
    "builders": [
        {
            "type": "amazon-ebs",
            "region": "us-east-1",
            "source_ami_filter": {
                "filters": {"name": "debian-12-*"},
                "owners": ["136693071363"],
                "most_recent": True,
            },
            "instance_type": "t3.small",
            "ssh_username": "admin",
            "ami_name": "web-{{user `stamped`}}",
            "imds_support": "v2.0",
            "ami_regions": "us-west-2,eu-west-1",
        },
        {"type": "virtualbox-iso", "name": "box"},
    ],
    "provisioners": [
        {
            "type": "shell",
            "inline": ["echo {{user `greeting`}} {{ user \"needed\" }}"],
            "environment_vars": ["KEY={{user `key`}}"],
            "only": ["amazon-ebs"],
        },
        {"type": "shell", "inline": ["never"], "only": ["box"]},
    ],
    "post-processors": ["vagrant", [{"type": "manifest"}]],
}  # fmt: skip


def test_a_legacy_template_is_converted(converted: Convert) -> None:
    result = converted(json.dumps(LEGACY, indent=2), "web.json")
    assert [each.partition(": ")[2].partition(":")[0] for each in result.listed] == [
        "source `virtualbox-iso.box`",
        "post-processor `vagrant`",
        "post-processor `manifest`",
    ]
    assert result.spec == {
        "imagepipe": 1,
        "name": "web",
        "variables": {
            "greeting": {"default": "hello"},
            "key": {"default": "", "env": "KEY", "sensitive": True},
            "needed": {},
        },
        "source": {"ami": {"name": "debian-12-*", "owners": ["136693071363"]}},
        "launch": {"region": "us-east-1", "instance_types": ["t3.small"], "ssh": {"user": "admin"}},
        "provision": [
            {"shell": "echo {{ var.greeting }} {{ var.needed }}", "env": {"KEY": "{{ var.key }}"}},
        ],
        "output": {"name": "web-{{ var.greeting }}-{{ build.timestamp }}"},
        "publish": {"regions": ["us-west-2", "eu-west-1"]},
    }


def test_a_variable_that_a_legacy_template_does_not_declare_is_required(converted: Convert) -> None:
    builder = {**LEGACY["builders"][0], "ami_name": "{{user `made`}}-{{user `outer`}}"}  # type: ignore[index]
    legacy = {"variables": {"outer": "{{user `inner`}}", "inner": "{{user `no`}}x"}, "builders": [builder]}
    result = converted(json.dumps(legacy), "web.json")
    assert result.listed == []
    assert result.spec["variables"] == {"made": {}, "no": {}}
    assert result.spec["output"]["name"] == "{{ var.made }}-{{ var.no }}x"


def test_hcl2_in_json_is_converted(converted: Convert) -> None:
    value = {
        "//": "a comment",
        "variable": {"greeting": {"default": "hello"}},
        "locals": {"twice": "${var.greeting}${var.greeting}"},
        "source": {
            "amazon-ebs": {
                "web": {
                    "region": "us-east-1",
                    "source_ami": "ami-0123456789abcdef0",
                    "instance_type": "t3.small",
                    "ssh_username": "admin",
                    "ami_name": "web-{{timestamp}}",
                    "imds_support": "v2.0",
                    "tags": {"a": "${local.twice}"},
                }
            }
        },
        "build": {
            "sources": ["source.amazon-ebs.web"],
            "provisioner": [{"shell": {"inline": ["id"]}}, {"shell": {"inline": ["date"]}}],
        },
    }
    result = converted(json.dumps(value), "web.pkr.json")
    assert result.listed == []
    assert result.steps == [{"shell": "id"}, {"shell": "date"}]
    assert result.spec["output"]["tags"] == {"a": "{{ var.greeting }}{{ var.greeting }}"}


def test_the_files_of_a_folder_are_one_template(tmp_path: Path) -> None:
    folder = tmp_path / "packer"
    folder.mkdir()
    (folder / "a.pkr.hcl").write_text(BUILD % "")
    (folder / "b.pkr.hcl").write_text(SOURCE % "tags = { s = var.stage }")
    (folder / "c.pkr.hcl").write_text('variable "stage" {\n  default = "test"\n}\n')
    (folder / "x.auto.pkrvars.hcl").write_text('stage = "prod"\n')
    (folder / "not-read.hcl").write_text("(")
    conversion = convert(folder, tmp_path / "specs", working=tmp_path)
    assert conversion.problems == ()
    assert "stage: {default: prod}" in conversion.specs[0].text


def test_variable_files_give_the_defaults(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "one.pkrvars.hcl").write_text('stage = "one"\n')
    (tmp_path / "two.json").write_text('{"stage": "two"}')
    text = template("tags = { s = var.stage }", before='variable "stage" {\n  type = string\n}\n')
    for names, value in ((["one.pkrvars.hcl"], "one"), (["one.pkrvars.hcl", "two.json"], "two")):
        files = tuple(tmp_path / name for name in names)
        assert converted(text, var_files=files).spec["variables"] == {"stage": {"default": value}}


def test_a_build_can_add_options_to_a_source_and_use_it_twice(converted: Convert) -> None:
    build = """\
build {
  name = "second"
  source "amazon-ebs.web" {
    name          = "web2"
    instance_type = "t3.large"
  }
}
build {
  name    = "third"
  sources = ["amazon-ebs.web"]
}
"""
    result = converted(template() + build)
    assert result.listed == []
    assert [(each["name"], each["launch"]["instance_types"]) for each in result.documents] == [
        ("web", ["t3.small"]),
        ("web2", ["t3.large"]),
        ("third-web", ["t3.small"]),
    ]


def test_a_dynamic_block_is_expanded(converted: Convert) -> None:
    before = 'locals {\n  sizes = { "/dev/sdf" = 8, "/dev/sdg" = 9 }\n}\n'
    options = """\
  dynamic "launch_block_device_mappings" {
    for_each = local.sizes
    iterator = each
    content {
      device_name = each.key
      volume_size = each.value
    }
  }"""
    result = converted(template(options, before=before))
    assert result.listed == []
    assert result.spec["launch"]["block_devices"] == [
        {"device": "/dev/sdf", "size_gib": 8},
        {"device": "/dev/sdg", "size_gib": 9},
    ]


def test_a_script_is_found_in_the_working_directory_and_in_a_parent(tmp_path: Path) -> None:
    (tmp_path / "repo/packer").mkdir(parents=True)
    (tmp_path / "repo/one.sh").write_text("#!/bin/sh\nset -euo pipefail\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/two.sh").write_text("#!/bin/sh\nset -euo pipefail\n")
    file = tmp_path / "repo/packer/web.pkr.hcl"
    file.write_text(template(steps='provisioner "shell" {\n scripts = ["one.sh", "two.sh"]\n}'))
    conversion = convert(file, tmp_path / "repo/specs", working=tmp_path / "elsewhere")
    assert conversion.problems == ()
    assert "script: ../one.sh" in conversion.specs[0].text
    assert "script: ../../elsewhere/two.sh" in conversion.specs[0].text


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "x.pkr.hcl", "the file is empty"),
        (" \n", "x.json", "the file is empty"),
        ("{}", "x.json", "not a Packer template"),
        ("[1]", "x.json", "not a Packer template"),
        ('{"builders": []', "x.json", "the file ends too early"),
        ("a = 1\n", "x.pkr.hcl", "not a Packer template: it has no source and no build"),
        ("a = \n", "x.pkr.hcl", "a value is expected here"),
        ("a\0b", "x.pkr.hcl", "is not allowed in a template"),
        ("\U0010ff00", "x.pkr.hcl", "is not allowed in a template"),
    ],
)
def test_a_file_that_is_no_template_is_refused(converted: Convert, text: str, name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("(", r"\(")):
        converted(text, name)


def test_bytes_that_are_not_utf_8_are_refused_at_their_position(tmp_path: Path) -> None:
    file = tmp_path / "x.pkr.hcl"
    file.write_bytes(b"# a\n#\xff\n")
    with pytest.raises(SpecError, match=r"x\.pkr\.hcl:2:2: not UTF-8: byte 0xff"):
        convert(file, tmp_path, working=tmp_path)


def test_a_source_without_a_build_is_listed(converted: Convert) -> None:
    result = converted(SOURCE % "")
    assert result.documents == ()
    assert "is used by no build" in result.listed[0]
