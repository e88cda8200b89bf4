"""Options of a source become source, launch, output and publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import BUILD, Convert, template

AMI_DATA = """\
data "amazon-ami" "base" {
  filters     = { name = "debian-12-*", virtualization-type = "hvm" }
  owners      = ["136693071363"]
  most_recent = true
}
"""


def test_the_smallest_source_is_complete(converted: Convert) -> None:
    result = converted(template())
    assert result.listed == []
    assert result.spec == {
        "imagepipe": 1,
        "name": "web",
        "source": {"ami": "ami-0123456789abcdef0"},
        "launch": {"region": "us-east-1", "instance_types": ["t3.small"], "ssh": {"user": "admin"}},
        "output": {"name": "web-{{ build.timestamp }}"},
    }


@pytest.mark.parametrize(
    ("options", "path", "value"),
    [
        ('subnet_id = "subnet-01234567"', "launch.subnets", ["subnet-01234567"]),
        ('subnet_filter {\n filters = { "tag:Tier" = "build" }\n }', "launch.subnets", [{"tags": {"Tier": "build"}}]),
        ('security_group_ids = ["sg-01234567"]', "launch.security_groups", ["sg-01234567"]),
        ('security_group_id = "sg-01234567"', "launch.security_groups", ["sg-01234567"]),
        ('temporary_security_group_source_cidrs = ["10.0.0.0/8"]', "launch.ssh.allow_from", ["10.0.0.0/8"]),
        ('iam_instance_profile = "builder"', "launch.iam_instance_profile", "builder"),
        ('spot_price = "auto"', "launch.spot", {"fallback": False}),
        ('spot_price = "0.05"', "launch.spot", {"max_price": "0.05", "fallback": False}),
        ('user_data = "#cloud-config\\n{}\\n"', "launch.user_data", "#cloud-config\n{}\n"),
        ('run_tags = { a = "b" }', "launch.tags", {"a": "b"}),
        ('run_tag {\n key = "a"\n value = "b"\n }', "launch.tags", {"a": "b"}),
        ("ssh_port = 2222", "launch.ssh.port", 2222),
        ('ssh_interface = "private_ip"', "launch.ssh.address", "private_ip"),
        ('ssh_timeout = "10m"', "launch.ssh.timeout", "10m"),
        (
            'launch_block_device_mappings {\n device_name = "/dev/xvda"\n volume_size = 8\n volume_type = "gp3"\n'
            " iops = 3000\n throughput = 125\n delete_on_termination = true\n encrypted = true\n }",
            "launch.block_devices",
            [
                {
                    "device": "/dev/xvda", "size_gib": 8, "type": "gp3", "iops": 3000, "throughput": 125,
                    "encrypted": True, "delete_on_termination": True,
                }
            ],
        ),
        (
            'ami_block_device_mappings {\n device_name = "/dev/sdf"\n virtual_name = "ephemeral0"\n }',
            "output.block_devices",
            [{"device": "/dev/sdf", "virtual_name": "ephemeral0"}],
        ),
        ('launch_block_device_mappings {\n device_name = "/dev/sdf"\n no_device = true\n }', "launch.block_devices",
         [{"device": "/dev/sdf", "no_device": True}]),
        ('ami_description = "a web server"', "output.description", "a web server"),
        ('tags = { team = "web" }', "output.tags", {"team": "web"}),
        ("encrypt_boot = true", "output.encrypt", True),
        ('encrypt_boot = true\n kms_key_id = "alias/a"', "output.encrypt", {"kms_key": "alias/a"}),
        ('boot_mode = "uefi"', "output.boot_mode", "uefi"),
        ("force_deregister = true\n force_delete_snapshot = true", "output.on_name_taken", "replace"),
        ('ami_regions = ["us-west-2", "us-west-2"]', "publish.regions", ["us-west-2"]),
        ('ami_users = ["123456789012"]', "publish.share.accounts", ["123456789012"]),
        ('ami_groups = ["all"]', "publish.share.public", True),
        ('deprecate_at = timeadd(timestamp(), "48h")', "publish.deprecate_after", "2d"),
        ("deregistration_protection {\n enabled = true\n }", "publish.deregistration_protection", True),
    ],
)  # fmt: skip
def test_an_option_has_its_key(converted: Convert, options: str, path: str, value: Any) -> None:
    result = converted(template(options))
    assert result.listed == []
    found = result.spec
    for key in path.split("."):
        found = found[key]
    assert found == value


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        ('vpc_id = "vpc-1"', "`vpc_id` has no counterpart: name subnets of the VPC in launch.subnets"),
        ('availability_zone = "us-east-1a"', "name a subnet in that zone"),
        ('snapshot_users = ["123456789012"]', "publish.share.accounts"),
        ('profile = "builder"', "set it in the AWS session, or use --profile"),
        ('ssh_interface = "session_manager"', "use SSH to a public or private address"),
        ('ssh_bastion_host = "b"\n ssh_bastion_username = "u"', "set launch.ssh.bastion, with the host key"),
        ('made_up = "x"', "`made_up` is not known"),
        ('snapshot_tags = { a = "b" }', "output.tags is for the image and its snapshots"),
        ('deprecate_at = "2030-01-01T00:00:00Z"', "set publish.deprecate_after"),
        ('ami_users = ["me"]', "an account id has 12 digits"),
        ('launch_block_device_mappings {\n device_name = "nvme"\n }', "not a device name of EC2"),
        ('ssh_keypair_name = "k"', "set both launch.ssh.key_pair and launch.ssh.private_key"),
        ('ssh_keypair_name = "k"\n ssh_private_key_file = "k.pem"', "file k.pem does not exist"),
        ('encrypt_boot = true\n ami_groups = ["all"]', "an encrypted image cannot be public"),
        ('user_data_file = "none"', "create the file and convert again"),
        ('ssh_timeout = "soon"', "write it as 90s, 5m or 2h"),
    ],
)
def test_an_option_without_a_counterpart_is_listed_with_the_way_out(
    converted: Convert, options: str, listed: str
) -> None:
    result = converted(template(options))
    assert len(result.documents) == 1
    assert any(listed in each for each in result.listed), result.listed
    line = template().split("\n").index('  imds_support  = "v2.0"') + 2
    assert any(each.startswith((f"{line}:", f"{line + 1}:")) for each in result.listed), result.listed


def test_a_filter_is_a_filter(converted: Convert) -> None:
    options = (
        'source_ami_filter {\n filters = { name = "debian-12-*", root-device-type = "ebs", architecture = "x86_64" }\n'
        ' owners = ["136693071363"]\n }'
    )
    text = template(options).replace('  source_ami    = "ami-0123456789abcdef0"\n', "")
    result = converted(text)
    assert result.listed == []
    assert result.spec["source"]["ami"] == {
        "name": "debian-12-*",
        "owners": ["136693071363"],
        "architecture": "x86_64",
        "most_recent": False,
    }


def test_a_data_source_is_a_filter_and_its_name_is_that_of_the_source(converted: Convert) -> None:
    text = template("tags = { base = data.amazon-ami.base.name, id = data.amazon-ami.base.id }", before=AMI_DATA)
    result = converted(text.replace('"ami-0123456789abcdef0"', "data.amazon-ami.base.id"))
    assert result.listed == []
    assert result.spec["source"]["ami"] == {"name": "debian-12-*", "owners": ["136693071363"]}
    assert result.spec["output"]["tags"] == {"base": "{{ source.name }}", "id": "{{ source.id }}"}


def test_a_parameter_of_ssm_is_one(converted: Convert) -> None:
    before = 'data "amazon-parameterstore" "base" {\n  name = "/images/base"\n}\n'
    text = template(before=before).replace('"ami-0123456789abcdef0"', "data.amazon-parameterstore.base.value")
    assert converted(text).spec["source"]["ami"] == {"ssm": "/images/base"}


def test_an_option_whose_variable_is_empty_is_left_out_and_listed(converted: Convert) -> None:
    before = 'variable "subnet" { default = "" }\n'
    result = converted(template("subnet_id = var.subnet", before=before))
    assert "subnets" not in result.spec["launch"]
    assert result.listed == [
        "9: amazon-ebs.web's `subnet_id` is empty by default (var.subnet) and left out: set launch.subnets, a list"
    ]


def test_a_required_option_whose_variable_is_empty_makes_the_variable_required(converted: Convert) -> None:
    text = template(before='variable "ami" { default = "" }\n').replace('"ami-0123456789abcdef0"', "var.ami")
    result = converted(text)
    assert result.listed == []
    assert result.spec["variables"] == {"ami": {}}
    assert result.spec["source"] == {"ami": "{{ var.ami }}"}


def test_variables_keep_their_description_allowed_values_environment_and_secrecy(converted: Convert) -> None:
    before = """\
