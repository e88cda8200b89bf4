"""Rules of `publish`, each with its position."""

from __future__ import annotations

import pytest

from .conftest import SOUND, Loader

HOME = "launch: {region: us-east-1, ssh: {user: admin}}\n"
TWO = "regions: [us-west-2], "
WRONG = {
    "other region": (TWO + "best_effort: [eu-west-1]", "publish.best_effort.0", "eu-west-1 is not in publish.regions"),
    "launch region": (
        "regions: [us-east-1], best_effort: [us-east-1]",
        "publish.best_effort.0",
        "is the launch region",
    ),
    "source": ("ssm_parameter: '/x/{{ source.id }}'", "publish.ssm_parameter", "'source.id' differs from build"),
    "build": ("ssm_parameter: '/x/{{ build.id }}'", "publish.ssm_parameter", "'build.id' differs from build to build"),
    "version": ("ssm_parameter: '/x/web:3'", "publish.ssm_parameter", "write the name alone"),
    "arn": ("ssm_parameter: 'arn:aws:ssm:us-east-1:123456789012:parameter/x'", "publish.ssm_parameter", "by ARN"),
    "no slash": ("ssm_parameter: images/web", "publish.ssm_parameter", "a path that starts with /"),
    "reserved": ("ssm_parameter: /AWS/web", "publish.ssm_parameter", "cannot start with aws or ssm"),
    "too deep": ("ssm_parameter: " + "/a" * 16, "publish.ssm_parameter", "15 levels"),
    "both": ("launch_templates: [{id: lt-12345678, name: web}]", "publish.launch_templates.0", "exactly one of id and"),
    "neither": ("launch_templates: [{set_default: true}]", "publish.launch_templates.0", "exactly one of id and name"),
    "name": ("launch_templates: [{name: a!}]", "publish.launch_templates.0.name", "3 to 128 letters"),
    "id": ("launch_templates: [{id: lt-1}]", "publish.launch_templates.0.id", "lt- and 8 or 17 hex digits"),
    "twice": ("launch_templates: [{name: web}, {name: web}]", "publish.launch_templates.1", "listed twice"),
    "no image": ("launch_templates: [{name: web, region: eu-west-1}]", "publish.launch_templates.0.region", "no image"),
    "unknown": ("launch_templates: [{name: web, region: eu-wst-1}]", "publish.launch_templates.0.region", "eu-wst-1"),
    "zero": ("deprecate_after: 0s", "publish.deprecate_after", "write never"),
    "public": ("share: {public: true}, deprecate_after: 800d", "publish.deprecate_after", "at most two years"),
    "typing": (
        "deregistration_protection: {cooldwn: true}",
        "publish.deregistration_protection.cooldwn",
        "unknown key",
    ),
    "word": ("deregistration_protection: yes please", "publish.deregistration_protection", ""),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_no_build_could_publish_is_reported_at_its_position(loaded: Loader, case: str) -> None:
    publish, path, says = WRONG[case]
    spec = loaded(SOUND + HOME + f"publish: {{{publish}}}\n", whole=True)
    found = [problem for problem in spec.problems if problem.path == path]
    assert found, [(problem.path, problem.message) for problem in spec.problems]
    assert says in found[0].message


def test_a_protected_image_cannot_be_replaced_and_a_replaced_one_should_not_be_named(loaded: Loader) -> None:
    spec = loaded(
        SOUND.replace("output: {", "output: {on_name_taken: replace, ")
        + "publish: {deregistration_protection: true, ssm_parameter: /images/web}\n",
        whole=True,
    )
    assert {(problem.path, problem.severity) for problem in spec.problems} == {
        ("publish.deregistration_protection", "error"),
        ("publish.ssm_parameter", "warning"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", {"cooldown": False}), ("{cooldown: true}", {"cooldown": True}), ("false", False)],
)
def test_protection_is_a_boolean_or_its_options(loaded: Loader, text: str, expected: object) -> None:
    spec = loaded(SOUND + f"publish: {{deregistration_protection: {text}, deprecate_after: never}}\n", whole=True)
    assert spec.problems == []
    dumped = spec.checked().publish.model_dump()
    assert (dumped["deregistration_protection"], dumped["deprecate_after"]) == (expected, 0.0)
