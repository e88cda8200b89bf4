"""Find the resources that use images of one region: of this account, by describing them; of others, by usage reports.

DescribeImageReferences knows instances, launch templates, parameters and Image Builder's recipes. It knows no Auto
Scaling group and no launch configuration, and no launch template that names a parameter (EC2 user guide, "How AMI
reference checks work"). Those are described here, so that one call for each page answers for all images.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from imagepipe.clock import Deadline
from imagepipe.cloud.errors import translating
from imagepipe.cloud.session import Session
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError

IMAGES_PER_CALL = 10
"""Images in one call of DescribeImageReferences. EC2 documents no limit; the local cloud takes ten."""
PARAMETERS_PER_CALL = 10
"""Limit of GetParameters (Systems Manager API reference)."""
EVERY_VERSION = "10000"
"""Number of versions of a launch template that are checked: the most that EC2 allows; its default is 10."""
NOT_TERMINATED = ("pending", "running", "shutting-down", "stopping", "stopped")
KINDS: Mapping[str, str] = {
    "ec2:Instance": "instance",
    "ec2:LaunchTemplate": "launch template",
    "ssm:Parameter": "parameter",
    "imagebuilder:ImageRecipe": "image recipe",
    "imagebuilder:ContainerRecipe": "container recipe",
}
_IN_REPORTS = ("ec2:Instance", "ec2:LaunchTemplate", "imagebuilder:ImageRecipe", "imagebuilder:ContainerRecipe")
_BY_PARAMETER = "resolve:ssm:"
"""Start of the image id in a launch template that names a parameter (EC2 user guide, "Use a Systems Manager parameter
instead of an AMI ID")."""
_REPORT_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses between looks at a pending usage report; the last one is repeated."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A resource that uses an image."""

    kind: str
    """Kind of resource in words: `launch template`."""
    id: str
    """Id, name or path of the resource; the account and a count for resources of another account."""

    def describe(self) -> str:
        """Return the resource as text."""
        return f"{self.kind} {self.id}"


class Cancel(Protocol):
    """The part of a run's cancel flag that a wait needs."""

    def sleep(self, seconds: float) -> None: ...


class References:
    """References to images of one region."""

    def __init__(self, session: Session, client: Any, region: str) -> None:
        self._session = session
        self._client = client
        self.region = region

    def of_this_account(self, images: Collection[str]) -> dict[str, list[Reference]]:
        """Return the account's resources that use images, by image. The number of calls grows with pages.

        Raises CloudError if one of the checks fails, also for a missing permission: then no image is known to be free.
        """
        wanted = sorted(images)
        found: dict[str, list[Reference]] = {image: [] for image in wanted}
        if not wanted:
            return found
        for image, reference in self._all(wanted):
            if image in found and reference not in found[image]:
                found[image].append(reference)
        return found

    def _all(self, images: Sequence[str]) -> Iterator[tuple[str, Reference]]:
        for start in range(0, len(images), IMAGES_PER_CALL):
            yield from self._known_to_ec2(images[start : start + IMAGES_PER_CALL])
        yield from self._launch_configurations()
        yield from self._scaling_groups()
        yield from self._templates_by_parameter()

    def _known_to_ec2(self, images: Sequence[str]) -> Iterator[tuple[str, Reference]]:
        """Yield everything that DescribeImageReferences knows, types that are newer than this program included."""
        with translating(f"looking for the resources that use images in {self.region}"):
            pages = self._client.get_paginator("describe_image_references").paginate(
                ImageIds=list(images),
                IncludeAllResourceTypes=True,
                ResourceTypes=[
                    _with_option("ec2:Instance", "state-name", NOT_TERMINATED),
                    _with_option("ec2:LaunchTemplate", "version-depth", (EVERY_VERSION,)),
                ],
            )
            rows = [row for page in pages for row in page["ImageReferences"]]
        for row in rows:
            yield str(row["ImageId"]), _reference(str(row["ResourceType"]), str(row.get("Arn", "")))

    def _launch_configurations(self) -> Iterator[tuple[str, Reference]]:
        with translating(f"listing launch configurations in {self.region}", service="autoscaling"):
            pages = self._scaling.get_paginator("describe_launch_configurations").paginate()
            rows = [row for page in pages for row in page["LaunchConfigurations"]]
        for row in rows:
            yield str(row.get("ImageId", "")), Reference("launch configuration", str(row["LaunchConfigurationName"]))

    def _scaling_groups(self) -> Iterator[tuple[str, Reference]]:
        """Yield the images that groups name themselves, in overrides. Their launch templates are found as templates."""
        with translating(f"listing Auto Scaling groups in {self.region}", service="autoscaling"):
            pages = self._scaling.get_paginator("describe_auto_scaling_groups").paginate()
            rows = [row for page in pages for row in page["AutoScalingGroups"]]
        for row in rows:
            overrides = row.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {}).get("Overrides", ())
            for override in overrides:
                if image := override.get("ImageId"):
                    yield str(image), Reference("Auto Scaling group", str(row["AutoScalingGroupName"]))

    def _templates_by_parameter(self) -> Iterator[tuple[str, Reference]]:
        """Yield launch templates whose newest or default version names a parameter, also an old version of it."""
        with translating(f"listing launch templates in {self.region}"):
            pages = self._client.get_paginator("describe_launch_template_versions").paginate(
                Versions=["$Latest", "$Default"]
            )
            rows = [row for page in pages for row in page["LaunchTemplateVersions"]]
        named: dict[str, list[str]] = {}
        for row in rows:
            image = str(row.get("LaunchTemplateData", {}).get("ImageId", ""))
            if image.startswith(_BY_PARAMETER):
                named.setdefault(image.removeprefix(_BY_PARAMETER), []).append(str(row["LaunchTemplateName"]))
        names = sorted(named)
        for start in range(0, len(names), PARAMETERS_PER_CALL):
            chunk = names[start : start + PARAMETERS_PER_CALL]
            with translating(f"reading the parameters of launch templates in {self.region}", service="ssm"):
                answer = self._session.client("ssm", self.region).get_parameters(Names=chunk)
            for row in answer["Parameters"]:
                for name in chunk:
                    if _names(name, row):
                        for template in named[name]:
                            yield str(row["Value"]), Reference("launch template", template)

    @property
    def _scaling(self) -> Any:
        return self._session.client("autoscaling", self.region)

    def of_other_accounts(self, image: str, *, deadline: Deadline, cancel: Cancel) -> list[Reference]:
        """Return how many resources of other accounts use a shared image, by a usage report, which is deleted.

        Raises CloudError if there is no report: then the image must be treated as used.
        """
        types = [
            _with_option(kind, "version-depth", (EVERY_VERSION,))
            if kind == "ec2:LaunchTemplate"
            else {"ResourceType": kind}
            for kind in _IN_REPORTS
        ]
        with translating(f"creating a usage report of {image} in {self.region}"):
            report = str(self._client.create_image_usage_report(ImageId=image, ResourceTypes=types)["ReportId"])
        try:
            self._await_report(image, report, deadline, cancel)
            with translating(f"reading the usage report of {image} in {self.region}"):
                pages = self._client.get_paginator("describe_image_usage_report_entries").paginate(ReportIds=[report])
                rows = [row for page in pages for row in page["ImageUsageReportEntries"]]
        finally:
            # A report that remains costs nothing, and EC2 deletes it after 30 days.
            with suppress(CloudError), translating(f"deleting usage report {report} in {self.region}"):
                self._client.delete_image_usage_report(ReportId=report)
        return [
            Reference(f"account {row['AccountId']}", f"({row['UsageCount']} x {_kind(str(row['ResourceType']))})")
            for row in rows
            if int(row.get("UsageCount", 1))
        ]

    def _await_report(self, image: str, report: str, deadline: Deadline, cancel: Cancel) -> None:
        pauses = iter(_REPORT_PAUSES)
        while True:
            state, reason = self._state(report)
            if state == "available":
                return
            if state == "error":
                raise CloudError(f"the usage report of {image} in {self.region} failed: {reason}", code="UsageReport")
            if deadline.is_past():
                raise CloudError(
                    f"the usage report of {image} in {self.region} is {state} after {deadline.seconds:g} s",
                    code="UsageReport",
                    hint="run the command again later",
                )
            cancel.sleep(min(next(pauses, _REPORT_PAUSES[-1]), max(deadline.remaining(), 0.05)))

    def _state(self, report: str) -> tuple[str, str]:
        """Return the state of a report and its reason; a report that is not visible yet is pending."""
        try:
            with translating(f"looking up usage report {report} in {self.region}"):
                rows = self._client.describe_image_usage_reports(ReportIds=[report])["ImageUsageReports"]
        except CloudError as error:
            if not re.fullmatch(r"InvalidImageUsageReportId\..*", error.code):
                raise
            rows = []
        if not rows:
            return "pending", ""
        reason = rows[0].get("StateReason") or "no reason given"
        return str(rows[0].get("State", "pending")), str(reason)


def _names(name: str, row: Mapping[str, Any]) -> bool:
    """Return whether a parameter's name or ARN, with `:VERSION` or `:LABEL`, is that of this answer.

    An answer without a selector counts for every version of the name: an image too many is kept, and none too few.
    """
    if selector := str(row.get("Selector") or ""):
        return name.endswith(f"{row['Name']}{selector}")
    path = name.removeprefix("arn:").rpartition(":parameter")[2]
    return path.partition(":")[0].lstrip("/") == str(row["Name"]).lstrip("/")


def _with_option(kind: str, option: str, values: Sequence[str]) -> dict[str, Any]:
    return {"ResourceType": kind, "ResourceTypeOptions": [{"OptionName": option, "OptionValues": list(values)}]}


def _kind(resource_type: str) -> str:
    return KINDS.get(resource_type, resource_type)


def _reference(resource_type: str, arn: str) -> Reference:
    """Return a reference with the part of the ARN that people know."""
    resource = arn.split(":", 5)[-1]
    name = resource.partition("/")[2] or resource or "?"
    return Reference(_kind(resource_type), f"/{name}" if resource_type == "ssm:Parameter" and "/" in name else name)
