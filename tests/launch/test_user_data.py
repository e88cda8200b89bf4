from __future__ import annotations

from email import message_from_bytes

import pytest

from imagepipe.communicator import keys
from imagepipe.errors import UsageError
from imagepipe.launch.user_data import user_data

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
    with pytest.raises(UsageError, match="knows user data by its first line"):
        user_data(KEY, "echo hello\n")


def test_more_than_ec2_takes_is_refused_before_it_is_asked() -> None:
    with pytest.raises(UsageError, match=r"has 1[67]\d{3} bytes, and EC2 takes 16384"):
        user_data(KEY, "#!/bin/sh\n" + "a" * 15990)
