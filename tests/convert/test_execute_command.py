"""An execute_command says who runs a script, and with which interpreter."""

from __future__ import annotations

import pytest

from imagepipe.convert.execute_command import Execution, read_execute_command

PLAIN, SUDO = Execution(False, None), Execution(True, None)


@pytest.mark.parametrize(
    ("command", "meaning"),
    [
        ("chmod +x {{ .Path }}; {{ .Vars }} {{ .Path }}", PLAIN),
        ("{{.Vars}} {{.Path}}", PLAIN),
        ("chmod +x {{ .Path }}; sudo {{ .Vars }} {{ .Path }}", SUDO),
        ("sudo -E {{ .Path }}", SUDO),
        ("echo 'packer' | sudo -S env {{ .Vars }} {{ .Path }}", SUDO),
        ("echo packer | {{ .Vars }} sudo -S -E {{ .Path }}", SUDO),
        ("sudo sh -c '{{ .Vars }} {{ .Path }}'", SUDO),
        ("sudo -S sh -c '{{ .Vars }} {{ .Path }}'", SUDO),
        ("sudo -E -H bash -c '{{ .Vars }} {{ .Path }}'", SUDO),
        ("sudo sh -c 'chmod +x {{ .Path }}; {{ .Vars }} {{ .Path }}'", SUDO),
        ("{{ .Vars }} sudo -E bash '{{ .Path }}'", Execution(True, "bash")),
        ("{{ .Vars }} /bin/bash -eux {{ .Path }}", Execution(False, "/bin/bash -eux")),
        ("sudo {{ .Vars }} python3 {{ .Path }}", Execution(True, "python3")),
        ("sudo -u postgres {{ .Path }}", None),
        ("su - app -c '{{ .Path }}'", None),
        ("{{ .Path }} && reboot", None),
        ("sudo -i {{ .Path }}", None),
        ("true", None),
        ("BUILD={{user `x`}}; {{ .Path }}", None),
        ("", None),
    ],
)
def test_a_command_has_its_meaning(command: str, meaning: Execution | None) -> None:
    assert read_execute_command(command) == meaning
