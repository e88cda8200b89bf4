"""EC2's query protocol, by botocore's own service model as moto carries it.

The model is moto's `get_service_model`, not botocore's: moto's serializer needs its own shape classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape, quoteattr

from botocore.validate import ParamValidator
from moto.core.parse import EC2QueryParser, QueryParser
from moto.core.serialize import EC2Serializer, QuerySerializer, SerializationContext, TimestampSerializer
from moto.core.utils import get_service_model

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.protocol.bodies import Content
from imagepipe.local.aws.protocol.errors import AwsError, invalid, missing
from imagepipe.local.aws.protocol.times import milliseconds

XML = "text/xml;charset=UTF-8"
VERSION = "2016-11-15"
OLD_NAMES = {"Resources": "resourceIdSet"}
"""What EC2 calls a parameter when it is missing, if not by its name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, whole."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    content: Content | None = None
    """In place of the body, bytes that are sent as they are read."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request for one of EC2's actions, parsed by the model."""

    action: str
    account: str
    region: str
    params: Mapping[str, Any]
    """Parameters by the model's member names, as the caller passed them to botocore's client."""
    request_id: str
    access_key_id: str = ""
    """The caller's access key, for permissions on which an answer depends."""

    def with_action(self, action: str) -> Call:
        """Return the call of another action by the same caller, without parameters."""
        return replace(self, action=action, params={})

    def text(self, name: str) -> str:
        """Return a required string."""
        value = self.params.get(name)
        if not value:
            raise missing(name)
        return str(value)

    def filters(self) -> list[Mapping[str, Any]]:
        return list(self.params.get("Filters", []))


def form(query: str, body: bytes) -> dict[str, str]:
    """Parse the parameters, in the body or in the query string of a GET."""
    return dict(parse_qsl(query, keep_blank_values=True)) | dict(
        parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    )


def json_object(body: bytes) -> dict[str, Any]:
    """Parse the body of a request in AWS's JSON protocol; a body that is no JSON object counts as an empty one."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def requests_nothing(value: object) -> bool:
    """Tell if the value of a parameter asks for what a request without it gets: a feature that is switched off."""
    if isinstance(value, Mapping):
        return all(requests_nothing(each) for each in value.values())
    if isinstance(value, list | tuple):
        return all(requests_nothing(each) for each in value)
    return value in (None, False, 0, "", "none", "disabled", "default")


def counted_from_one(values: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters with lists that count from 1: libcloud counts some from 0, which EC2 accepts.

    Raises AwsError for a list that has gaps: the rest of it would be ignored silently.
    """
    places = _places(values)
    from_zero = set()
    for name, found in places.items():
        first = min(found)
        if first > 1 or found != set(range(first, first + len(found))):
            numbers = ", ".join(str(number) for number in sorted(found))
            raise invalid(f"The items of the list {name} must be numbered from 1 without gaps; they are: {numbers}")
        if first == 0:
            from_zero.add(name)
    return {_shifted(name, from_zero): value for name, value in values.items()}


def _shifted(name: str, from_zero: Set[str]) -> str:
    """Return the name of a parameter with one added to its places in the lists that count from 0."""
    steps = name.split(".")
    return ".".join(
        str(int(step) + 1) if at and step.isdecimal() and ".".join(steps[:at]) in from_zero else step
        for at, step in enumerate(steps)
    )


def _places(values: Mapping[str, str]) -> dict[str, set[int]]:
    """List the numbers of the items of each list."""
    places: dict[str, set[int]] = {}
    for name in values:
        steps = name.split(".")
        for at, step in enumerate(steps):
            if at and step.isdecimal():
                places.setdefault(".".join(steps[:at]), set()).add(int(step))
    return places


def in_namespace(body: bytes, version: str) -> bytes:
    """Return an answer with EC2's XML namespace, which ends with a slash and names the version of the request."""
    named = version if re.fullmatch(r"\d{4}-\d\d-\d\d", version) else VERSION
    namespace = f'xmlns="http://ec2.amazonaws.com/doc/{named}/"'.encode()
    return re.sub(rb'xmlns="http://ec2\.amazonaws\.com/doc/[^"]*"', namespace, body, count=1)


def is_action(name: str) -> bool:
    """Tell if EC2 has an action of this name."""
    return name in get_service_model("ec2").operation_names


def params(action: str, values: Mapping[str, str]) -> Mapping[str, Any]:
    """Convert the request's parameters to the model's types. Raises AwsError for values that EC2 would not parse."""
    operation = get_service_model("ec2").operation_model(action)
    known = _wire_names(action)
    for name in values:
        top = name.partition(".")[0]
        if top not in known and not top.startswith("X-Amz-"):  # those are a presigned URL's
            raise AwsError("UnknownParameter", f"The parameter {top} is not recognized")
    try:
        parsed: Mapping[str, Any] = EC2QueryParser(operation_model=operation).parse({"values": dict(values)})
    except (ValueError, TypeError) as error:
        raise invalid(f"A parameter of {action} has a value of the wrong type: {error}") from error
    for name in operation.input_shape.required_members if operation.input_shape else ():
        if name not in parsed:
            raise missing(OLD_NAMES.get(name, name))
    return parsed


def service_params(service: str, action: str, values: Mapping[str, str]) -> Mapping[str, Any]:
    """Convert the parameters of a request to another query service. Raises AwsError if they do not fit its model."""
    operation = get_service_model(service).operation_model(action)
    parser = QueryParser(operation_model=operation)
    try:
        parsed: Mapping[str, Any] = parser.parse({"values": dict(values)})
    except (ValueError, TypeError) as error:
        raise AwsError("ValidationError", f"A parameter of {action} has a value of the wrong type: {error}") from error
    report = ParamValidator().validate(parsed, operation.input_shape)
    if report.has_errors():
        raise AwsError("ValidationError", report.generate_report())
    return parsed


