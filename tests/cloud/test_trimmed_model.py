"""The short model of EC2 is botocore's, for the calls that the code makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imagepipe.cloud.session import Access, Session
from imagepipe.cloud.trimmed_model import PLACE, called_operations, trim, whole_model

HINT = "make model"


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return whole_model()


@pytest.fixture(scope="module")
def short() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PLACE.read_text())
    return found


def test_it_has_every_operation_that_the_code_calls_and_no_other(whole: dict[str, Any], short: dict[str, Any]) -> None:
    assert set(short["operations"]) == called_operations(whole), HINT
    assert {"RunInstances", "CopyImage", "GetInstanceUefiData"} <= set(short["operations"])


def test_every_operation_and_shape_is_that_of_the_installed_botocore(
    whole: dict[str, Any], short: dict[str, Any]
) -> None:
    assert short == trim(whole, short["operations"]), HINT


def test_sessions_load_it() -> None:
    session = Session(Access(access_key_id="a", secret_access_key="b", endpoint_url="http://127.0.0.1:9"))
    assert len(session.client("ec2", "us-east-1").meta.service_model.operation_names) == len(
        json.loads(PLACE.read_text())["operations"]
    )
    assert session.client("ec2", "us-east-1").can_paginate("describe_images"), "paginators are botocore's own"


def test_a_model_of_the_user_s_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "ec2" / "2016-11-15"
    own.mkdir(parents=True)
    model = json.loads(PLACE.read_text())
    model["operations"] = {"DescribeVpcs": model["operations"]["DescribeVpcs"]}
    (own / "service-2.json").write_text(json.dumps(model))
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    session = Session(Access(access_key_id="a", secret_access_key="b", endpoint_url="http://127.0.0.1:9"))
    assert session.client("ec2", "us-east-1").meta.service_model.operation_names == ["DescribeVpcs"]
