"""What a machine without cloud-init does with user data, in all the forms in which it comes."""

from __future__ import annotations

import gzip
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from imagepipe.communicator import keys
from imagepipe.launch.user_data import user_data
from imagepipe.local.machines.driver import Seed
from imagepipe.local.machines.sshd.first_boot import Plan, plan

LOGIN = "ssh-ed25519 AAAAlogin me"


def of(data: bytes | str) -> Plan:
    body = data.encode() if isinstance(data, str) else data
    return plan(Seed("i-1", "ip-127-42-0-4", "us-east-1", body, (LOGIN,)))


def parts(*bodies: tuple[str, str]) -> bytes:
    whole = MIMEMultipart()
    for kind, body in bodies:
        whole.attach(MIMEText(body, kind))
    return whole.as_bytes()


def test_without_user_data_the_images_own_user_gets_the_key_pair_and_sudo() -> None:
    made = of("")
    [admin] = made.users
    assert (admin.name, admin.keys, admin.sudo) == ("admin", (LOGIN,), ("ALL=(ALL) NOPASSWD:ALL",))
    assert "sudo" in admin.groups
    assert (made.hostname, made.host_keys, made.host_key_kinds) == ("ip-127-42-0-4", {}, ("ed25519",))
    assert made.not_done == ()


@pytest.mark.parametrize("own", [None, "#cloud-config\nssh_keys: {}\nhostname: mine\n", "#!/bin/sh\ntrue\n"])
def test_the_host_key_that_imagepipe_gives_is_taken_whatever_else_a_spec_says(own: str | None) -> None:
    pair = keys.generate("host")
    made = of(user_data(pair, own))
    assert made.host_keys == {"ed25519_private": pair.private, "ed25519_public": pair.public}
    assert made.deletes_host_keys
    assert made.scripts == (("#!/bin/sh\ntrue\n",) if own and own.startswith("#!") else ())
    assert made.hostname == ("mine" if own and "mine" in own else "ip-127-42-0-4")


@pytest.mark.parametrize("wrap", [lambda body: body, gzip.compress], ids=["plain", "gzip"])
def test_parts_are_read_compressed_or_not_and_the_first_word_wins(wrap: object) -> None:
    assert callable(wrap)
    first = "#cloud-config\nhostname: first\nssh_authorized_keys: [ssh-ed25519 AAAAmore you]\n"
    second = "#cloud-config\nhostname: second\npackages: [nginx]\n"
    body = parts(("cloud-config", first), ("plain", second), ("x-shellscript", "#!/bin/sh\n"), ("cloud-boothook", "x"))
    made = of(wrap(body))
    assert made.hostname == "first"
    assert made.users[0].keys == (LOGIN, "ssh-ed25519 AAAAmore you")
    assert made.scripts == ("#!/bin/sh\n",)
    assert set(made.not_done) == {"packages of the cloud-config", "user data of type text/cloud-boothook"}


def test_users_that_are_named_are_made_and_without_default_the_images_own_is_not() -> None:
    config = "#cloud-config\nusers:\n- name: deploy\n  groups: sudo, adm\n  sudo: ALL=(ALL) ALL\n  shell: /bin/sh\n"
    [deploy] = of(config).users
    assert (deploy.name, deploy.keys, deploy.groups) == ("deploy", (), ("sudo", "adm"))
    assert (deploy.sudo, deploy.shell) == (("ALL=(ALL) ALL",), "/bin/sh")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("#cloud-config\n- a list\n", "a cloud-config that is no mapping"),
        ("#cloud-config\n{{", "a cloud-config that is no mapping"),
        ("just text", "user data of type text/plain"),
    ],
)
def test_unreadable_user_data_is_reported_and_hinders_nothing(data: str, said: str) -> None:
    assert of(data).not_done == (said,)
    assert of(data).users
    assert of(b"\x1f\x8bnot gzip").users
