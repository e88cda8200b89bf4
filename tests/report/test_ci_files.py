"""Lines for `$GITHUB_OUTPUT` and for GitLab's dotenv report."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from imagepipe.report.ci_files import MOST_BYTES, MOST_VARIABLES, dotenv, github_output
from imagepipe.report.model import ImageReport
from tests.report.runs import IMAGES, failed, succeeded

FAMILY = tuple(
    ImageReport(f"worker[queue={number}]", "eu-west-1", f"ami-{number}", f"w-{number}", is_new=True)
    for number in range(40)
)


def test_the_images_of_one_spec_are_named_by_their_regions() -> None:
    other = ImageReport("web", "us-west-2", "ami-3", "web", is_new=True)
    lines = dict(
        line.split("=", 1) for line in github_output(replace(succeeded(), images=(*IMAGES, other))).splitlines()
    )
    images = json.loads(lines.pop("images"))
    assert lines == {
        "run": "7f3a91c2",
        "outcome": "succeeded",
        "image_id": "ami-2",
        "image_id_us_east_1": "ami-2",
        "image_id_us_west_2": "ami-3",
    }
    assert images[0] == {"spec": "web", "region": "us-east-1", "image_id": "ami-2", "name": "web-20261123"}


def test_the_images_of_several_specs_are_named_by_spec_and_region() -> None:
    report = replace(succeeded(), specs=("base", "worker[queue=1]"), images=FAMILY[:2])
    assert "image_id_worker_queue_1__eu_west_1=ami-1\n" in github_output(report)
    assert "\nimage_id=" not in github_output(report)


def test_a_run_without_images_says_so() -> None:
    assert github_output(failed()) == "run=7f3a91c2\noutcome=failed\nimages=[]\n"


def test_a_name_with_a_line_break_does_not_make_another_output() -> None:
    odd = (ImageReport("web", "us-east-1", "ami-2\nx=1", "a\nb=2", is_new=True),)
    lines = github_output(replace(succeeded(), images=odd)).splitlines()
    assert [line.partition("=")[0] for line in lines] == ["run", "outcome", "image_id", "image_id_us_east_1", "images"]


def test_a_dotenv_file_keeps_to_the_limits_of_gitlab() -> None:
    specs = tuple(each.spec for each in FAMILY)
    lines = dotenv(replace(succeeded(), specs=specs, images=FAMILY)).splitlines()
    assert len(lines) == MOST_VARIABLES
    assert all(re.fullmatch(r"IMAGEPIPE_[A-Z0-9_]+=[^\s\"'#]+", line) for line in lines)
    long = tuple(replace(each, spec=each.spec * 30) for each in FAMILY)
    assert len(dotenv(replace(succeeded(), specs=specs, images=long))) <= MOST_BYTES
