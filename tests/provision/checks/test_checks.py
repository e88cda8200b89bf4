"""Ports, packages, services, paths and commands, checked over a real sshd."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagepipe.late import Late
from imagepipe.provision.checks.command import CheckCommand
from imagepipe.provision.checks.content import ExpectedText
from imagepipe.provision.checks.package import CheckPackage
from imagepipe.provision.checks.path import CheckPath
from imagepipe.provision.checks.port import CheckPort
from imagepipe.provision.checks.service import CheckService
from tests.communicator.sshd import Sshd, sshd
from tests.provision.checks.conftest import Bench

ODD = "an 'odd' \"name\" $(x) `y` \\ ; #*?[a] ünï\n-e"


def _path(bench: Bench, path: object, **facts: Any) -> CheckPath:
    values: dict[str, Any] = {"type": None, "mode": None, "owner": None, "sha256": None, "is_absent": False, **facts}
    text = ExpectedText(values.pop("contains", None), values.pop("matches", None))
    return CheckPath(*bench.base(), path=str(path), text=text, **values)


def _port(bench: Bench, port: int, **facts: Any) -> CheckPort:
    values: dict[str, Any] = {"host": "localhost", "protocol": "tcp", "state": "open", **facts}
    return CheckPort(*bench.base(), port=port, **values)


def _package(bench: Bench, name: str, version: str | None = None, *, is_installed: bool = True) -> CheckPackage:
    return CheckPackage(*bench.base(), name=name, version=version, is_installed=is_installed)


def _service(bench: Bench, name: str, state: Any = "running", enabled: bool | None = None) -> CheckService:
    return CheckService(*bench.base(), name=name, state=state, enabled=enabled)


def _command(bench: Bench, command: Any, *, within: float = 0.0, **facts: Any) -> CheckCommand:
    values: dict[str, Any] = {"exit_codes": (0,), "stdout": ExpectedText(), "stderr": ExpectedText(), **facts}
    return CheckCommand(*bench.base(within_seconds=within), command=command, **values)


def test_a_path_of_any_name_is_checked_with_all_its_properties(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / ODD
    content = b"first\nlisten 80;\n\xff\x00 the rest\n"
    path.write_bytes(content)
    path.chmod(0o640)
    digest = hashlib.sha256(content).hexdigest()
    facts: dict[str, Any] = {"mode": "0640", "owner": "root:root", "contains": "listen 80", "matches": "^listen \\d+;$"}
    bench.run(_path(bench, path, type="file", sha256=digest.upper(), **facts))
    bench.run(_path(bench, path, owner="root"))
    bench.run(_path(bench, tmp_path, type="directory"))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"type": "directory"}, "expected a directory, and it is a file"),
        ({"type": "link"}, "expected a link, and it is a file"),
        ({"mode": "0600"}, "expected mode 0600, and it is 0644"),
        ({"owner": "www-data"}, "expected owner www-data, and it is root:root"),
        ({"owner": "root:www-data"}, "expected owner root:www-data, and it is root:root"),
        ({"contains": "port 8080"}, "expected it to contain 'port 8080'; found:\n    port 80\n    é"),
        ({"matches": "^80"}, "expected it to match '^80'; found:"),
        ({"sha256": "0" * 64}, f"expected SHA-256 {'0' * 64}, and it is "),
        ({"is_absent": True}, "expected absent, and it is a file"),
    ],
)
def test_a_path_that_differs_is_described(bench: Bench, tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    path = tmp_path / "file"
    path.write_text("port 80\né\n")
    path.chmod(0o644)
    assert f"{path}: {message}" in str(bench.failure(_path(bench, path, **facts)))


def test_a_path_that_does_not_exist_is_absent_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (tmp_path / "nothing", file / "below"):
        bench.run(_path(bench, path, is_absent=True))
        assert f"{path}: it does not exist" in str(bench.failure(_path(bench, path)))


def test_links_are_followed_unless_a_link_is_expected(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "good").symlink_to("file")
    (tmp_path / "broken").symlink_to("gone")
    bench.run(_path(bench, tmp_path / "good", type="file", contains="text"))
    bench.run(_path(bench, tmp_path / "good", type="link"))
    bench.run(_path(bench, tmp_path / "broken", type="link"))
    failed = bench.failure(_path(bench, tmp_path / "broken"))
    assert "it is a link to gone, which does not exist" in str(failed)
    assert "expected absent" in str(bench.failure(_path(bench, tmp_path / "broken", is_absent=True)))


def test_special_files_are_not_read(bench: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    bench.run(_path(bench, tmp_path / "pipe"))
    assert "no content to check: it is a fifo" in str(bench.failure(_path(bench, tmp_path / "pipe", contains="x")))
    assert "it is a directory" in str(bench.failure(_path(bench, tmp_path, contains="x")))


def test_a_file_is_searched_up_to_a_mebibyte(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"a" * ((1 << 20) - 3) + b"end" + b"b" * 100)
    bench.run(_path(bench, path, contains="end"))
    failed = bench.failure(_path(bench, path, contains="bbb"))
    assert "to contain 'bbb' in its first 1 MiB" in str(failed)
    assert len(str(failed)) < 1000


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[Sshd]:
    """A machine whose commands run as a user who may read little."""
    command = 'ForceCommand=exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c "$SSH_ORIGINAL_COMMAND"'
    with sshd(tmp_path / "machine", command) as server:
        yield server


def test_a_hidden_path_is_neither_there_nor_absent(bench: Bench, tmp_path: Path, nobody: Sshd) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    for expected in (False, True):
        failed = bench.failure(_path(bench, hidden / "file", is_absent=expected), nobody)
        assert "it could not be looked at: Permission denied" in str(failed)
        assert "sudo: true" in (failed.hint or "")


def test_a_file_that_may_not_be_read_is_reported(bench: Bench, nobody: Sshd) -> None:
    failed = bench.failure(_path(bench, "/etc/shadow", contains="root"), nobody)
    assert "/etc/shadow: this user may not read it" in str(failed)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen()
        yield found


@pytest.mark.parametrize("client", ["bash", "python3"])
def test_open_and_closed_ports_are_told_apart(
    bench: Bench, only: Callable[..., str], tmp_path: Path, listener: socket.socket, client: str
) -> None:
    option = only() if client == "python3" else only(client)
    if client == "python3":
        (tmp_path / "only/python3").symlink_to(Path(sys.executable).resolve())
    port = listener.getsockname()[1]
    with sshd(tmp_path / "machine", option) as server:
        bench.run(_port(bench, port), server)
        bench.run(_port(bench, 9, state="closed"), server)
        failed = bench.failure(_port(bench, 9), server)
        assert "port 9/tcp: expected open, and it is closed: Connection refused" in str(failed)
        failed = bench.failure(_port(bench, port, state="closed"), server)
        assert f"port {port}/tcp: expected closed, and it is open" in str(failed)
        failed = bench.failure(_port(bench, 9, host="no-such-host.invalid", state="closed"), server)
        assert "port 9/tcp of no-such-host.invalid: the connection could not be tried" in str(failed)


def test_a_machine_that_cannot_connect_to_ports_is_reported_at_once(
    bench: Bench, only: Callable[..., str], tmp_path: Path
) -> None:
    with sshd(tmp_path / "machine", only()) as server:
        assert "no program that can connect to a port" in str(bench.failure(_port(bench, 9), server))


def test_a_udp_port_is_open_if_a_socket_is_bound_to_it(bench: Bench) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        bench.run(_port(bench, port, protocol="udp"))
        assert "and it is open" in str(bench.failure(_port(bench, port, protocol="udp", state="closed")))
    assert "no socket is bound to it" in str(bench.failure(_port(bench, port, protocol="udp")))


def test_packages_of_dpkg_are_found_with_their_versions(bench: Bench) -> None:
    version = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "bash"], capture_output=True, text=True, check=True
    ).stdout
    bench.run(_package(bench, "bash"))
    for pattern in (version, version.partition("-")[0], f"{version[0]}.*"):
        bench.run(_package(bench, "bash", pattern))
    bench.run(_package(bench, "no-such-package", is_installed=False))
    failed = bench.failure(_package(bench, "bash", "99.*"))
    assert f"package bash: expected version 99.*, and dpkg has {version}" in str(failed)
    failed = bench.failure(_package(bench, "no-such-package"))
    assert "package no-such-package: expected installed, and dpkg does not have it" in str(failed)
    failed = bench.failure(_package(bench, "bash", is_installed=False))
    assert f"package bash: expected absent, and dpkg has version {version}" in str(failed)


RPM = """#!/bin/sh
for name; do :; done
if [ "$name" = nginx ]; then echo installed 1.24.0-3.el9; else echo "package $name is not installed"; fi
"""
APK = "#!/bin/sh\nprintf '%s\\n' nginx-mod-http-1.0-r0 nginx-1.24.0-r6 nginx-doc-1.24.0-r6\n"


@pytest.mark.parametrize(("manager", "program"), [("rpm", RPM), ("apk", APK)])
def test_packages_of_other_managers_are_found(
    bench: Bench, only: Callable[..., str], tmp_path: Path, manager: str, program: str
) -> None:
    option = only("grep")
    (tmp_path / "only" / manager).write_text(program)
    (tmp_path / "only" / manager).chmod(0o755)
    with sshd(tmp_path / "machine", option) as server:
        bench.run(_package(bench, "nginx", "1.24.0"), server)
        bench.run(_package(bench, "apache2", is_installed=False), server)
        assert f"and {manager} does not have it" in str(bench.failure(_package(bench, "apache2"), server))
        assert f"and {manager} has 1.24.0" in str(bench.failure(_package(bench, "nginx", "2.*"), server))


def test_a_machine_without_a_package_manager_is_reported(
    bench: Bench, only: Callable[..., str], tmp_path: Path
) -> None:
    with sshd(tmp_path / "machine", only()) as server:
        for is_installed in (True, False):
            failed = bench.failure(_package(bench, "nginx", is_installed=is_installed), server)
            assert "no package manager that is known" in str(failed)


SYSTEMCTL = """#!/bin/sh
for unit; do :; done
case $1-$unit in
  show-web.service) printf '%s\\n' LoadState=loaded ActiveState=active SubState=running ;;
  show-broken.service) printf '%s\\n' LoadState=loaded ActiveState=failed SubState=failed ;;
  show-part.service) printf '%s\\n' LoadState=loaded ActiveState=inactive SubState=dead ;;
  show-tick.timer) printf '%s\\n' LoadState=loaded ActiveState=active SubState=waiting ;;
  show-*) printf '%s\\n' LoadState=not-found ActiveState=inactive SubState=dead ;;
  is-enabled-web.service | is-enabled-tick.timer) echo enabled ;;
  is-enabled-part.service) echo static; exit 0 ;;
  is-enabled-*) echo disabled; exit 1 ;;
