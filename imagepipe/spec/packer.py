"""Packer's words, and what is written here instead: its users' first spec has them."""

from __future__ import annotations

WORDS = {
    "ami_block_device_mappings": "output.block_devices",
    "ami_description": "output.description",
    "ami_groups": "publish.share.public",
    "ami_name": "output.name",
    "ami_org_arns": "publish.share.organizations",
    "ami_ou_arns": "publish.share.ous",
    "ami_regions": "publish.regions",
    "ami_users": "publish.share.accounts",
    "ami_virtualization_type": "nothing: it is the source image's",
    "associate_public_ip_address": "nothing: the subnet decides",
    "breakpoint": "`imagepipe build --keep-on-failure`",
    "builders": "source, launch and output",
    "communicator": "launch.ssh",
    "custom_endpoint_ec2": "`imagepipe build --endpoint-url`, or `--local`",
    "destination": "dest",
    "encrypt_boot": "output.encrypt",
    "environment_vars": "env, a mapping, beside shell",
    "execute_command": "sudo: true, beside shell; and shell.interpreter",
    "expect_disconnect": "on_disconnect: expected",
    "force_deregister": "output.on_name_taken: replace",
    "imds_support": "output.imds",
    "inline": "shell, with a text or a list",
    "instance_type": "launch.instance_types, a list",
    "kms_key_id": "output.encrypt.kms_key",
    "launch_block_device_mappings": "launch.volumes",
    "max_retries": "retries",
    "metadata_options": "nothing: IMDSv2 is required",
    "most_recent": "source.ami.newest, which is the default",
    "post-processors": "`imagepipe build --json`",
    "provisioners": "provision",
    "region_kms_key_ids": "output.encrypt.per_region",
    "run_tags": "launch.tags",
    "scripts": "shell.script: one step for each",
    "security_group_id": "launch.security_groups, a list",
    "security_group_ids": "launch.security_groups",
    "sensitive-variables": "sensitive: true, in the variable",
    "source_ami": "source.ami",
    "source_ami_filter": "source.ami",
    "spot_price": "launch.spot.max_price",
    "ssh_bastion_host": "launch.ssh.bastion.host",
    "ssh_interface": "launch.ssh.address",
    "ssh_keypair_name": "launch.ssh.key_pair",
    "ssh_port": "launch.ssh.port",
    "ssh_private_key_file": "launch.ssh.private_key",
    "ssh_timeout": "launch.ssh.timeout",
    "ssh_username": "launch.ssh.user",
    "start_retry_timeout": "timeout",
    "subnet_filter": "launch.subnets, by tags",
    "subnet_id": "launch.subnets, a list",
    "temporary_key_pair_type": "nothing: it is ed25519",
    "user_data_file": "launch.user_data",
    "valid_exit_codes": "exit_codes",
}
"""Where a word is also one of ours (`source`, `script`), the nearest key says more."""


def hint(word: str) -> str | None:
    """What a user of Packer needs to know of a key that we do not have."""
    return f"in place of Packer's '{word}': {WORDS[word]}" if word in WORDS else None
