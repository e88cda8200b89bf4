"""AWS's REST-JSON protocol: the method and the path name the operation, and bodies are JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.validate import ParamValidator

from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer

INVALID: Mapping[str, str] = {"rbin": "ValidationException", "imagebuilder": "InvalidRequestException"}
"""Code for a request that the model does not allow, by service."""
SERVICES = frozenset(INVALID)


def action(service: str, request: Request) -> str:
    """Return the operation that the method and the path name; empty for an unknown one."""
    found = _find(service, request)
    return found[0].name if found else ""


def params(service: str, request: Request) -> Mapping[str, Any]:
    """Return the parameters of path, query and body, by the model's names. Raises AwsError if they do not fit it."""
    found = _find(service, request)
    if found is None:
        text = f"The service '{service}' has nothing at {request.method} {request.path}"
        raise AwsError("UnknownOperationException", text, status=404)
    operation, in_path = found
    shape = operation.input_shape
    body = _body(service, request)
    given: dict[str, Any] = {}
    for name, member in shape.members.items() if shape else ():
        wire = member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "uri":
                given[name] = in_path.get(wire)
            case "querystring":
                given[name] = request.query_value(wire)
            case _:
                given[name] = body.get(wire)
    given = {name: value for name, value in given.items() if value is not None}
    if shape is not None:
        _check(service, given, shape)
    return given


def answer(service: str, action: str, result: Mapping[str, Any]) -> Answer:
    """Serialize a result, without the members that are None."""
    status = int(_model(service).operation_model(action).http.get("responseCode", 200))
    shown = {name: value for name, value in result.items() if value is not None}
    body = b"" if status == 204 else json.dumps(shown).encode()
    return Answer(status, (("Content-Type", "application/json"),), body)


def _check(service: str, given: Mapping[str, Any], shape: Any) -> None:
    report = ParamValidator().validate(given, shape)
    problems = [report.generate_report()] if report.has_errors() else []
    problems += _outside_of_enums(given, shape)
    if problems:
        raise AwsError(INVALID[service], f"The request is not valid: {'; '.join(problems)}")


def _outside_of_enums(value: Any, shape: Any, path: str = "") -> Iterator[str]:
    """Yield a problem for each text that is not one of the values that the model lists for it."""
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for name, member in shape.members.items():
            if name in value:
                yield from _outside_of_enums(value[name], member, f"{path}.{name}".lstrip("."))
    elif shape.type_name == "list" and isinstance(value, list):
        for each in value:
            yield from _outside_of_enums(each, shape.member, path)
    elif shape.type_name == "string" and getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path} must be one of {', '.join(shape.enum)}, and is {value!r}"


def _body(service: str, request: Request) -> Mapping[str, Any]:
    if not request.body:
        return {}
    try:
        parsed = json.loads(request.body)
    except ValueError as error:
        raise AwsError("SerializationException", f"The body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise AwsError(INVALID[service], "The body is not a JSON object")
    return parsed


def _find(service: str, request: Request) -> tuple[OperationModel, Mapping[str, str]] | None:
    for method, pattern, operation in _routes(service):
        match = pattern.fullmatch(request.path)
        if match and method == request.method:
            return operation, {name: unquote(value) for name, value in match.groupdict().items()}
    return None


@cache
def _routes(service: str) -> tuple[tuple[str, re.Pattern[str], OperationModel], ...]:
    """List the operations with their methods and the patterns of their paths."""
    model = _model(service)
    found = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        path = re.escape(operation.http["requestUri"].partition("?")[0])
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", path)
        found.append((operation.http["method"], re.compile(pattern), operation))
    return tuple(found)


@cache
def _model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)
