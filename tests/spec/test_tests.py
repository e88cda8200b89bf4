"""The kinds of test in `test`: short forms, defaults, and errors."""

from __future__ import annotations

from typing import Any

import pytest

from imagepipe.spec import tests as kinds
from imagepipe.spec.variables import Given
from tests.spec.conftest import BUILD, Loader, messages


def _tests(loaded: Loader, text: str, **options: Any) -> list[Any]:
    spec = loaded(f"test:\n{text}", **options)
    assert spec.problems == []
    return [at.step for at in spec.tests]


def test_every_kind_has_a_short_form(loaded: Loader) -> None:
    text = """\
- http: http://localhost/
- port: 80
- package: nginx
- service: nginx
- path: /etc/nginx
- command: nginx -t
- command: [nginx, -t]
"""
    http, port, package, service, path, script, words = _tests(loaded, text)
    assert (http.http.url, http.http.status, http.http.method, http.within) == ("http://localhost/", (200,), "GET", 30)
    assert (port.port.port, port.port.host, port.port.state) == (80, "localhost", "open")
    assert (package.package.name, package.package.state) == ("nginx", "installed")
    assert (service.service.name, service.service.expected_state, service.service.enabled) == ("nginx", "running", None)
    assert path.path.path == "/etc/nginx"
    assert script.command.command == "nginx -t"
    assert words.command.command == ("nginx", "-t")


def test_every_kind_has_a_long_form_with_options(loaded: Loader) -> None:
    text = """\
- name: the page
  http: {url: "https://localhost:8443/x?y=1", status: [200, 204], contains: a, matches: ^b, insecure: true}
  within: 2m
  sudo: false
- port: {port: 53, protocol: udp}
- service: {name: nginx, enabled: true}
- command: {command: cat x, exit_code: 1, stdout: {equals: ""}, stderr: {contains: No such}}
  env: {A: b}
"""
    http, port, service, command = _tests(loaded, text)
    assert (http.name, http.within, http.sudo, http.http.status) == ("the page", 120, False, (200, 204))
    assert port.port.protocol == "udp"
    assert (service.service.expected_state, service.service.enabled) == (None, True)
    assert (command.command.exit_code, command.command.stdout.equals, command.env) == ((1,), "", {"A": "b"})


def test_steps_are_tests_too_in_their_order(loaded: Loader) -> None:
    found = _tests(loaded, "- shell: 'true'\n- port: 80\n- reboot: {}\n- port: 80\n")
    assert [type(step).__name__ for step in found] == ["ShellStep", "PortTest", "RebootStep", "PortTest"]


