from __future__ import annotations

import base64
import gzip
import random
from email import message_from_bytes, message_from_string

import pytest

from imagepipe.communicator import keys
from imagepipe.communicator.keys import KeyPair
from imagepipe.errors import UsageError
from imagepipe.launch.user_data import user_data
from imagepipe.spec.user_data import kind_of, user_data_problem

KEY = keys.generate("imagepipe")


def _kinds(own: str) -> list[str]:
    message = message_from_bytes(user_data(KEY, own))
    assert message.get_content_type() == "multipart/mixed"
    return [part.get_content_type() for part in message.get_payload()]  # type: ignore[union-attr]


def test_without_a_word_of_the_specs_own_it_is_cloud_config_with_the_host_key() -> None:
    assert user_data(KEY, None).startswith(b"#cloud-config\n{")


def test_without_a_host_key_it_is_the_specs_own_untouched() -> None:
    assert user_data(None, "#!/bin/sh\necho é\n") == "#!/bin/sh\necho é\n".encode()
    assert user_data(None, None) == b""


@pytest.mark.parametrize(
    ("own", "kind"),
    [
        ("#!/bin/sh\ntrue\n", "text/x-shellscript"),
        ("#cloud-config\npackages: [jq]\n", "text/cloud-config"),
        ("#cloud-boothook\n#!/bin/sh\n", "text/cloud-boothook"),
        ("#include\nhttps://example.org/a\n", "text/x-include-url"),
        ("#include-once\nhttps://example.org/a\n", "text/x-include-once-url"),
        ("## template: jinja\n#cloud-config\n", "text/jinja2"),
    ],
)
def test_a_script_or_config_of_the_specs_own_comes_as_a_part_after_ours(own: str, kind: str) -> None:
    assert _kinds(own) == ["text/cloud-config", kind]


def test_parts_of_a_mime_message_come_after_ours() -> None:
    own = 'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n\n--x\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n--x\nContent-Type: text/cloud-config\n\n#cloud-config\n--x--\n'  # noqa: E501
    assert _kinds(own) == ["text/cloud-config", "text/x-shellscript", "text/cloud-config"]


def test_letters_beyond_ascii_arrive_as_they_are() -> None:
    part = message_from_bytes(user_data(KEY, "#!/bin/sh\necho é\n")).get_payload(1)
    assert part.get_payload(decode=True).decode() == "#!/bin/sh\necho é\n"  # type: ignore[union-attr]


def test_what_cloud_init_would_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="recognizes user data by its first line"):
        user_data(KEY, "echo hello\n")


def test_more_than_ec2_takes_is_compressed_and_refused_if_that_is_too_long() -> None:
    long = user_data(KEY, "#!/bin/sh\n" + "a" * 30000)
    assert len(long) < 1000
    assert long.startswith(b"\x1f\x8b")
    with pytest.raises(UsageError, match=r"has [12]\d{4} bytes compressed; EC2's limit is 16384"):
        user_data(KEY, "#!/bin/sh\n" + base64.b64encode(random.Random(1).randbytes(20000)).decode())


def _mime(*parts: str, head: str = "") -> str:
    joined = "".join(f"--x\n{part}\n" for part in parts)
    return f'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n{head}\n{joined}--x--\n'


SCRIPT = "#!/bin/sh\necho größe\n"
PACKED = base64.b64encode(gzip.compress(SCRIPT.encode(), mtime=0)).decode()


@pytest.mark.parametrize("key", [KEY, None], ids=["user-data", "console"])
@pytest.mark.parametrize(
    ("own", "parts"),
    [
        (SCRIPT, [("x-shellscript", SCRIPT)]),
        ("\n\n" + SCRIPT, [("x-shellscript", SCRIPT)]),
        (base64.encodebytes(SCRIPT.encode()).decode(), [("x-shellscript", SCRIPT)]),
        (PACKED, [("x-shellscript", SCRIPT)]),
        ("#!/bin/sh\r\necho a\rb\n", [("x-shellscript", "#!/bin/sh\r\necho a\rb\n")]),
        ("#!/bin/sh\n: " + "a" * 2000, [("x-shellscript", "#!/bin/sh\n: " + "a" * 2000)]),
        ("#!/bin/sh\n--==imagepipe==\nFrom me\n.\n", [("x-shellscript", "#!/bin/sh\n--==imagepipe==\nFrom me\n.\n")]),
        ("#cloud-config\nx: 'MIME-Version: 1.0'\n", [("cloud-config", "#cloud-config\nx: 'MIME-Version: 1.0'\n")]),
        ("#Cloud-Config\nx: 1\n", [("cloud-config", "#Cloud-Config\nx: 1\n")]),
        ("#cloud-config\n{}", [("cloud-config", "#cloud-config\n{}")]),
        ("#cloud-config\n", [("cloud-config", "#cloud-config\n")]),
        (
            _mime(
                f"Content-Type: text/x-shellscript\nLaunch-Index: 0\n\n{SCRIPT}",
                f"Content-Type: application/x-gzip\nContent-Transfer-Encoding: base64\n\n{PACKED}",
                f"Content-Type: text/plain\n\n{SCRIPT}",
                "Content-Type: text/x-shellscript-per-boot\n\n#!/bin/sh\n",
            ),
            [("x-shellscript", SCRIPT[:-1])] * 3 + [("x-shellscript-per-boot", "#!/bin/sh")],
        ),
        (
            "Content-Type: text/x-shellscript; charset=iso-8859-1\nContent-Transfer-Encoding: base64\n\n"
            + base64.b64encode(SCRIPT.encode("latin-1")).decode(),
            [("x-shellscript", SCRIPT)],
        ),
    ],
)
def test_cloud_init_gets_every_part_byte_for_byte(key: KeyPair | None, own: str, parts: list[tuple[str, str]]) -> None:
    assert user_data_problem(own, gives_host_key=key is not None) is None
    data = user_data(key, own)
    found = as_cloud_init_reads(data)
    assert [(kind, text.rstrip("\n")) for kind, text in found[1 if key else 0 :]] == [
        (f"text/{kind}", text.rstrip("\n")) for kind, text in parts
    ]
    if "Launch-Index" in own:
        assert b"Launch-Index: 0" in data


