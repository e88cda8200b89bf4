"""A plain user's requirements for files of several owners."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.local.host import rootless

WHOLE = {"/etc/subuid": "ann:100000:65536\n", "/etc/subgid": "ann:100000:65536\n"}


def lacks(
    files: dict[str, str], *, tools: frozenset[str] = frozenset({"newuidmap", "newgidmap"}), help: str = " --map-auto"
) -> list[str]:
    def read(path: Path) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    found = rootless.lacks_of_ids(
        user="ann", which=lambda tool: tool if tool in tools else None, read=read, unshare_help=lambda: help
    )
    return [lack.what for lack in found]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (WHOLE, []),
        ({}, ["/etc/subuid", "/etc/subgid"]),
        ({**WHOLE, "/etc/subuid": "bob:100000:65536\n"}, ["/etc/subuid"]),
        ({**WHOLE, "/etc/subgid": "ann:100000:1000\n"}, ["/etc/subgid"]),
        ({**WHOLE, "/etc/subgid": "ann:100000\n"}, ["/etc/subgid"]),
        ({**WHOLE, "/etc/subuid": "\nbob:1:2\nann:165536:65536\n"}, []),
    ],
    ids=["both lines", "no file", "the line of another user", "too few ids", "a broken line", "a later line"],
)
def test_the_files_that_give_too_few_ids_are_named(files: dict[str, str], expected: list[str]) -> None:
    assert lacks(files) == expected


def test_missing_programs_of_uidmap_are_named() -> None:
    assert lacks(WHOLE, tools=frozenset()) == ["newuidmap", "newgidmap"]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [("000001ffffffffff", True), ("00000000a80425fb", False), ("0000000000200000", True), ("0000000000000000", False)],
    ids=["all", "those of a container", "that one alone", "none"],
)
def test_the_right_to_mount_is_a_capability(capabilities: str, expected: bool) -> None:
    assert rootless.may_mount(read=lambda path: f"Name:\tx\nCapEff:\t{capabilities}\n") is expected


def test_an_unshare_that_is_too_old_is_named() -> None:
    assert lacks(WHOLE, help=" --map-root-user") == ["unshare --map-auto"]


def test_root_opens_all_ports_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert rootless.host_ports(read=lambda path: "1024\n").of(22) == 22


@pytest.mark.parametrize(("text", "port"), [("1024\n", 20022), ("80\n", 20022), ("22\n", 22), ("0\n", 22), ("", 20022)])
def test_a_plain_user_opens_ports_that_are_reserved_for_root_at_an_offset(
    text: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert rootless.host_ports(read=lambda path: text).of(22) == port


def test_programs_in_sbin_are_found_after_those_of_path() -> None:
    environ = {"PATH": "/opt/bin:/usr/sbin"}
    rootless.find_system_tools(environ)
    assert environ["PATH"] == "/opt/bin:/usr/sbin:/usr/local/sbin:/sbin"
