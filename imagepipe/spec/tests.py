"""The kinds of test that only `test` has: each states a fact about the test instance, and is retried until it holds."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from imagepipe.late import Text
from imagepipe.spec.base import CommonOptions, Model
from imagepipe.spec.scalars import AbsolutePath, Duration, FileMode, Owner
from imagepipe.spec.script_texts import ScriptText, StepEnvName


def _matching(pattern: str, message: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise PydanticCustomError("test_format", message)
        return value

    return AfterValidator(check)


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise PydanticCustomError("regex", "not a regular expression: {reason}", {"reason": str(error)}) from error
    return value


def _url(value: str) -> str:
    if not re.fullmatch(r"[!-~]+", value):
        raise PydanticCustomError("url", "a URL has only visible ASCII characters; write others as %XX")
    try:
        parts = urlsplit(value)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise PydanticCustomError("url", "not a URL: {reason}", {"reason": str(error)}) from error
    if parts.scheme not in ("http", "https") or not has_host:
        raise PydanticCustomError("url", "a URL is http://HOST/PATH or https://HOST/PATH")
    if parts.username is not None:
        raise PydanticCustomError("url", "a URL must not have a user or password; send an Authorization header")
    return value


Regex = Annotated[str, AfterValidator(_regex), Field(min_length=1)]
"""Python's syntax; `^` and `$` match at every line."""
Url = Annotated[str, AfterValidator(_url)]
HeaderName = Annotated[str, _matching(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "a header's name has letters, digits and dashes")]
HeaderValue = Annotated[
    str, _matching(r"[!-~]([\t -~]*[!-~])?", "a header's value has visible ASCII characters and spaces")
]
Method = Annotated[str, _matching(r"[A-Z]{1,20}", "a method is in capital letters: GET, HEAD, POST")]
Status = Annotated[int, Field(ge=100, le=599)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
HostName = Annotated[
    str, _matching(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", "not a host name or an address")
]
PackageName = Annotated[
    str,
    _matching(r"[A-Za-z0-9][A-Za-z0-9+._:-]*", "a package's name has letters, digits, plus signs, dots and dashes"),
]
ServiceName = Annotated[
    str, _matching(r"[A-Za-z0-9_][A-Za-z0-9:_.\\@-]*", "a service's name has letters, digits, and any of : _ . @ -")
]
Digest = Annotated[str, _matching(r"[0-9a-fA-F]{64}", "a SHA-256 digest has 64 hex digits")]
ExitCode = Annotated[int, Field(ge=0, le=255)]


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


class Http(Model):
    """An HTTP request from the test instance, and the expected response."""

    url: Url = Field(description="`http://` or `https://` URL, as the test instance sees it.")
    status: Annotated[
        tuple[Status, ...], BeforeValidator(_one_or_more, json_schema_input_type=int | tuple[Status, ...])
    ] = Field(
        (200,), description="Expected status, or a list of them. Redirects are not followed: expect 301.", min_length=1
    )
    contains: str | None = Field(None, description="Text that the body contains.", min_length=1)
    matches: Regex | None = Field(
        None, description="Regular expression that matches in the body; `^` and `$` match at lines."
    )
    method: Method = Field("GET", description="Method of the request.")
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="Headers of the request; they may use sensitive variables."
    )
    insecure: bool = Field(False, description="Accept any certificate.")


class Port(Model):
    """A port, as seen from the test instance."""

    port: PortNumber = Field(description="Number of the port.")
    host: HostName = Field("localhost", description="Name or address to connect to.")
    protocol: Literal["tcp", "udp"] = Field(
        "tcp", description="`udp`: the test instance itself must have a socket on the port."
    )
    state: Literal["open", "closed"] = Field("open", description="Expected state.")

    @model_validator(mode="after")
    def _udp_is_local(self) -> Self:
        if self.protocol == "udp" and self.host != "localhost":
            message = "nothing answers a connection over udp, so only ports of the instance itself can be tested"
            raise PydanticCustomError("udp", message)
        return self


class Package(Model):
    """A package of dpkg, rpm or apk."""

    name: PackageName = Field(description="Name of the package.")
    version: str | None = Field(
        None, description='Version, with or without epoch and release, in quotes: `"1.22.*"`.', min_length=1
    )
    state: Literal["installed", "absent"] = Field("installed", description="Expected state.")

    @model_validator(mode="after")
    def _absent_has_no_version(self) -> Self:
        if self.state == "absent" and self.version is not None:
            raise PydanticCustomError("package", "an absent package has no version: remove state or version")
        return self


class Service(Model):
    """A service of systemd or OpenRC."""

    name: ServiceName = Field(description="Name of the service; systemd's `.service` may be left out.")
    state: Literal["running", "stopped"] | None = Field(
        None, description="Expected state; `running` if neither `state` nor `enabled` is set."
    )
    enabled: bool | None = Field(
        None, description="`true`: it starts at boot; `false`: it does not. Not checked if absent."
    )

    @property
    def expected_state(self) -> Literal["running", "stopped"] | None:
        """The state to check; None if only `enabled` is checked."""
        return "running" if self.state is None and self.enabled is None else self.state


class PathFacts(Model):
    """A file, a folder or a link."""

    path: AbsolutePath = Field(description="The path.")
    type: Literal["file", "directory", "link"] | None = Field(
        None, description="Expected type; links are followed, except with `link`."
    )
    mode: FileMode | None = Field(None, description='Mode, in quotes: `"0644"`.')
    owner: Owner | None = Field(None, description="`user` or `user:group`.")
    contains: str | None = Field(None, description="Text that the file contains.", min_length=1)
    matches: Regex | None = Field(
        None, description="Regular expression that matches in the file; `^` and `$` match at lines."
    )
    sha256: Digest | None = Field(None, description="SHA-256 digest of the file.")
    absent: bool = Field(False, description="`true`: nothing exists at the path.")

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        content = [key for key in ("contains", "matches", "sha256") if getattr(self, key) is not None]
        others = [key for key in ("type", "mode", "owner") if getattr(self, key) is not None] + content
        if self.absent and others:
            message = "an absent path has no {key}: remove absent or {key}"
            raise PydanticCustomError("path", message, {"key": others[0]})
        if self.type == "directory" and content:
            raise PydanticCustomError("path", "a directory has no content: remove {key}", {"key": content[0]})
        return self


class OutputText(Model):
    """The expected output of a command."""

    contains: str | None = Field(None, description="Text that the output contains.", min_length=1)
    matches: Regex | None = Field(
        None, description="Regular expression that matches in the output; `^` and `$` match at lines."
    )
    equals: str | None = Field(None, description="The whole output, without newlines at its end.")


def _not_empty(value: Text) -> Text:
    if value == "":
        raise PydanticCustomError("empty", "must not be empty")
    return value


def _command_kind(value: Any) -> str:
    return "words" if isinstance(value, list | tuple) else "script"


class Command(Model):
    """A command, and its expected exit code and output."""

    command: Annotated[
        Annotated[ScriptText, AfterValidator(_not_empty), Tag("script")]
        | Annotated[Annotated[tuple[ScriptText, ...], Field(min_length=1)], Tag("words")],
        Discriminator(_command_kind),
    ] = Field(description="A script as in `shell`, or a list: a program and its arguments.")
    exit_code: Annotated[
        tuple[ExitCode, ...], BeforeValidator(_one_or_more, json_schema_input_type=int | tuple[ExitCode, ...])
    ] = Field((0,), description="Expected exit code, or a list of them.", min_length=1)
    stdout: OutputText | None = Field(None, description="Expected standard output.")
    stderr: OutputText | None = Field(None, description="Expected standard error.")


class RetriedTest(CommonOptions):
    """A test that is tried again until it holds or its time is over."""

    within: Duration = Field(
        30.0, description="Time in which it must hold; until then it is tried again and again, 1 s apart."
    )


def _short(key: str, kinds: Any) -> BeforeValidator:
    """Return a validator that takes a value which is not a mapping as the value of this key."""

    def expand(value: Any) -> Any:
        return value if value is None or isinstance(value, dict | Model) else {key: value}

    return BeforeValidator(expand, json_schema_input_type=kinds)


class HttpTest(RetriedTest):
    """Request a URL on the test instance."""

    http: Annotated[Http, _short("url", str | Http)] = Field(description="A URL, or a mapping.")


class PortTest(RetriedTest):
    """Check a port."""

    port: Annotated[Port, _short("port", int | Port)] = Field(description="A number, or a mapping.")


class PackageTest(RetriedTest):
    """Check a package."""

    package: Annotated[Package, _short("name", str | Package)] = Field(description="A name, or a mapping.")


class ServiceTest(RetriedTest):
    """Check a service."""

    service: Annotated[Service, _short("name", str | Service)] = Field(description="A name, or a mapping.")


class PathTest(RetriedTest):
    """Check a path."""

    path: Annotated[PathFacts, _short("path", str | PathFacts)] = Field(description="A path, or a mapping.")


class CommandTest(RetriedTest):
    """Run a command and check its exit code and output."""

    command: Annotated[Command, _short("command", str | tuple[str, ...] | Command)] = Field(
        description="A script, a list of words, or a mapping."
    )
    env: dict[StepEnvName, ScriptText] = Field(default_factory=dict, description="Environment of the command.")


TEST_KINDS = {
    "http": "http test",
    "port": "port test",
    "package": "package test",
    "service": "service test",
    "path": "path test",
    "command": "command test",
}
PlainTest = HttpTest | PortTest | PackageTest | ServiceTest | PathTest | CommandTest