variable "stage" {
  default     = "prod"
  description = "the stage"
  validation {
    condition     = contains(["prod", "test"], var.stage)
    error_message = "no"
  }
}
variable "token" {
  default   = env("TOKEN")
  sensitive = true
}
"""
    steps = 'provisioner "shell" {\n inline = ["run ${var.stage}"]\n environment_vars = ["T=${var.token}"]\n }'
    result = converted(template(steps=steps, before=before))
    assert result.listed == []
    assert result.spec["variables"] == {
        "stage": {"default": "prod", "description": "the stage", "allowed": ["prod", "test"]},
        "token": {"default": "", "env": "TOKEN", "sensitive": True},
    }


def test_a_secret_in_a_tag_is_left_out_and_listed(converted: Convert) -> None:
    before = 'variable "token" {\n  sensitive = true\n}\n'
    result = converted(template("tags = { t = var.token, u = 1 }", before=before))
    assert result.spec["output"]["tags"] == {"u": "1"}
    assert "var.token is sensitive and cannot be used here" in result.listed[0]


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        (('  ssh_username  = "admin"\n', ""), "has no `ssh_username`"),
        (('  source_ami    = "ami-0123456789abcdef0"\n', ""), "has no source image"),
        (('"web-{{timestamp}}"', '"web:1"'), "cannot have ':'"),
        (('"admin"', '"admin"\n  communicator = "winrm"'), "imagepipe supports Linux over SSH"),
        (('"ami-0123456789abcdef0"', '"ami-1"'), "an image id is ami-"),
    ],
)
def test_a_source_that_cannot_be_built_gives_no_spec_and_says_why(
    converted: Convert, change: tuple[str, str], listed: str
) -> None:
    result = converted(template().replace(*change))
    assert result.documents == ()
    assert any(listed in each and "no spec is written for amazon-ebs.web" in each for each in result.listed)


def test_an_instance_store_source_has_its_bucket_account_and_certificate(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("certificate")
    (tmp_path / "key.pem").write_text("key")
    options = (
        'account_id = "1234-5678-9012"\n s3_bucket = "my-images/web"\n x509_cert_path = "cert.pem"\n'
        ' x509_key_path = "key.pem"\n x509_upload_path = "/tmp"'
    )
    text = template(options).replace("amazon-ebs", "amazon-instance").replace("t3.small", "m3.medium")
    result = converted(text)
    assert result.listed == []
    assert result.spec["output"] == {
        "type": "instance-store",
        "name": "web-{{ build.timestamp }}",
        "bucket": "my-images",
        "prefix": "web",
        "account": "123456789012",
        "certificate": "../cert.pem",
        "private_key": "../key.pem",
    }


def test_other_builders_are_listed(converted: Convert) -> None:
    text = 'source "googlecompute" "g" {\n}\n' + BUILD.replace("amazon-ebs.web", "googlecompute.g") % ""
    result = converted(text)
    assert result.documents == ()
    assert result.listed == [
        "1: source `googlecompute.g`: keep Packer for it: imagepipe builds Amazon Machine Images only"
    ]


def test_no_value_of_a_sensitive_variable_gets_into_a_spec(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "secret.pkrvars.hcl").write_text('token = "hunter2varfile"\n', encoding="utf-8")
    before = (
        'variable "token" {\n  sensitive = true\n}\n'
        'variable "other" {\n  sensitive = true\n  default = "hunter2default"\n}\n'
    )
    options = 'user_data = base64encode("x ${var.token} ${var.other}")'
    steps = 'provisioner "shell" {\n inline = ["run"]\n environment_vars = ["T=${var.token}", "O=${var.other}"]\n }'
    result = converted(template(options, steps, before), var_files=(tmp_path / "secret.pkrvars.hcl",))
    assert "hunter2" not in f"{result.spec} {result.listed}"
    assert {"sensitive": True} == result.spec["variables"]["token"] == result.spec["variables"]["other"]
    assert any("IMAGEPIPE_VAR_token" in line for line in result.listed)
