"""Usage reports count the resources of other accounts that use a shared image."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from imagepipe.local.aws.faults.faults import Fault
from tests.local.aws.harness import (
    OTHER_ACCOUNT,
    Cloud,
    bake,
    caller,
    launch,
    may,
    refused,
    share,
    until,
)

DAY = 24 * 3600
INSTANCES, TEMPLATES = "ec2:Instance", "ec2:LaunchTemplate"


def create(ec2: Any, image_id: str, *kinds: str, **params: Any) -> str:
    types = [{"ResourceType": kind} for kind in kinds or (INSTANCES, TEMPLATES)]
    return str(ec2.create_image_usage_report(ImageId=image_id, ResourceTypes=types, **params)["ReportId"])


def described(ec2: Any, report: str) -> Any:
    return ec2.describe_image_usage_reports(ReportIds=[report])["ImageUsageReports"][0]


def entries(ec2: Any, report: str, **params: Any) -> list[tuple[str, str, int]]:
    until(lambda: described(ec2, report)["State"] == "available")
    rows = ec2.describe_image_usage_report_entries(ReportIds=[report], **params)["ImageUsageReportEntries"]
    return [(row["AccountId"], row["ResourceType"], row["UsageCount"]) for row in rows]


def shared_with(cloud: Cloud, *accounts: str) -> str:
    baked = bake(cloud.client(), "web-1")
    for account in accounts:
        share(cloud.client(), baked, account)
    return baked


def test_a_report_counts_by_account_and_type_and_leaves_out_the_owner(cloud: Cloud, ec2: Any) -> None:
    third = cloud.added_account()
    baked, other = shared_with(cloud, OTHER_ACCOUNT, third["Account"]), cloud.client(other=True)
    launch(ec2, ImageId=baked)
    for _ in range(2):
        launch(other, ImageId=baked)
    other.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"ImageId": baked})
    for _ in range(3):
        other.create_launch_template_version(LaunchTemplateName="web", LaunchTemplateData={"ImageId": baked})
    launch(cloud.client(keys=third), ImageId=baked)
    report = create(ec2, baked)
    expected = {(OTHER_ACCOUNT, INSTANCES, 2), (OTHER_ACCOUNT, TEMPLATES, 1), (third["Account"], INSTANCES, 1)}
    assert set(entries(ec2, report)) == expected
    by_account = [{"Name": "account-id", "Values": [third["Account"]]}]
    assert entries(ec2, report, Filters=by_account) == [(third["Account"], INSTANCES, 1)]
    limited = create(ec2, baked, INSTANCES, AccountIds=[third["Account"]])
    assert entries(ec2, limited) == [(third["Account"], INSTANCES, 1)]
    assert described(ec2, limited)["AccountIds"] == [third["Account"]]


def test_a_report_on_an_image_that_nobody_uses_has_no_entries(cloud: Cloud, ec2: Any) -> None:
    assert entries(ec2, create(ec2, shared_with(cloud, OTHER_ACCOUNT))) == []


def test_twenty_versions_of_a_template_are_checked_unless_the_request_says_another_number(
    cloud: Cloud, ec2: Any
) -> None:
    baked, other = shared_with(cloud, OTHER_ACCOUNT), cloud.client(other=True)
    other.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"ImageId": baked})
    for _ in range(20):
        other.create_launch_template_version(LaunchTemplateName="web", LaunchTemplateData={"InstanceType": "t3.nano"})
    assert entries(ec2, create(ec2, baked, TEMPLATES)) == []
    option = {"OptionName": "version-depth", "OptionValues": ["21"]}
    kinds = [{"ResourceType": TEMPLATES, "ResourceTypeOptions": [option]}]
    deeper = ec2.create_image_usage_report(ImageId=baked, ResourceTypes=kinds)["ReportId"]
    assert entries(ec2, deeper) == [(OTHER_ACCOUNT, TEMPLATES, 1)]
    assert described(ec2, deeper)["ResourceTypes"] == kinds


def test_a_pending_report_has_no_entries_and_is_made_after_a_restart(cloud: Cloud, ec2: Any) -> None:
    baked = shared_with(cloud, OTHER_ACCOUNT)
    launch(cloud.client(other=True), ImageId=baked)
    cloud.delays = {"usage-report": 60}
    cloud.admin("POST", "delays", {"usage-report": 60})
    report = create(ec2, baked, INSTANCES)
    assert described(ec2, report)["State"] == "pending"
    assert ec2.describe_image_usage_report_entries(ReportIds=[report])["ImageUsageReportEntries"] == []
    cloud.delays = {}
    cloud.restart()
    assert entries(cloud.client(), report) == [(OTHER_ACCOUNT, INSTANCES, 1)]


def test_a_report_can_be_made_to_fail_and_says_why(cloud: Cloud, ec2: Any) -> None:
    cloud.gateway.backend.faults.add(Fault(effect="fail", action="CreateImageUsageReport", message="no capacity"))
    report = create(ec2, shared_with(cloud))
    until(lambda: described(ec2, report)["State"] == "error")
    assert "no capacity" in described(ec2, report)["StateReason"]
    assert ec2.describe_image_usage_report_entries(ReportIds=[report])["ImageUsageReportEntries"] == []


def test_a_new_report_can_be_hidden_for_a_while(cloud: Cloud, ec2: Any) -> None:
    cloud.gateway.backend.faults.add(Fault(effect="hide", action="CreateImageUsageReport", calls=1))
    report = create(ec2, shared_with(cloud))
    with refused("InvalidImageUsageReportId.NotFound"):
        described(ec2, report)
    assert described(ec2, report)["ReportId"] == report


def test_a_repeated_request_makes_one_report(cloud: Cloud, ec2: Any) -> None:
    baked = shared_with(cloud)
    token = "t" * 128
    assert create(ec2, baked, ClientToken=token) == create(ec2, baked, ClientToken=token)
    with refused("IdempotentParameterMismatch"):
        create(ec2, baked, INSTANCES, ClientToken=token)
    assert len(ec2.describe_image_usage_reports(ImageIds=[baked])["ImageUsageReports"]) == 1


def test_a_report_has_tags_and_is_the_owners_alone(cloud: Cloud, ec2: Any) -> None:
    baked = shared_with(cloud, OTHER_ACCOUNT)
    specification = {"ResourceType": "image-usage-report", "Tags": [{"Key": "run", "Value": "1"}]}
    report = create(ec2, baked, TagSpecifications=[specification])
    ec2.create_tags(Resources=[report], Tags=[{"Key": "team", "Value": "images"}])
    of_team = [{"Name": "tag:team", "Values": ["images"]}]
    [found] = ec2.describe_image_usage_reports(Filters=of_team)["ImageUsageReports"]
    assert {tag["Key"]: tag["Value"] for tag in found["Tags"]} == {"run": "1", "team": "images"}
    with refused("InvalidImageUsageReportId.NotFound"):
        cloud.client(other=True).describe_image_usage_report_entries(ReportIds=[report])
    with refused("AuthFailure"):
        create(cloud.client(other=True), baked)


def test_a_report_is_deleted_by_its_owner_or_after_thirty_days(cloud: Cloud, ec2: Any) -> None:
    baked = shared_with(cloud)
    first, second = create(ec2, baked), create(ec2, baked)
    found = described(ec2, first)
    assert found["ExpirationTime"] - found["CreationTime"] == timedelta(days=30)
    until(lambda: described(ec2, second)["State"] == "available")
    assert ec2.delete_image_usage_report(ReportId=first)["Return"] is True
    assert [row["ReportId"] for row in ec2.describe_image_usage_reports()["ImageUsageReports"]] == [second]
    cloud.admin("POST", "clock", {"advance": 30 * DAY + 1})
    assert ec2.describe_image_usage_reports()["ImageUsageReports"] == []
    cloud.restart()
    assert len(cloud.gateway.backend.database.usage_reports) == 0


def test_a_report_is_deleted_while_it_is_made(cloud: Cloud, ec2: Any) -> None:
    cloud.admin("POST", "delays", {"usage-report": 60})
    ec2.delete_image_usage_report(ReportId=create(ec2, shared_with(cloud)))
    cloud.admin("POST", "delays", {"usage-report": 0})
    time.sleep(0.2)
    assert ec2.describe_image_usage_reports()["ImageUsageReports"] == []


def test_a_report_needs_permissions_for_the_image_and_for_the_report(cloud: Cloud) -> None:
    baked = shared_with(cloud)
    here = "arn:aws:ec2:us-east-1:"
    for_image = may("ec2:CreateImageUsageReport", f"{here}:image/{baked}")
    for_report = may("ec2:CreateImageUsageReport", f"{here}*:image-usage-report/*")
    create(caller(cloud, for_image, for_report), baked)
    for given in (for_image, for_report):
        with refused("UnauthorizedOperation"):
            create(caller(cloud, given), baked)