def as_cloud_init_reads(data: bytes) -> list[tuple[str, str]]:
    """Its `user_data.convert_string` and `util.fully_decoded_payload`, since 0.7.7."""
    data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    if b"mime-version:" not in data[:4096].lower():
        return [(f"text/{kind_of(data)}", data.decode())]
    found = []
    for part in message_from_string(data.decode()).walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            found.append((part.get_content_type(), payload.decode("utf-8", "surrogateescape")))
    return found


@pytest.mark.parametrize("gives_host_key", [True, False])
@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ("echo hello\n", "cloud-init recognizes user data by its first line"),
        ("aGVsbG8=", "cloud-init recognizes user data by its first line"),
        (base64.b64encode(gzip.compress(b"hello", mtime=0)).decode(), "cloud-init recognizes user data"),
        (base64.b64encode(gzip.compress(SCRIPT.encode(), mtime=0)[:-9]).decode(), "cut off"),
        (base64.b64encode(gzip.compress(b"#!" + bytes(2_000_000), mtime=0)).decode(), "larger than 1 MiB"),
        (base64.b64encode(b"#!/bin/sh\necho \xf6\n").decode(), "it is not UTF-8: byte 0xf6"),
        ("#cloud-config\na: [\n", "line 3 of the cloud-config is not YAML"),
        ("#cloud-config\n- a\n", "a cloud-config is a mapping"),
        ("#cloud-config\nx: a\tb: c: d\n", "is not YAML"),
        ("#cloud-config\npower_state: {mode: reboot}\n", "power_state would stop or reboot"),
        ("#cloud-config-archive\n- {content: 'power_state: {}', type: text/cloud-config}\n", "power_state would stop"),
        ('#cloud-config-archive\n- "#cloud-config\\npower_state: {mode: halt}"\n', "power_state would stop"),
        ("#cloud-config-archive\na: b\n", "a cloud-config-archive is a list"),
        ("#cloud-config-jsonp\n[{'op': 1}]\n", "is not JSON"),
        ('#cloud-config-jsonp\n[{"op": "add", "path": "/power_state", "value": {}}]\n', "power_state would stop"),
        ("## template: jinja\nhello\n", "below '## template: jinja'"),
        (_mime("Content-Type: text/html\n\n<p>"), "a part of type text/html"),
        (_mime("Content-Type: text/plain\n\nhello"), "a part of type text/plain"),
        (_mime("Content-Type: text/cloud-config\n\npower_state: {mode: poweroff}"), "power_state would stop"),
        (_mime("Content-Type: text/cloud-config\n\na: ["), "is not YAML"),
        ("Content-Type: multipart/mixed; boundary=y\nMIME-Version: 1.0\n\n--x\n\n#!/bin/sh\n--x--\n", "boundaries"),
    ],
)
def test_what_cloud_init_would_ignore_is_a_problem_with_every_kind_of_host_key(
    own: str, problem: str, *, gives_host_key: bool
) -> None:
    assert problem in (user_data_problem(own, gives_host_key=gives_host_key) or "none")


def test_a_config_that_sets_the_host_keys_is_a_problem_where_the_build_does() -> None:
    own = "#cloud-config\nssh_deletekeys: false\n"
    assert "ssh_deletekeys: the build gives" in (user_data_problem(own, gives_host_key=True) or "none")
    assert user_data_problem(own, gives_host_key=False) is None


def test_ignition_is_passed_on_where_the_build_adds_nothing() -> None:
    own = '{"ignition": {"version": "3.4.0"}}'
    assert user_data_problem(own, gives_host_key=False) is None
    assert user_data(None, own) == own.encode()
    assert user_data_problem(own, gives_host_key=True)