esac
"""
JOURNALCTL = "#!/bin/sh\necho '@bind() to 0.0.0.0:80 failed'\n"
RC_SERVICE = '#!/bin/sh\ncase "$*" in "--exists web" | "--exists part" | "web status") ;; *) exit 1 ;; esac\n'
RC_UPDATE = "#!/bin/sh\necho '          web | default'\n"


@pytest.fixture(params=["systemd", "openrc"])
def services(request: pytest.FixtureRequest, only: Callable[..., str], tmp_path: Path) -> Iterator[Sshd]:
    """A machine with a service manager that knows a few services."""
    programs = {"systemctl": SYSTEMCTL, "journalctl": JOURNALCTL}
    if request.param == "openrc":
        programs = {"rc-service": RC_SERVICE, "rc-update": RC_UPDATE}
    option = only()
    for name, text in programs.items():
        (tmp_path / "only" / name).write_text(text)
        (tmp_path / "only" / name).chmod(0o755)
    with sshd(tmp_path / "machine", option) as server:
        yield server


def test_services_that_run_and_start_at_boot_are_found(bench: Bench, services: Sshd) -> None:
    bench.run(_service(bench, "web", enabled=True), services)
    bench.run(_service(bench, "part", "stopped", enabled=False), services)
    bench.run(_service(bench, "part", None, enabled=False), services)
    assert "service part: expected running, and it is inactive" in str(bench.failure(_service(bench, "part"), services))
    assert "service web: expected stopped, and it is active" in str(
        bench.failure(_service(bench, "web", "stopped"), services)
    )
    assert "expected enabled, and it does not start at boot" in str(
        bench.failure(_service(bench, "part", "stopped", enabled=True), services)
    )
    assert "expected disabled, and it starts at boot (enabled)" in str(
        bench.failure(_service(bench, "web", enabled=False), services)
    )
    for state in ("running", "stopped"):
        failed = bench.failure(_service(bench, "misspelt", state), services)
        assert "has no such service (not-found)" in str(failed)


@pytest.mark.parametrize("services", ["systemd"], indirect=True)
def test_a_failed_service_is_shown_with_the_last_lines_of_its_journal(bench: Bench, services: Sshd) -> None:
    failed = bench.failure(_service(bench, "broken"), services)
    assert "expected running, and it is failed (failed); its journal:\n    @bind() to 0.0.0.0:80 failed" in str(failed)
    bench.run(_service(bench, "broken", "stopped"), services)
    bench.run(_service(bench, "tick.timer"), services)
    static = bench.failure(_service(bench, "part", None, enabled=True), services)
    assert "[Install]" in (static.hint or "")


def test_a_machine_without_a_service_manager_is_reported(
    bench: Bench, only: Callable[..., str], tmp_path: Path
) -> None:
    with sshd(tmp_path / "machine", only()) as server:
        assert "no service manager that is known" in str(bench.failure(_service(bench, "web"), server))


def test_a_command_is_a_script_or_a_program_with_its_arguments(bench: Bench) -> None:
    bench.run(_command(bench, ("printf", "%s|", "a b", ODD, ""), stdout=ExpectedText(equals=f"a b|{ODD}||")))
    script = 'set -- one two\necho "$2 $TOKEN"\necho no >&2\nexit 3\n'
    texts: dict[str, Any] = {"stdout": ExpectedText(equals="two x y"), "stderr": ExpectedText(matches="^no$")}
    bench.run(_command(bench, script, exit_codes=(2, 3), env={"TOKEN": "x y"}, **texts))
    late = Late("echo {{ source.id }}")
    bench.run(_command(bench, late, stdout=ExpectedText(equals="ami-0")))


@pytest.mark.parametrize(
    ("command", "facts", "message"),
    [
        ("echo out; echo err >&2; exit 4", {}, "expected exit code 0, and it ended with 4; its output:\n    "),
        (("no-such-program",), {}, "expected exit code 0, and it ended with 127"),
        ("kill -9 $$", {"exit_codes": (0, 1)}, "expected exit code 0 or 1, and it"),
        ("echo 1", {"stdout": ExpectedText(equals="2")}, "expected standard output to be '2'; found:\n    1"),
        ("true", {"stdout": ExpectedText("x")}, "expected standard output to contain 'x', and it is empty"),
        ("echo a >&2", {"stderr": ExpectedText(matches="b")}, "expected standard error to match 'b'; found:\n    a"),
    ],
)
def test_a_command_that_does_something_else_is_described(
    bench: Bench, command: Any, facts: dict[str, Any], message: str
) -> None:
    assert message in str(bench.failure(_command(bench, command, **facts)))


def test_a_command_is_tried_again_until_it_holds_and_only_its_last_output_is_logged(
    bench: Bench, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    script = f"echo x >>{count}\necho attempt $(wc -l <{count})\ntest $(wc -l <{count}) = 3\n"
    bench.run(_command(bench, script, within=30))
    said = bench.said()
    assert "attempt 3" in said
    assert "attempt 2" not in said
    assert len([line for line in said if line.startswith("not yet, ")]) == 1, "the same reason is given once"


def test_a_command_that_does_not_end_is_ended_and_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagepipe.provision.checks.check.LAST_ATTEMPT_SECONDS", 1.0)
    failed = bench.failure(_command(bench, "echo begun; sleep 60"))
    assert "no result within 1 s; its output:\n    begun" in str(failed)
    assert "within" in (failed.hint or "")


def test_a_broken_connection_is_one_failed_attempt(bench: Bench, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bench.run(_command(bench, f"[ -e {mark} ] || {{ touch {mark}; {bench.server.cut}; }}", within=30))
    assert [line for line in bench.said() if "broke" in line]


def test_a_secret_is_in_no_argument_and_in_no_text_about_the_check(bench: Bench) -> None:
    check = _command(bench, 'tr "\\0" " " </proc/$$/cmdline', env={"TOKEN": "hunter2"})
    assert "hunter2" not in repr(check)
    bench.run(check)
    assert not [line for line in bench.said() if "hunter2" in line]


def test_a_check_whose_condition_is_false_is_skipped(bench: Bench) -> None:
    options = bench.base(when=(Late("source.owner == 'somebody'"),))
    check = CheckCommand(
        *options,
        command="false",
        exit_codes=(0,),
        stdout=ExpectedText(),
        stderr=ExpectedText(),
    )
    bench.run(check)
    assert bench.said() == ["skipped: its `when` is false"]
