"""Hints for failures that the output of a command shows."""

from __future__ import annotations

import pytest

from imagepipe.communicator.output_hints import hint_of_output


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("sudo: sorry, you must have a tty to run sudo", "requiretty"),
        ("sudo: a password is required", "NOPASSWD"),
        (
            "sudo: a terminal is required to read the password; either use the -S option\nsudo: a password is required",
            "NOPASSWD",
        ),
        ("sudo: interactive authentication is required", "NOPASSWD"),
        ("admin is not in the sudoers file.", "ALL=(ALL) NOPASSWD:ALL"),
        ("admin is not in the sudoers file.  This incident will be reported.", "ALL=(ALL) NOPASSWD:ALL"),
        ("Sorry, user admin is not allowed to execute '/usr/bin/sh -c x' as root on web.", "ALL=(ALL) NOPASSWD:ALL"),
        ("Sorry, user admin is not allowed to run sudo on web.", "ALL=(ALL) NOPASSWD:ALL"),
        ("sudo: I'm sorry admin. I'm afraid I can't do that", "ALL=(ALL) NOPASSWD:ALL"),
        ("bash: line 1: sudo: command not found", "sudo is not installed"),
        ("bash: sudo: command not found", "sudo is not installed"),
        ("sh: 1: sudo: not found", "sudo is not installed"),
        ("imagepipe: 1: exec: sudo: not found", "sudo is not installed"),
        ("zsh:1: command not found: sudo", "sudo is not installed"),
        ("sudo: Command not found.", "sudo is not installed"),
        ("env: ‘sudo’: No such file or directory", "sudo is not installed"),
        ("sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set", "setuid"),
        ("sudo: effective uid is not 0, is /usr/bin/sudo on a file system with the 'nosuid' option set?", "nosuid"),
        ('sudo: The "no new privileges" flag is set, which prevents sudo from running as root.', "setuid"),
        ("sudo: /etc/sudoers is world writable", "visudo -c"),
        ("sudo: /etc/sudoers is owned by uid 1000, should be 0", "visudo -c"),
        (
            ">>> /etc/sudoers.d/x: syntax error near line 1 <<<\nsudo: no valid sudoers sources found, quitting",
            "visudo -c",
        ),
        ("/etc/sudoers.d/x:1:7: syntax error", "visudo -c"),
        ("sudo: account validation failure, is your account locked?", "expired"),
        ("sudo: Account or password is expired, reset your password and try again", "expired"),
        ("tar: it: Cannot write: No space left on device", "size_gib"),
        ("mkdir: cannot create directory ‘/srv/x’: No space left on device", "size_gib"),
        ("tar: it: Cannot write: Disk quota exceeded", "quota"),
        ("mkdir: cannot create directory ‘/boot/x’: Read-only file system", "mounted read-only"),
        ("tar: it: Wrote only 512 of 10240 bytes\ntar: it: Cannot write: File too large", "ulimit -f"),
    ],
)
def test_a_failure_that_the_output_shows_has_a_hint(line: str, hint: str) -> None:
    assert hint in (hint_of_output(["before", *line.splitlines(), "after"]) or "none")


@pytest.mark.parametrize(
    "line",
    [
        "sudo: unable to resolve host web: Name or service not known",
        "Removing sudo: not found in the cache",
        "password is required for user bob",
        "bash: line 1: visudo: command not found",
        "installing sudo and its sudoers file",
    ],
)
def test_other_lines_have_none(line: str) -> None:
    assert hint_of_output([line]) is None
