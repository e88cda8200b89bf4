"""Requests and answers that other people's clients depend on: Terraform, libcloud, Ansible, the AWS CLI."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from botocore import xform_name

from imagepipe.local.aws.ec2 import absent
from imagepipe.local.aws.ec2.actions import OWN
from imagepipe.local.aws.protocol.documented_filters import item_path
from imagepipe.local.aws.protocol.query import is_action, requests_nothing
from tests.local.aws.harness import Cloud, base_image, instance, launch, refused, running
from tests.local.daemon.test_endpoint import ask, signed

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


def send(cloud: Cloud, action: str, version: str = "2016-11-15", **params: str) -> tuple[int, ElementTree.Element]:
    """Send a request as a client without botocore does."""
    body = urlencode({"Action": action, "Version": version, **params}).encode()
    status, _, answer = ask(cloud, "POST", "/", body, **signed(cloud, "ec2", "POST", "/", body))
    return status, ElementTree.fromstring(answer)


OFF: dict[str, dict[str, Any]] = {
    "hibernation": {"HibernationOptions": {"Configured": False}},
    "enclaves": {"EnclaveOptions": {"Enabled": False}},
    "shared tenancy": {"Placement": {"Tenancy": "default", "Affinity": "", "HostId": ""}},
    "no IPv6 addresses": {"Ipv6AddressCount": 0, "EnablePrimaryIpv6": False},
    "empty lists": {"LicenseSpecifications": [], "SecondaryInterfaces": [], "ElasticGpuSpecification": []},
    "plain CPU": {"CpuOptions": {"AmdSevSnp": "disabled"}},
    "usual recovery": {"MaintenanceOptions": {"AutoRecovery": "default"}},
    "open reservation": {"CapacityReservationSpecification": {"CapacityReservationPreference": "open"}},
    "usual names": {"PrivateDnsNameOptions": {"HostnameType": "ip-name", "EnableResourceNameDnsARecord": False}},
    "monitoring off": {"Monitoring": {"Enabled": False}},
    "no protection": {"DisableApiTermination": False, "DisableApiStop": False, "EbsOptimized": False},
}


@pytest.mark.parametrize("feature", OFF)
def test_a_feature_that_is_switched_off_is_not_refused(feature: str, ec2: Any) -> None:
    assert launch(ec2, **OFF[feature])


@pytest.mark.parametrize(
    "params",
    [
        {"HibernationOptions": {"Configured": True}},
        {"EnclaveOptions": {"Enabled": True}},
        {"Placement": {"Tenancy": "dedicated"}},
        {"Ipv6AddressCount": 1},
        {"LicenseSpecifications": [{"LicenseConfigurationArn": "arn:aws:license-manager:us-east-1:1:x"}]},
        {"KernelId": "aki-1"},
    ],
)
def test_a_feature_that_the_local_cloud_lacks_is_refused_by_name(params: dict[str, Any], ec2: Any) -> None:
    with refused("UnsupportedOperation", match=next(iter(params))):
        launch(ec2, **params)


@pytest.mark.parametrize(
    ("value", "is_nothing"),
    [
        (False, True), (0, True), ("", True), ([], True), ({}, True), ({"Configured": False}, True), ([{}], True),
        ("disabled", True), (True, False), (1, False), ("on", False), ([{"Enabled": True}], False),
    ],
)  # fmt: skip
def test_a_value_asks_for_nothing_if_it_is_empty_or_off(value: object, is_nothing: bool) -> None:
    assert requests_nothing(value) == is_nothing


@pytest.mark.parametrize("action", ["DescribeRegions", "DescribeInstances", "DescribeSecurityGroups", "DescribeVpcs"])
def test_answers_have_the_namespace_of_ec2_with_its_trailing_slash(action: str, cloud: Cloud) -> None:
    status, answer = send(cloud, action)
    assert (status, answer.tag) == (200, f"{{{NAMESPACE}}}{action}Response")


def test_the_namespace_names_the_version_of_the_request(cloud: Cloud) -> None:
    _, answer = send(cloud, "DescribeRegions", version="2014-10-01")
    assert answer.tag == "{http://ec2.amazonaws.com/doc/2014-10-01/}DescribeRegionsResponse"


def test_an_action_without_a_result_returns_true(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    status, answer = send(cloud, "CreateTags", **{"ResourceId.1": made, "Tag.1.Key": "a", "Tag.1.Value": "b"})
    assert (status, answer.findtext(f"{{{NAMESPACE}}}return")) == (200, "true")
    status, answer = send(cloud, "RebootInstances", **{"InstanceId.1": made})
    assert (status, answer.findtext(f"{{{NAMESPACE}}}return")) == (200, "true")


def test_an_action_of_moto_without_a_result_returns_true(cloud: Cloud, ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    for action, params in (
        ("ModifyVpcAttribute", {"VpcId": vpc, "EnableDnsHostnames.Value": "true"}),
        ("AttachInternetGateway", {"VpcId": vpc, "InternetGatewayId": gateway}),
        ("DetachInternetGateway", {"VpcId": vpc, "InternetGatewayId": gateway}),
        ("DeleteInternetGateway", {"InternetGatewayId": gateway}),
        ("DeleteVpc", {"VpcId": vpc}),
    ):
        status, answer = send(cloud, action, **params)
        assert (status, answer.findtext(f"{{{NAMESPACE}}}return")) == (200, "true"), action


def test_every_kind_of_network_resource_can_be_tagged(ec2: Any) -> None:
    made = running(ec2, InstanceMarketOptions={"MarketType": "spot"})
    found = instance(ec2, made)
    vpc = found["VpcId"]
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    rules = ec2.describe_security_group_rules()["SecurityGroupRules"]
    resources = {
        "vpc": vpc,
        "subnet": found["SubnetId"],
        "internet-gateway": ec2.describe_internet_gateways()["InternetGateways"][0]["InternetGatewayId"],
        "route-table": ec2.describe_route_tables(Filters=of_vpc)["RouteTables"][0]["RouteTableId"],
        "network-acl": ec2.describe_network_acls(Filters=of_vpc)["NetworkAcls"][0]["NetworkAclId"],
        "dhcp-options": ec2.create_dhcp_options(DhcpConfigurations=[{"Key": "domain-name", "Values": ["example.com"]}])[
            "DhcpOptions"
        ]["DhcpOptionsId"],
        "security-group": found["SecurityGroups"][0]["GroupId"],
        "security-group-rule": rules[0]["SecurityGroupRuleId"],
        "network-interface": found["NetworkInterfaces"][0]["NetworkInterfaceId"],
        "spot-instances-request": found["SpotInstanceRequestId"],
    }
    ec2.create_tags(Resources=list(resources.values()), Tags=[{"Key": "team", "Value": "images"}])
    described = ec2.describe_tags(Filters=[{"Name": "key", "Values": ["team"]}])["Tags"]
    assert {tag["ResourceType"]: tag["ResourceId"] for tag in described} == resources
    assert ec2.describe_network_interfaces()["NetworkInterfaces"][0]["TagSet"] == [{"Key": "team", "Value": "images"}]
    ec2.delete_tags(Resources=list(resources.values()), Tags=[{"Key": "team"}])
    assert ec2.describe_tags(Filters=[{"Name": "key", "Values": ["team"]}])["Tags"] == []


@pytest.mark.parametrize(
    ("identifier", "code"),
    [
        ("igw-00000000000000001", "InvalidInternetGatewayID.NotFound"),
        ("rtb-00000000000000001", "InvalidRouteTableID.NotFound"),
        ("acl-00000000000000001", "InvalidNetworkAclID.NotFound"),
        ("eni-00000000000000001", "InvalidNetworkInterfaceID.NotFound"),
        ("vpc-00000000000000001", "InvalidVpcID.NotFound"),
        ("sgr-00000000000000001", "InvalidSecurityGroupRuleId.NotFound"),
        ("shoe-1", "InvalidID"),
    ],
)
def test_tags_for_a_resource_that_does_not_exist_are_refused(identifier: str, code: str, ec2: Any) -> None:
    with refused(code):
        ec2.create_tags(Resources=[identifier], Tags=[{"Key": "a", "Value": "b"}])


def test_the_credits_of_a_burstable_instance_are_described(ec2: Any) -> None:
    t3, t2, m5 = (running(ec2, InstanceType=kind) for kind in ("t3.micro", "t2.micro", "m5.large"))

    def described(*ids: str) -> dict[str, str]:
        found = ec2.describe_instance_credit_specifications(InstanceIds=list(ids))["InstanceCreditSpecifications"]
        return {row["InstanceId"]: row["CpuCredits"] for row in found}

    assert described(t3, t2, m5) == {t3: "unlimited", t2: "standard"}
    assert described() == {t3: "unlimited"}
    standard = running(ec2, InstanceType="t3.micro", CreditSpecification={"CpuCredits": "standard"})
    assert described(standard) == {standard: "standard"}
    ec2.modify_instance_credit_specification(
        InstanceCreditSpecifications=[{"InstanceId": standard, "CpuCredits": "unlimited"}]
    )
    assert described(standard) == {standard: "unlimited"}


def test_the_network_interface_that_an_instance_names_is_described(ec2: Any) -> None:
    made = running(ec2)
    interface = instance(ec2, made)["NetworkInterfaces"][0]
    named = interface["NetworkInterfaceId"]
    [found] = ec2.describe_network_interfaces(NetworkInterfaceIds=[named])["NetworkInterfaces"]
    assert found["Attachment"]["InstanceId"] == made
    assert {key: found[key] for key in ("MacAddress", "PrivateIpAddress", "SubnetId", "VpcId", "Groups")} == {
        key: interface[key] for key in ("MacAddress", "PrivateIpAddress", "SubnetId", "VpcId", "Groups")
    }
    with refused("InvalidNetworkInterfaceID.NotFound"):
        ec2.describe_network_interfaces(NetworkInterfaceIds=["eni-00000000000000001"])


def test_enclave_options_are_an_attribute(ec2: Any) -> None:
    answer = ec2.describe_instance_attribute(InstanceId=running(ec2), Attribute="enclaveOptions")
    assert answer["EnclaveOptions"] == {"Enabled": False}


def test_an_instance_has_no_public_name_unless_its_vpc_has_dns_host_names(ec2: Any) -> None:
    made = running(ec2)
    found = instance(ec2, made)
    assert found["PublicIpAddress"]
    assert found["PublicDnsName"] == ""
    answer = ec2.describe_vpc_attribute(VpcId=found["VpcId"], Attribute="enableDnsHostnames")
    assert answer["EnableDnsHostnames"] == {"Value": False}
    ec2.modify_vpc_attribute(VpcId=found["VpcId"], EnableDnsHostnames={"Value": True})
    name = f"ec2-{found['PublicIpAddress'].replace('.', '-')}.compute-1.amazonaws.com"
    assert instance(ec2, made)["PublicDnsName"] == name


def test_a_launch_can_name_the_parameter_that_holds_its_image(cloud: Cloud, ec2: Any) -> None:
    ssm = cloud.client("ssm")
    base = base_image(ec2)
    ssm.put_parameter(Name="/images/web", Value="ami-00000000000000001", Type="String")
    ssm.put_parameter(Name="/images/web", Value=base, Type="String", Overwrite=True)
    ssm.label_parameter_version(Name="/images/web", ParameterVersion=2, Labels=["tested"])
    for name in ("/images/web", "/images/web:2", "/images/web:tested", "/aws/service/debian/release/12/latest/amd64"):
        assert instance(ec2, launch(ec2, ImageId=f"resolve:ssm:{name}"))["ImageId"] == base
    for name in ("/images/api", "/images/web:7", "/images/web:shipped"):
        with refused("InvalidParameterValue", match=f"The parameter {name} does not exist"):
            launch(ec2, ImageId=f"resolve:ssm:{name}")
    with refused("InvalidAMIID.NotFound"):
        launch(ec2, ImageId="resolve:ssm:/images/web:1")


@pytest.mark.parametrize("service", ["dynamodb", "ecs", "logs", "eks"])
def test_an_unknown_service_of_json_is_refused_in_json(service: str, cloud: Cloud) -> None:
    client = cloud.client(service)
    calls = {
        "dynamodb": lambda: client.list_tables(),
        "ecs": lambda: client.list_clusters(),
        "logs": lambda: client.describe_log_groups(),
        "eks": lambda: client.list_clusters(),
    }
    with refused("UnsupportedOperation", match=f"has no service '{service}'"):
        calls[service]()


def test_every_action_is_one_of_ec2s() -> None:
    assert [action for action in OWN if not is_action(action)] == []


def test_the_rules_of_a_group_can_be_modified_in_place(ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    made = ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}],
    )["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 81, "CidrIpv4": "10.1.0.0/16", "Description": "pages"}
    ec2.modify_security_group_rules(
        GroupId=group, SecurityGroupRules=[{"SecurityGroupRuleId": made, "SecurityGroupRule": rule}]
    )
    [found] = ec2.describe_security_group_rules(SecurityGroupRuleIds=[made])["SecurityGroupRules"]
    assert {key: found[key] for key in rule} == rule
    ec2.update_security_group_rule_descriptions_ingress(
        GroupId=group, SecurityGroupRuleDescriptions=[{"SecurityGroupRuleId": made, "Description": "web pages"}]
    )
    [found] = ec2.describe_security_group_rules(SecurityGroupRuleIds=[made])["SecurityGroupRules"]
    assert found["Description"] == "web pages"
    with refused("InvalidSecurityGroupRuleId.NotFound"):
        ec2.modify_security_group_rules(
            GroupId=group,
            SecurityGroupRules=[{"SecurityGroupRuleId": "sgr-00000000000000001", "SecurityGroupRule": rule}],
        )


def test_the_list_of_functions_is_empty_as_the_local_cloud_has_none(cloud: Cloud) -> None:
    assert cloud.client("lambda").list_functions()["Functions"] == []


@pytest.mark.parametrize(
    ("service", "ask"),
    [
        ("autoscaling", lambda client: client.describe_policies()),
        ("imagebuilder", lambda client: client.list_images()),
        ("lambda", lambda client: client.get_function(FunctionName="web")),
        ("rbin", lambda client: client.list_tags_for_resource(ResourceArn="arn:aws:rbin:us-east-1:0:rule/abcdefghijk")),
    ],
)
def test_an_action_that_a_service_lacks_here_is_refused_by_name(service: str, ask: Any, cloud: Cloud) -> None:
    with refused("UnsupportedOperation", match=f"does not have the (action [A-Z]|request GET /).* of {service}"):
        ask(cloud.client(service))


def test_a_subnet_has_fewer_free_addresses_for_each_instance(ec2: Any) -> None:
    made = running(ec2)
    subnet = instance(ec2, made)["SubnetId"]

    def free() -> int:
        return int(ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"])

    before = free()
    running(ec2, SubnetId=subnet)
    assert free() == before - 1
    of_count = [{"Name": "available-ip-address-count", "Values": [str(before - 1)]}]
    assert subnet in [row["SubnetId"] for row in ec2.describe_subnets(Filters=of_count)["Subnets"]]


def test_the_gateway_of_instances_with_public_addresses_is_not_detached(ec2: Any) -> None:
    [gateway] = ec2.describe_internet_gateways()["InternetGateways"]
    vpc = instance(ec2, running(ec2))["VpcId"]
    with refused("DependencyViolation", match="mapped public address"):
        ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc)


def test_a_route_through_an_instance_is_not_supported_and_one_through_nobody_not_found(ec2: Any) -> None:
    made = running(ec2)
    interface = instance(ec2, made)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    table = ec2.describe_route_tables()["RouteTables"][0]["RouteTableId"]
    for target in ({"InstanceId": made}, {"NetworkInterfaceId": interface}):
        with refused("UnsupportedOperation", match="does not route traffic"):
            ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.0.0.0/16", **target)
    with refused("InvalidInstanceID.NotFound"):
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.0.0.0/16", InstanceId="i-00000000000000001")


def test_the_accounts_attributes_name_its_default_vpc(ec2: Any) -> None:
    [vpc] = ec2.describe_vpcs()["Vpcs"]
    found = ec2.describe_account_attributes(AttributeNames=["default-vpc", "supported-platforms"])["AccountAttributes"]
    assert {row["AttributeName"]: row["AttributeValues"][0]["AttributeValue"] for row in found} == {
        "default-vpc": vpc["VpcId"],
        "supported-platforms": "VPC",
    }


@pytest.mark.parametrize("action", sorted(absent.ACTIONS))
def test_lists_of_resources_that_the_local_cloud_lacks_are_empty(action: str, ec2: Any) -> None:
    # libcloud's list_nodes asks for elastic IP addresses (libcloud/compute/drivers/ec2.py, ex_describe_addresses).
    [name] = item_path(action)
    assert getattr(ec2, xform_name(action))()[name] == []


def test_elastic_addresses_and_modifications_that_a_request_names_are_not_found(ec2: Any) -> None:
    with refused("InvalidAllocationID.NotFound", match="^The allocation ID 'eipalloc-2da7a824' does not exist$"):
        ec2.describe_addresses(AllocationIds=["eipalloc-2da7a824"])
    with refused("InvalidAddress.NotFound"):
        ec2.describe_addresses(PublicIps=["198.51.100.1"])
    with refused("InvalidVolume.NotFound"):
        ec2.describe_volumes_modifications(VolumeIds=["vol-00000000000000001"])
    made = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    with refused("InvalidVolumeModification.NotFound"):
        ec2.describe_volumes_modifications(VolumeIds=[made])


def test_lists_may_count_from_zero(cloud: Cloud, ec2: Any) -> None:
    # libcloud's ex_create_tags and ex_get_limits send ResourceId.0, Tag.0.Key and AttributeName.0.
    made = running(ec2)
    tag = {"ResourceId.0": made, "Tag.0.Key": "a", "Tag.0.Value": "b", "Tag.1.Key": "c", "Tag.1.Value": "d"}
    assert send(cloud, "CreateTags", **tag)[0] == 200
    assert instance(ec2, made)["Tags"] == [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d"}]
    filters = {"Filter.0.Name": "tag-key", "Filter.0.Value.0": "x", "Filter.0.Value.1": "c"}
    _, answer = send(cloud, "DescribeInstances", **filters)
    assert [row.text for row in answer.iter(f"{{{NAMESPACE}}}instanceId")] == [made]
    status, _ = send(cloud, "DescribeAvailabilityZones", **{"ZoneName.0": "us-east-1a", "ZoneName.1": "us-east-1b"})
    assert status == 200


def test_a_list_of_one_may_come_without_a_number(cloud: Cloud, ec2: Any) -> None:
    # libcloud's get_key_pair sends KeyName; without this, the answer was that of all pairs.
    for name in ("web", "api"):
        ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    _, answer = send(cloud, "DescribeKeyPairs", KeyName="api")
    assert [row.text for row in answer.iter(f"{{{NAMESPACE}}}keyName")] == ["api"]
    made, _ = running(ec2), running(ec2)
    _, answer = send(cloud, "DescribeInstances", InstanceId=made)
    assert [row.text for row in answer.iter(f"{{{NAMESPACE}}}instanceId")] == [made]
    subnet = instance(ec2, made)["SubnetId"]
    _, answer = send(cloud, "DescribeSubnets", SubnetId=subnet)
    assert [row.text for row in answer.iter(f"{{{NAMESPACE}}}subnetId")] == [subnet]


def test_an_attribute_may_begin_with_a_capital(ec2: Any) -> None:
    # Ansible's ec2_ami sends Attribute=LaunchPermission (plugins/modules/ec2_ami.py).
    made = running(ec2)
    built = ec2.create_image(InstanceId=made, Name="web", NoReboot=True)["ImageId"]
    permission = {"Add": [{"UserId": "111122223333"}]}
    ec2.modify_image_attribute(ImageId=built, Attribute="LaunchPermission", LaunchPermission=permission)
    shared = ec2.describe_image_attribute(ImageId=built, Attribute="launchPermission")["LaunchPermissions"]
    assert shared == [{"UserId": "111122223333"}]
    ec2.reset_image_attribute(ImageId=built, Attribute="LaunchPermission")
    assert ec2.describe_image_attribute(ImageId=built, Attribute="launchPermission")["LaunchPermissions"] == []


def test_an_image_that_was_created_of_an_instance_always_has_a_description(ec2: Any) -> None:
    # Ansible's ec2_ami reads image["Description"]; EC2's recorded answers have an empty one.
    built = ec2.create_image(InstanceId=running(ec2), Name="web", NoReboot=True)["ImageId"]
    assert ec2.describe_images(ImageIds=[built])["Images"][0]["Description"] == ""


def test_signature_version_2_is_refused_in_the_form_of_ec2(cloud: Cloud) -> None:
    # libcloud's default for us-east-1; it showed an empty error, as it found no <Errors>.
    query = "Action=DescribeRegions&Version=2016-11-15&SignatureVersion=2&AWSAccessKeyId=AKIA&Signature=x"
    status, _, body = ask(cloud, "GET", f"/?{query}", b"", Host=f"127.0.0.1:{cloud.port}")
    found = ElementTree.fromstring(body)
    assert (status, found.tag, found.findtext("Errors/Error/Code")) == (400, "Response", "InvalidRequest")
    assert "Signature Version 4" in (found.findtext("Errors/Error/Message") or "")