def operations() -> list[str]:
    """List the names of EC2's actions."""
    return list(get_service_model("ec2").operation_names)


def operation(action: str) -> Any:
    """Return botocore's model of an action of EC2, with its documentation."""
    return get_service_model("ec2").operation_model(action)


def has_result(action: str) -> bool:
    """Tell if EC2's answer to an action has more than `<return>true</return>`."""
    return operation(action).output_shape is not None


def result(action: str, answer: Mapping[str, Any], request_id: str, service: str = "ec2") -> Answer:
    """Serialize an action's result as XML, in the protocol of EC2 or of another query service."""
    operation = get_service_model(service).operation_model(action)
    serializer, kind = (_Serializer, XML) if service == "ec2" else (QuerySerializer, "text/xml")
    if service == "ec2" and not has_result(action):  # EC2 API reference: "Returns true if the request succeeds"
        return Answer(200, (("Content-Type", XML),), _success(action, request_id))
    context = SerializationContext(request_id=request_id)
    body = serializer(operation_model=operation, context=context).serialize(answer)["body"]
    return Answer(200, (("Content-Type", kind),), body.encode())


class _Serializer(EC2Serializer):  # type: ignore[misc]  # moto has no types
    """moto's serializer, with the milliseconds of times, which it writes as zeros, and a faster writer of XML."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._timestamp_serializer = _Timestamps(self.DEFAULT_TIMESTAMP_FORMAT)

    def _serialize_body(self, body: Mapping[str, Any]) -> str:
        return xml_of(body)


def xml_of(body: Mapping[str, Any]) -> str:
    """Write nested values as XML, as xmltodict does, which checks every name and takes seven times as long."""
    parts = ['<?xml version="1.0" encoding="utf-8"?>\n']
    for name, value in body.items():
        _write_element(parts, name, value)
    return "".join(parts)


def _write_element(parts: list[str], name: str, value: Any) -> None:
    """Write an element for a value, or one for each item of a list. A key that begins with @ is an attribute."""
    if isinstance(value, str):
        parts.append(f"<{name}>{escape(value)}</{name}>" if value else f"<{name}/>")
    elif isinstance(value, list | tuple):
        for item in value:
            _write_element(parts, name, item)
    elif isinstance(value, Mapping):
        attributes = "".join(f" {key[1:]}={quoteattr(str(item))}" for key, item in value.items() if key[:1] == "@")
        start = len(parts)
        parts.append(f"<{name}{attributes}>")
        for key, item in value.items():
            if key[:1] != "@":
                _write_element(parts, key, item)
        if len(parts) == start + 1:
            parts[start] = f"<{name}{attributes}/>"
        else:
            parts.append(f"</{name}>")
    elif value is None:
        parts.append(f"<{name}/>")
    else:
        text = ("false", "true")[value] if isinstance(value, bool) else escape(str(value))
        parts.append(f"<{name}>{text}</{name}>")


class _Timestamps(TimestampSerializer):  # type: ignore[misc]
    def _timestamp_iso8601_zeroed(self, value: datetime) -> str:
        return milliseconds(value)


def _success(action: str, request_id: str) -> bytes:
    """Return the answer of an action that has no result."""
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="http://ec2.amazonaws.com/doc/{VERSION}/">'
        f"<requestId>{request_id}</requestId><return>true</return></{action}Response>"
    )
    return text.encode()


def error_answer(error: AwsError, request_id: str, dialect: str = "ec2") -> Answer:
    """Serialize an error in the service's own protocol: `ec2`, `s3`, `json`, or that of the query services."""
    if dialect == "json":
        text = json.dumps({"__type": error.code, "message": error.message})
        return Answer(error.status, (("Content-Type", "application/x-amz-json-1.1"),), text.encode())
    code, message = escape(error.code), escape(_printable(error.message))
    if dialect == "ec2":
        body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{request_id}</RequestID></Response>"
        )
    elif dialect == "s3":
        body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{request_id}</RequestId></Error>"
    else:
        kind = "Sender" if error.status < 500 else "Receiver"
        body = (
            f"<ErrorResponse><Error><Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'
    return Answer(error.status, (("Content-Type", XML),), text.encode())


def _printable(text: str) -> str:
    """Replace characters that XML 1.0 cannot hold."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "?", text)


def with_numbers(action: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters with a number for a list of one that has none: libcloud's get_key_pair sends `KeyName`."""
    lists = _list_names(action)
    return {f"{name}.1" if name in lists else name: value for name, value in values.items()}


@cache
def _list_names(action: str) -> frozenset[str]:
    """List the names in requests of the action's parameters that are lists."""
    shape = get_service_model("ec2").operation_model(action).input_shape
    members = shape.members.items() if shape else ()
    return frozenset(_wire_name(name, member) for name, member in members if member.type_name == "list")


def _wire_name(name: str, shape: Any) -> str:
    found: str = shape.serialization.get("queryName") or shape.serialization.get("name") or name
    return found[0].upper() + found[1:]


@cache
def _wire_names(action: str) -> frozenset[str]:
    """List the names of the action's parameters in requests: `Filter` for the model's `Filters`."""
    shape = get_service_model("ec2").operation_model(action).input_shape
    names = {"Action", "Version"}
    for member, member_shape in shape.members.items() if shape else ():
        names.add(_wire_name(member, member_shape))
    return frozenset(names)
