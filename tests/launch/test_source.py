from __future__ import annotations

from datetime import timedelta

import pytest

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.images import ImageFilter
from imagepipe.cloud.tags import SOURCE
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.late import Late
from imagepipe.launch.devices import DevicePlan
from imagepipe.launch.source import BySsm, CheckNames, FindSource, NameImages, Newest
from imagepipe.values import ImageText
from tests.account import Account
from tests.local.aws import harness

DEBIAN = ImageFilter("debian-12-amd64-*", ("136693071363",), "x86_64")


def _own(account: Account, name: str, region: str = "us-east-1") -> str:
    ec2 = account.cloud.client(region=region)
    return harness.available(ec2, harness.register(ec2, harness.snapshot_of(ec2, harness.stopped(ec2)), name))


def test_an_image_is_found_by_its_name(account: Account) -> None:
    found = FindSource(account.ec2, Newest(DEBIAN, only=True)).run(account.context())
    assert found.name == "debian-12-amd64-20261123-local"
    assert found.root_device_name == "/dev/xvda"


def test_an_image_is_found_by_its_id(account: Account) -> None:
    id = harness.base_image(account.cloud.client())
    assert FindSource(account.ec2, id).run(account.context()).id == id


def test_the_newest_of_several_is_taken(account: Account) -> None:
    _own(account, "web-1")
    newest = _own(account, "web-2")
    own = ImageFilter("web-*", ("self",))
    assert FindSource(account.ec2, Newest(own, only=False)).run(account.context()).id == newest


def test_several_are_an_error_where_only_one_may_match(account: Account) -> None:
    _own(account, "web-1")
    _own(account, "web-2")
    with pytest.raises(
        CloudError, match=r"2 images are named web-\* \(owner self\) in us-east-1: ami-\w+ web-2, ami-\w+ web-1"
    ):
        FindSource(account.ec2, Newest(ImageFilter("web-*", ("self",)), only=True)).run(account.context())


def test_no_match_is_an_error_that_names_what_was_looked_for(account: Account) -> None:
    with pytest.raises(CloudError, match=r"named debian-99-.* \(owner 136693071363\) in us-east-1"):
        FindSource(account.ec2, Newest(ImageFilter("debian-99-*", ("136693071363",)), only=False)).run(
            account.context()
        )


def test_deprecated_images_are_named_if_nothing_else_matches(account: Account) -> None:
    # github.com/hashicorp/packer-plugin-amazon/issues/403 and 261: EC2 leaves them out, which looked like no image.
    other = account.cloud.client(other=True)
    old = harness.available(other, harness.register(other, harness.snapshot_of(other, harness.stopped(other)), "old-1"))
    other.modify_image_attribute(ImageId=old, LaunchPermission={"Add": [{"UserId": harness.ACCOUNT}]})
    wanted = Newest(ImageFilter("old-*", (harness.OTHER_ACCOUNT,)), only=False)
    assert FindSource(account.ec2, wanted).run(account.context()).id == old
    clock = account.cloud.gateway.backend.clock
    other.enable_image_deprecation(ImageId=old, DeprecateAt=clock.now() + timedelta(minutes=2))
    clock.advance(180)
    with pytest.raises(CloudError, match=f"every available image named old-.* is deprecated; the newest is {old}") as e:
        FindSource(account.ec2, wanted).run(account.context())
    assert "by its id" in str(e.value.hint)
    assert FindSource(account.ec2, old).run(account.context()).id == old


def test_an_unknown_id_is_an_error(account: Account) -> None:
    with pytest.raises(CloudError) as failed:
        FindSource(account.ec2, "ami-0123456789abcdef0").run(account.context())
    assert failed.value.code == "InvalidAMIID.NotFound"
    assert failed.value.hint == "image ids differ by region; is launch.region the right one?"


def _check(account: Account, name: str | Late, *, replaces: bool = False) -> dict[str, str]:
    source = FindSource(account.ec2, Newest(DEBIAN, only=False)).run(account.context())
    regions = {region: account.regions[region] for region in ("us-east-1", "eu-west-1")}
    wanted = NameImages(tuple(regions), Ref("source"), name, "", {}).run(account.context(source=source))
    texts = CheckNames(regions, Ref("wanted"), replaces).run(account.context(wanted=wanted))
    return {region: text.name for region, text in texts.items()}


def test_description_and_tags_are_rendered_for_each_region_too(account: Account) -> None:
    late = Late("{{ source.id }} in {{ region }}")
    source = FindSource(account.ec2, Newest(DEBIAN, only=False)).run(account.context())
    stage = NameImages(("us-east-1", "eu-west-1"), Ref("source"), "web", late, {"from": late, "team": "web"})
    texts = stage.run(account.context(source=source))
    assert texts["eu-west-1"] == ImageText(
        "web", f"{source.id} in eu-west-1", {"from": f"{source.id} in eu-west-1", "team": "web", SOURCE: source.id}
    )
    assert texts["us-east-1"].description == f"{source.id} in us-east-1"


def test_a_free_name_is_the_same_in_every_region(account: Account) -> None:
    assert _check(account, "web") == {"us-east-1": "web", "eu-west-1": "web"}


def test_a_late_name_is_rendered_for_each_region(account: Account) -> None:
    late = Late("{{ var.x }}-{{ region }}-{{ source.owner }}", (("var", {"x": "web"}),))
    assert _check(account, late) == {
        "us-east-1": "web-us-east-1-136693071363",
        "eu-west-1": "web-eu-west-1-136693071363",
    }


