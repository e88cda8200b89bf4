"""Launch templates get one version with the image, which differs in nothing else."""

from __future__ import annotations

from typing import Literal

import pytest

from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.publish.launch_template import CheckTemplates, TemplateTarget, UpdateTemplate
from imagepipe.values import Image
from tests.account import Account
from tests.published import kept_image, template, versions


def _target(
    name: str | None = "web",
    *,
    id: str | None = None,
    source: Literal["default", "latest"] = "default",
    default: bool = True,
) -> TemplateTarget:
    return TemplateTarget(id, None if id else name, source, default)


def _update(account: Account, image: Image, target: TemplateTarget) -> None:
    UpdateTemplate(account.ec2, Ref("image"), target).run(account.context(image=image))


def _shown(account: Account) -> list[tuple[int, str, str, bool]]:
    return [
        (
            row["VersionNumber"],
            row["LaunchTemplateData"]["ImageId"],
            row["LaunchTemplateData"]["InstanceType"],
            row["DefaultVersion"],
        )
        for row in versions(account)
    ]


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_new_version_differs_only_in_the_image_and_is_the_default(account: Account, by: str) -> None:
    id, image = template(account), kept_image(account)
    target = _target(id=id) if by == "id" else _target()
    for _ in range(2):
        _update(account, image, target)
    assert _shown(account) == [(1, "ami-00000000", "t3.small", False), (2, image.id, "t3.small", True)]
    assert versions(account)[1]["VersionDescription"] == f"imagepipe: version 1 with {image.id}"


def test_without_set_default_the_new_version_is_only_the_latest(account: Account) -> None:
    template(account)
    image = kept_image(account)
    for _ in range(2):
        _update(account, image, _target(default=False))
    assert _shown(account) == [(1, "ami-00000000", "t3.small", True), (2, image.id, "t3.small", False)]


@pytest.mark.parametrize(("source", "type"), [("default", "t3.small"), ("latest", "t3.large")])
def test_a_draft_is_the_source_only_if_the_spec_says_so(
    account: Account, source: Literal["default", "latest"], type: str
) -> None:
    template(account)
    account.cloud.client().create_launch_template_version(
        LaunchTemplateName="web", SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.large"}
    )
    image = kept_image(account)
    _update(account, image, _target(source=source))
    assert _shown(account)[-1] == (3, image.id, type, True)


def test_a_run_that_died_before_it_set_the_default_makes_no_second_version(account: Account) -> None:
    template(account)
    image = kept_image(account)
    account.fault("refuse", "ModifyLaunchTemplate", code="InternalError", status=400)
    with pytest.raises(CloudError, match="making version 2 of lt-"):
        _update(account, image, _target())
    assert [row[3] for row in _shown(account)] == [True, False]
    _update(account, image, _target())
    assert [row[3] for row in _shown(account)] == [False, True]


def test_a_version_whose_answer_is_lost_is_created_once(account: Account) -> None:
    template(account)
    account.fault("cut-after", "CreateLaunchTemplateVersion")
    image = kept_image(account)
    _update(account, image, _target())
    assert [row[0] for row in _shown(account)] == [1, 2]


def test_differences_name_the_image_of_the_template(account: Account) -> None:
    template(account)
    image = kept_image(account)
    stage = UpdateTemplate(account.ec2, Ref("image"), _target())
    described = {"ImageId": image.id}
    assert stage.differences(described) == [
        f"~ launch template web: a new default version with {image.id}, not ami-00000000"
    ]
    _update(account, image, _target())
    assert stage.differences(described) == []


def test_a_template_that_does_not_exist_is_found_before_anything_is_launched(account: Account) -> None:
    template(account)
    both = {region: account.regions[region] for region in ("us-east-1", "us-west-2")}
    check = CheckTemplates(both, {"us-east-1": (_target(),), "us-west-2": (_target(),)})
    with pytest.raises(CloudError, match="looking up launch template web in us-west-2") as e:
        check.run(account.context())
    assert "set its `region`" in str(e.value.hint)
