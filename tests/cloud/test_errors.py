"""botocore's errors in our words. The calls go through botocore's Stubber: its own models check what is sent."""

from __future__ import annotations

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber

from imagepipe.cloud.errors import translating
from imagepipe.cloud.session import Access, Session
from imagepipe.errors import CloudError


def _failed(code: str, message: str = "as told") -> CloudError:
    client = boto3.client("ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
    with Stubber(client) as stub:
        stub.add_client_error("terminate_instances", code, message)
        with pytest.raises(CloudError) as failed, translating("terminating i-0ab in us-east-1"):
            client.terminate_instances(InstanceIds=["i-0ab"])
    return failed.value


def test_an_error_says_what_was_done_to_what_and_what_came_back() -> None:
    error = _failed("IncorrectInstanceState", "The instance is not in a state to be stopped.")
    assert str(error) == (
        "terminating i-0ab in us-east-1: The instance is not in a state to be stopped (IncorrectInstanceState)"
    )
    assert error.code == "IncorrectInstanceState"
    assert error.exit_code == 3


def test_a_missing_permission_is_named_as_its_iam_action() -> None:
    error = _failed("UnauthorizedOperation", "You are not authorized to perform this operation. Encoded: x" * 3)
    assert error.iam_action == "ec2:TerminateInstances"
    assert "ec2:TerminateInstances is missing" in str(error)
    assert error.hint == "the IAM policy of these credentials must allow ec2:TerminateInstances"


def test_the_action_that_iam_names_wins() -> None:
    error = _failed(
        "UnauthorizedOperation",
        "User: arn:aws:iam::1:user/x is not authorized to perform: kms:CreateGrant on resource: y",
    )
    assert error.iam_action == "kms:CreateGrant"


@pytest.mark.parametrize("code", ["InvalidAMIName.Duplicate", "RequestExpired", "VPCIdNotSpecified"])
def test_codes_that_people_meet_have_a_hint(code: str) -> None:
    assert _failed(code).hint


def test_no_credentials_names_the_local_cloud() -> None:
    with pytest.raises(CloudError) as failed, translating("x"):
        raise NoCredentialsError
    assert failed.value.hint is not None
    assert "--local" in failed.value.hint


def test_no_answer_says_so() -> None:
    with pytest.raises(CloudError, match="no answer") as failed, translating("looking for images"):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
    assert failed.value.code == "NoAnswer"


def test_parameters_that_the_model_refuses_never_leave() -> None:
    client = boto3.client("ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
    with pytest.raises(CloudError) as failed, translating("terminating"):
        client.terminate_instances(InstanceIds="i-0ab")
    assert failed.value.code == "ParamValidation"


def test_a_profile_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(CloudError, match="nobody"):
        Session(Access(profile="nobody"))


def test_a_secret_is_not_in_the_text_of_an_access() -> None:
    assert "hunter2" not in repr(Access(secret_access_key="hunter2"))
