"""The SSM parameter of an image: whose it is, and that it is written once."""

from __future__ import annotations

import pytest

from imagepipe.cloud import tags
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.late import Late
from imagepipe.publish.parameter import CheckParameter, ImageParameter, WriteParameter
from imagepipe.values import Image
from tests.account import Account
from tests.published import kept_image, parameter

NAME = "/images/web"
OURS = ImageParameter(NAME, "web")


def _write(account: Account, image: Image, wanted: ImageParameter = OURS) -> None:
    WriteParameter(account.ec2, Ref("image"), wanted).run(account.context(image=image))


def _check(account: Account, wanted: ImageParameter = OURS) -> None:
    CheckParameter({"us-east-1": account.ec2}, wanted).run(account.context())


def _put(account: Account, value: str, **more: str) -> None:
    account.cloud.client("ssm").put_parameter(Name=NAME, Value=value, **{"Type": "String", **more})


def test_a_new_parameter_is_of_the_image_type_and_has_the_tags_of_its_spec(account: Account) -> None:
    image = kept_image(account)
    _check(account)
    _write(account, image, ImageParameter(NAME, "web", "size=s"))
    found = parameter(account, NAME)
    assert (found["Value"], found["DataType"], found["Version"]) == (image.id, "aws:ec2:image", 1)
    stored = account.ec2.parameters.stored(NAME)
    assert stored is not None
    assert stored.tags == {tags.SPEC: "web", tags.VARIANT: "size=s"}


def test_another_image_is_a_new_version_and_the_same_one_is_not(account: Account) -> None:
    first, second = kept_image(account, "one"), kept_image(account, "two")
    for image in (first, second, second):
        _write(account, image)
    assert (parameter(account, NAME)["Value"], parameter(account, NAME)["Version"]) == (second.id, 2)
    history = account.cloud.client("ssm").get_parameter_history(Name=NAME)["Parameters"]
    assert [each["Value"] for each in history] == [first.id, second.id]


@pytest.mark.parametrize("value", ["hello", "ami-12345678"])
def test_a_parameter_of_another_data_type_is_refused_with_its_value_and_the_way_out(
    account: Account, value: str
) -> None:
    _put(account, value)
    says = f"{NAME} in us-east-1 exists and is not for images: '{value}'"
    with pytest.raises(CloudError, match=says):
        _write(account, kept_image(account))
    with pytest.raises(CloudError, match=says) as error:
        _check(account)
    assert "data type text, version 1" in str(error.value)
    assert "aws ssm delete-parameter --region us-east-1 --name /images/web" in str(error.value.hint)


def test_the_value_of_a_secret_is_never_printed(account: Account) -> None:
    _put(account, "hunter2", Type="SecureString")
    with pytest.raises(CloudError, match="a secret, type SecureString") as error:
        _check(account)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("owner", "says"),
    [
        ({}, "belongs to no spec"),
        ({tags.SPEC: "db"}, "belongs to db, not to web"),
        ({tags.SPEC: "web", tags.VARIANT: "size=m"}, r"belongs to web\[size=m\], not to web"),
    ],
    ids=["nobody", "other-spec", "variant"],
)
def test_a_parameter_of_somebody_else_is_refused_and_can_be_given_to_the_spec(
    account: Account, owner: dict[str, str], says: str
) -> None:
    image = kept_image(account)
    account.ec2.parameters.create_image_parameter(NAME, image.id, owner or {"team": "x"})
    with pytest.raises(CloudError, match=says) as error:
        _check(account)
    assert f"--resource-id {NAME} --tags 'Key={tags.SPEC},Value=\"web\"'" in str(error.value.hint)
    with pytest.raises(CloudError, match=says):
        _write(account, kept_image(account, "two"))
    assert parameter(account, NAME)["Value"] == image.id
    ssm = account.cloud.client("ssm")
    ssm.remove_tags_from_resource(ResourceType="Parameter", ResourceId=NAME, TagKeys=[tags.VARIANT])
    own = [{"Key": tags.SPEC, "Value": "web"}]
    ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId=NAME, Tags=own)
    _check(account)


def test_the_name_may_use_the_region_and_is_checked_in_each(account: Account) -> None:
    image = kept_image(account)
    _write(account, image, ImageParameter(Late("/images/{{ region }}/web"), "web"))
    assert parameter(account, "/images/us-east-1/web")["Value"] == image.id
    with pytest.raises(CloudError, match="cannot start with aws or ssm"):
        _check(account, ImageParameter(Late("/aws/{{ region }}"), "web"))


def test_an_image_that_systems_manager_does_not_store_is_an_error(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagepipe.publish.parameter.STORED_SECONDS", 0.2)
    with pytest.raises(CloudError, match=r"accepted ami-12345678, but 0\.2 s later the value is still missing"):
        _write(account, Image("ami-12345678", "us-east-1", "gone", ()))


def test_differences_are_named_and_nothing_is_written(account: Account) -> None:
    first, second = kept_image(account, "one"), kept_image(account, "two")
    stage = WriteParameter(account.ec2, Ref("image"), OURS)
    assert stage.differences({"ImageId": first.id}) == [f"+ SSM parameter {NAME} is {first.id}"]
    assert account.ec2.parameters.value(NAME) is None
    _write(account, first)
    assert stage.differences({"ImageId": first.id}) == []
    assert stage.differences({"ImageId": second.id}) == [f"~ SSM parameter {NAME} is {second.id}, not {first.id}"]


def test_a_parameter_that_somebody_creates_meanwhile_is_checked_again(account: Account) -> None:
    image, other = kept_image(account, "one"), kept_image(account, "two")
    create = account.ec2.parameters.create_image_parameter

    def after_another(name: str, id: str, own: dict[str, str]) -> None:
        create(name, other.id, {tags.SPEC: "db"})
        create(name, id, own)

    account.ec2.parameters.create_image_parameter = after_another  # type: ignore[method-assign, assignment]
    with pytest.raises(CloudError, match="belongs to db"):
        _write(account, image)
    assert parameter(account, NAME)["Value"] == other.id