def test_a_name_that_is_taken_in_a_copy_region_is_found_out_first(account: Account) -> None:
    taken = _own(account, "web", region="eu-west-1")
    with pytest.raises(CloudError, match=f"name 'web' is taken by {taken} in eu-west-1"):
        _check(account, "web")


def test_a_name_with_wildcards_is_taken_literally(account: Account) -> None:
    _own(account, "web-x")
    wanted = {"us-east-1": ImageText("web-?", "", {})}
    assert CheckNames({"us-east-1": account.ec2}, Ref("wanted")).run(account.context(wanted=wanted)) == wanted


def test_a_name_that_the_run_will_replace_is_baked_under_another(account: Account) -> None:
    _own(account, "web", region="eu-west-1")
    assert _check(account, "web", replaces=True) == {"us-east-1": "web", "eu-west-1": "web-r1"}


def test_a_protected_image_that_could_not_be_replaced_is_found_out_first(account: Account) -> None:
    taken = _own(account, "web")
    account.cloud.client().enable_image_deregistration_protection(ImageId=taken)
    with pytest.raises(CloudError, match=f"{taken} 'web' in us-east-1 cannot be replaced: it is protected"):
        _check(account, "web", replaces=True)


def test_a_late_name_that_ec2_would_not_take_is_refused_before_anything_is_launched(account: Account) -> None:
    with pytest.raises(CloudError, match="cannot have ':'"):
        _check(account, Late("{{ region }}:x"))


def _parameter(account: Account, value: str) -> None:
    account.cloud.client("ssm").put_parameter(Name="/images/base", Value=value, Type="String")


@pytest.mark.parametrize(
    ("description", "tags", "problem"),
    [
        ("{{ source.name }}" * 20, {}, r"output.description is .* in us-east-1: a description can have at most 255"),
        (
            "{{ source.name }} f\u00fcr alle",
            {},
            "accepts only printable ASCII characters in a description, not '\u00fc'",
        ),
        (
            "",
            {"from": "{{ source.name }}" * 20},
            r"output.tags.from is .* in us-east-1: a tag's value can have at most 256",
        ),
    ],
)
def test_texts_that_become_too_long_are_refused_once_the_source_is_known(
    account: Account, description: str, tags: dict[str, str], problem: str
) -> None:
    source = account.ec2.images.by_id(harness.base_image(account.cloud.client()))
    late = {key: Late(value) for key, value in tags.items()}
    stage = NameImages(("us-east-1",), Ref("source"), "web", Late(description), late)
    with pytest.raises(CloudError, match=problem):
        stage.run(account.context(source=source))


def test_the_source_is_refused_if_a_block_device_does_not_fit_it(account: Account) -> None:
    devices = DevicePlan(launch=(DeviceWanted("/dev/sda1", size_gib=20),))
    stage = FindSource(account.ec2, harness.base_image(account.cloud.client()), devices=devices)
    with pytest.raises(CloudError, match="is named /dev/xvda") as failed:
        stage.run(account.context())
    assert failed.value.hint == "write device: /dev/xvda"


def test_the_image_that_an_ssm_parameter_names_is_the_source(account: Account) -> None:
    image = harness.base_image(account.cloud.client())
    _parameter(account, image)
    assert FindSource(account.ec2, BySsm("/images/base")).run(account.context()).id == image


@pytest.mark.parametrize("selector", [":1", ":golden"])
@pytest.mark.parametrize("name", ["/images/base", "base", "arn:aws:ssm:us-east-1:000000000000:parameter/images/base"])
def test_a_parameter_may_be_named_with_a_version_or_a_label(account: Account, name: str, selector: str) -> None:
    image = harness.base_image(account.cloud.client())
    ssm = account.cloud.client("ssm")
    plain = name.partition("parameter")[2] or name
    for value in (image, "ami-0123456789abcdef0"):
        ssm.put_parameter(Name=plain, Value=value, Type="String", Overwrite=True)
    ssm.label_parameter_version(Name=plain, ParameterVersion=1, Labels=["golden"])
    assert FindSource(account.ec2, BySsm(name + selector)).run(account.context()).id == image


def test_a_version_or_a_label_that_does_not_exist_is_an_error(account: Account) -> None:
    _parameter(account, harness.base_image(account.cloud.client()))
    for selector in (":7", ":none"):
        with pytest.raises(CloudError, match=f"/images/base{selector} in us-east-1 does not exist"):
            FindSource(account.ec2, BySsm("/images/base" + selector)).run(account.context())


def test_an_ssm_parameter_that_is_no_image_says_what_it_holds(account: Account) -> None:
    _parameter(account, '{"image": "ami-1"}')
    with pytest.raises(CloudError, match=r"/images/base in us-east-1 holds '\{\"image\"") as failed:
        FindSource(account.ec2, BySsm("/images/base")).run(account.context())
    assert failed.value.code == "InvalidAMIID.Malformed"


def test_an_ssm_parameter_that_there_is_not_is_an_error(account: Account) -> None:
    with pytest.raises(CloudError, match="SSM parameter /images/none in us-east-1 does not exist"):
        FindSource(account.ec2, BySsm("/images/none")).run(account.context())


@pytest.mark.parametrize("replaces", [False, True])
def test_a_name_is_not_taken_by_an_image_that_the_run_itself_has_made(account: Account, replaces: bool) -> None:
    ec2 = account.cloud.client()
    image = harness.bake(ec2, "web")
    ec2.create_tags(Resources=[image], Tags=[{"Key": "imagepipe:run", "Value": account.context().run_id}])
    text = {"us-east-1": ImageText("web", "", {})}
    stage = CheckNames({"us-east-1": account.ec2}, Ref("wanted"), replaces)
    assert stage.run(account.context(wanted=text)) == text
