"""Parts of the language that a build does not support yet: each is reported at its position, and nothing else is."""

from __future__ import annotations

import pytest

from imagepipe.spec.not_yet import not_yet

from .conftest import SOUND, Loader

EACH = {
    "publish.ssm_parameter": SOUND + "publish: {ssm_parameter: /images/web}\n",
    "publish.deprecate_after": SOUND + "publish: {deprecate_after: 90d}\n",
}


@pytest.mark.parametrize("path", EACH)
def test_a_part_that_is_not_supported_yet_is_reported_at_its_position(loaded: Loader, path: str) -> None:
    spec = loaded(EACH[path], whole=True)
    assert spec.problems == []
    (problem,) = not_yet(spec)
    assert (problem.path, problem.severity) == (path, "error")
    assert "not supported yet" in problem.message
    assert problem.line > 2


def test_a_spec_that_can_be_built_has_no_such_problem(loaded: Loader) -> None:
    spec = loaded(
        "launch: {block_devices: [{device: /dev/sdf, size_gib: 8, encrypted: true}], subnets: [subnet-01234567]}\n"
        "publish: {regions: [us-west-2]}\n"
    )
    assert spec.problems == []
    assert not_yet(spec) == []


def test_an_instance_store_image_can_be_built(loaded: Loader) -> None:
    spec = loaded(
        "imagepipe: 1\nname: web\nsource: {ami: ami-0123456789abcdef0}\nlaunch: {instance_types: [m3.medium]}\n"
        'output: {type: instance-store, name: web-1, bucket: my-images, account: "123456789012"}\n',
        whole=True,
    )
    assert spec.problems == []
    assert not_yet(spec) == []


def test_a_spec_with_errors_has_no_such_problems(loaded: Loader) -> None:
    assert not_yet(loaded("publish: {ssm_parameter: /images/web, regoins: []}\n")) == []