def test_a_sensitive_variable_may_be_in_a_header_the_environment_or_a_script_and_nowhere_else(loaded: Loader) -> None:
    declared = "variables: {token: {sensitive: true}}\n"
    fine = """\
test:
- http: {url: http://localhost/, headers: {Authorization: "Bearer {{ var.token }}"}}
- command: "login {{ var.token }}"
- command: {command: "login {{ var.token }}"}
- command: [login]
  env: {TOKEN: "{{ var.token }}"}
"""
    given = Given(command_line={"token": "hunter2"})
    assert loaded(declared + fine, given=given, build=BUILD).problems == []
    for wrong in (
        "http: 'http://localhost/{{ var.token }}'",
        "http: {url: http://localhost/, contains: '{{ var.token }}'}",
        "command: [login, '{{ var.token }}']",
        "command: {command: x, stdout: {contains: '{{ var.token }}'}}",
        "path: '/{{ var.token }}'",
    ):
        found = messages(loaded(f"{declared}test:\n- {wrong}\n", given=given))
        assert found[:1] == ["var.token is sensitive and cannot be used here, where others can read it"], wrong


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("http: ftp://x/", "a URL is http://HOST/PATH or https://HOST/PATH"),
        ("http: 'http://'", "a URL is http://HOST/PATH or https://HOST/PATH"),
        ("http: 'http://[::1/'", "not a URL: Invalid IPv6 URL"),
        ("http: 'http://x:99999/'", "not a URL: Port out of range 0-65535"),
        ("http: 'http://x/ y'", "a URL has only visible ASCII characters; write others as %XX"),
        ("http: http://user:pw@x/", "a URL must not have a user or password; send an Authorization header"),
        ("http: {url: http://x/, status: 99}", "must be 100 or more, not 99"),
        ("http: {url: http://x/, status: []}", "must not be empty"),
        ("http: {url: http://x/, method: get}", "a method is in capital letters: GET, HEAD, POST"),
        ('http: {url: http://x/, headers: {A: "b\\nc"}}', "a header's value has visible ASCII characters and spaces"),
        ("http: {url: http://x/, match: y}", "unknown key 'match'; did you mean 'matches'?"),
        ("port: 0", "must be 1 or more, not 0"),
        ("port: {port: 80, host: '-x'}", "not a host name or an address"),
        ("port: {port: 80, state: opened}", "must be 'open' or 'closed', not 'opened'; did you mean 'open'?"),
        (
            "port: {port: 53, host: x, protocol: udp}",
            "nothing answers a connection over udp, so only ports of the instance itself can be tested",
        ),
        ("package: '-x'", "a package's name has letters, digits, plus signs, dots and dashes"),
        ("package: {name: a, version: 1.20}", 'expected a string, found the number 1.2; write it in quotes: "1.20"'),
        (
            "package: {name: a, state: absent, version: '1'}",
            "an absent package has no version: remove state or version",
        ),
        ("service: '-x'", "a service's name has letters, digits, and any of : _ . @ -"),
        ("service: {name: a, state: started}", "must be 'running' or 'stopped', not 'started'"),
        ("path: etc", "must be absolute: start with /"),
        ("path: {path: /x, mode: 0644}", 'YAML 1.1 reads 0644 as the number 420; write it in quotes: "0644"'),
        (
            "path: {path: /x, matches: '('}",
            "not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        ("path: {path: /x, absent: true, owner: a}", "an absent path has no owner: remove absent or owner"),
        ("path: {path: /x, type: directory, sha256: " + "a" * 64 + "}", "a directory has no content: remove sha256"),
        ("path: {path: /x, sha256: abc}", "a SHA-256 digest has 64 hex digits"),
        ("command: []", "must not be empty"),
        ("command: ''", "must not be empty"),
        ("command: [a, 1]", 'expected a string, found the number 1; write it in quotes: "1"'),
        ("command: {command: a, exit_code: 256}", "must be 255 or less, not 256"),
        ("command: {command: a, stdout: b}", "expected a mapping, found 'b'"),
        ("{command: a, within: 30}", "a duration needs its unit: 30s or 30m?"),
        ("{command: a, retries: 3}", "unknown key 'retries'"),
        ("servce: a", "unknown key 'servce'; did you mean 'service'?"),
    ],
)
def test_a_wrong_value_is_reported_once_with_what_to_write(loaded: Loader, test: str, message: str) -> None:
    assert messages(loaded(f"test:\n- {test}\n")) == [message]


def test_a_test_among_the_steps_of_a_machine_is_sent_to_test(loaded: Loader) -> None:
    found = messages(loaded("provision: [{port: 80}]\n"))
    assert found == ["port is a kind of test: it belongs in test, not among the steps of provision"]
    provisioner = "description: d\nsteps: [{service: nginx}]\n"
    spec = loaded("provision: [{use: p}]\n", files={"provisioners/p/provisioner.yaml": provisioner})
    assert messages(spec) == ["service is a kind of test: it belongs in test, not among the steps of a provisioner"]


def test_the_problems_of_a_later_test_have_their_own_place(loaded: Loader) -> None:
    spec = loaded("test:\n- port: 0\n- port: 80\n- path: x\n")
    assert [problem.path for problem in spec.problems] == ["test.0.port", "test.2.path"]


def test_a_variable_without_a_value_is_no_problem_of_validate(loaded: Loader) -> None:
    declared = "variables: {url: {}, port: {}, mode: {}}\n"
    text = "test:\n- http: '{{ var.url }}'\n- port: '{{ var.port }}'\n- path: {path: /x, mode: '{{ var.mode }}'}\n"
    assert loaded(declared + text).problems == []
    given = Given(command_line={"url": "http://x/", "port": "8080", "mode": "0600"})
    assert [at.step.port.port for at in loaded(declared + text, given=given).tests if hasattr(at.step, "port")] == [
        8080
    ]


def test_the_kinds_are_the_keys_of_their_models() -> None:
    models = (kinds.HttpTest, kinds.PortTest, kinds.PackageTest, kinds.ServiceTest, kinds.PathTest, kinds.CommandTest)
    assert list(kinds.TEST_KINDS) == [next(k for k in m.model_fields if k in kinds.TEST_KINDS) for m in models]
