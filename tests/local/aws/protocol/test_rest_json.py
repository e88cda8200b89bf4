"""The REST-JSON protocol: operations by method and path, and parameters that fit the model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.protocol import rest_json
from imagepipe.local.aws.protocol.errors import AwsError

PERIOD = {"RetentionPeriodValue": 7, "RetentionPeriodUnit": "DAYS"}


def request(method: str, path: str, body: object = None, query: str = "") -> Request:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return Request(method=method, path=path, query=query, headers={}, body=content)


@pytest.mark.parametrize(
    ("service", "asked", "name", "params"),
    [
        ("rbin", request("GET", "/rules/abcdefghijk"), "GetRule", {"Identifier": "abcdefghijk"}),
        ("rbin", request("DELETE", "/rules/abcdefghijk"), "DeleteRule", {"Identifier": "abcdefghijk"}),
        (
            "rbin",
            request("POST", "/rules", {"ResourceType": "EC2_IMAGE", "RetentionPeriod": PERIOD, "Description": None}),
            "CreateRule",
            {"ResourceType": "EC2_IMAGE", "RetentionPeriod": PERIOD},
        ),
        ("imagebuilder", request("POST", "/ListImageRecipes"), "ListImageRecipes", {}),
        (
            "imagebuilder",
            request("GET", "/GetImageRecipe", query="imageRecipeArn=arn%3Aaws%3Ax"),
            "GetImageRecipe",
            {"imageRecipeArn": "arn:aws:x"},
        ),
    ],
)
def test_a_request_names_its_operation_and_parameters(
    service: str, asked: Request, name: str, params: dict[str, Any]
) -> None:
    assert rest_json.action(service, asked) == name
    assert rest_json.params(service, asked) == params


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request("PUT", "/rules"), "UnknownOperationException"),
        (request("GET", "/rules/a/b"), "UnknownOperationException"),
        (request("POST", "/rules", b"{"), "SerializationException"),
        (request("POST", "/rules", b"\xff"), "SerializationException"),
        (request("POST", "/rules", []), "ValidationException"),
        (request("POST", "/rules", {"ResourceType": "EC2_IMAGE"}), "ValidationException"),
        (request("POST", "/rules", {"ResourceType": "EC2", "RetentionPeriod": PERIOD}), "ValidationException"),
        (request("POST", "/rules", {"ResourceType": 1, "RetentionPeriod": PERIOD}), "ValidationException"),
        (request("POST", "/list-rules", {"ResourceType": "EC2_IMAGE", "MaxResults": 0}), "ValidationException"),
    ],
)
def test_a_request_that_does_not_fit_the_model_is_refused(asked: Request, code: str) -> None:
    with pytest.raises(AwsError) as caught:
        rest_json.params("rbin", asked)
    assert caught.value.code == code


def test_an_answer_leaves_out_what_is_none_and_has_the_models_status() -> None:
    made = rest_json.answer("rbin", "CreateRule", {"Identifier": "x", "LockState": None})
    assert (made.status, json.loads(made.body)) == (201, {"Identifier": "x"})
    deleted = rest_json.answer("rbin", "DeleteRule", {})
    assert (deleted.status, deleted.body) == (204, b"")
