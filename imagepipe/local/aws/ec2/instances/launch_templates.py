"""Launch templates, and launches that use one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import idempotency, lookup
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid, missing
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.protocol.times import whole_second
from imagepipe.local.aws.state.records import LaunchTemplate, TemplateVersion

NAME = re.compile(r"[a-zA-Z0-9().\-/_]{3,128}")  # CreateLaunchTemplate, LaunchTemplateName
MAX_DESCRIPTION = 255
MAX_DELETED = 200  # versions in a DeleteLaunchTemplateVersions
MAX_TOKEN = 128  # characters of a ClientToken of these actions
RENAMED = {"RamDiskId": "RamdiskId", "ElasticGpuSpecifications": "ElasticGpuSpecification"}
"""Parameters of RunInstances that a template's data has under another name."""
GETTERS: Mapping[str, Getter] = {"launch-template-name": lambda row: row.name}


def create_launch_template(backend: Backend, call: Call) -> Mapping[str, Any]:
    before = idempotency.earlier_result(backend, call, max_length=MAX_TOKEN)
    if before is not None:
        return {"LaunchTemplate": _to_api(find_template(backend, call, {"LaunchTemplateId": before[0]}))}
    name = call.text("LaunchTemplateName")
    if not NAME.fullmatch(name):
        raise AwsError(
            "InvalidLaunchTemplateName.MalformedException",
            f"The launch template name '{name}' is invalid: 3 to 128 letters, digits and ( ) . - / _",
        )
    if any(row.name == name for row in _owned(backend, call)):
        text = "Launch template name already in use."
        raise AwsError("InvalidLaunchTemplateName.AlreadyExistsException", text)
    template = LaunchTemplate(
        id=new_id("lt"),
        account=call.account,
        region=call.region,
        tags=tagging.parse_specifications(call.params, "launch-template")["launch-template"],
        name=name,
        created=whole_second(backend.clock.now()),
        default_version=1,
        last_number=1,
        versions=(_version(backend, call, 1, {}),),
    )
    backend.database.put(template)
    idempotency.remember(backend, call, [template.id])
    return {"LaunchTemplate": _to_api(template)}


def create_launch_template_version(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Add a version, which has the values of its source version where the request gives none."""
    before = idempotency.earlier_result(backend, call, max_length=MAX_TOKEN)
    if before is not None:
        template = find_template(backend, call, {"LaunchTemplateId": before[0]})
        return {"LaunchTemplateVersion": _version_to_api(_Row(template, find_version(template, before[1])))}
    template = find_template(backend, call, call.params)
    source = call.params.get("SourceVersion")
    base = _without_snapshots(json.loads(find_version(template, str(source)).data)) if source else {}
    made = _version(backend, call, template.last_number + 1, base)
    changed = replace(template, versions=(*template.versions, made), last_number=made.number)
    backend.database.put(changed)
    idempotency.remember(backend, call, [template.id, str(made.number)])
    described = _version_to_api(_Row(changed, made))
    return {"LaunchTemplateVersion": _with_image(backend, call, described)}


def _without_snapshots(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the snapshots of devices, which a new version does not inherit (API reference, `SourceVersion`)."""
    if "BlockDeviceMappings" not in data:
        return dict(data)
    devices = [dict(device) for device in data["BlockDeviceMappings"]]
    for device in devices:
        if "Ebs" in device:
            device["Ebs"] = {name: value for name, value in device["Ebs"].items() if name != "SnapshotId"}
    return {**data, "BlockDeviceMappings": devices}


def _with_image(backend: Backend, call: Call, described: dict[str, Any]) -> dict[str, Any]:
    """Put the image in place of the parameter that names it, if the request asks for it (`ResolveAlias`)."""
    data = described["LaunchTemplateData"]
    if not call.params.get("ResolveAlias") or not str(data.get("ImageId", "")).startswith(lookup.RESOLVE):
        return described
    image_id = lookup.image_id(backend, replace(call, params=data))
    return {**described, "LaunchTemplateData": {**data, "ImageId": image_id}}


def _version(backend: Backend, call: Call, number: int, base: Mapping[str, Any]) -> TemplateVersion:
    data = {**base, **call.params["LaunchTemplateData"]}
    if not data:
        raise AwsError("MissingParameter", "The request must contain the parameter LaunchTemplateData")
    description = str(call.params.get("VersionDescription") or "")
    if len(description) > MAX_DESCRIPTION:
        raise invalid(f"The version description has at most {MAX_DESCRIPTION} characters")
    return TemplateVersion(
        number=number,
        description=description,
        created=whole_second(backend.clock.now()),
        data=json.dumps(data, default=str),
    )


def modify_launch_template(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Set the default version."""
    template = find_template(backend, call, call.params)
    if call.params.get("DefaultVersion"):
        version = find_version(template, str(call.params["DefaultVersion"]))
        template = replace(template, default_version=version.number)
        backend.database.put(template)
    return {"LaunchTemplate": _to_api(template)}


def delete_launch_template(backend: Backend, call: Call) -> Mapping[str, Any]:
    template = find_template(backend, call, call.params)
    backend.database.remove(template)
    return {"LaunchTemplate": _to_api(template)}


def delete_launch_template_versions(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Delete versions; the default one, and those that do not exist, are reported."""
    template = find_template(backend, call, call.params)
    if len(call.params["Versions"]) > MAX_DELETED:
        raise invalid(f"At most {MAX_DELETED} versions can be deleted in a request")
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for word in call.params["Versions"]:
        described = {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "VersionNumber": word}
        found = [version for version in template.versions if str(version.number) == str(word)]
        if not found or found[0].number == template.default_version:
            code = "unexpectedError" if found else "launchTemplateVersionDoesNotExist"
            text = f"Version {word} is the default version" if found else f"Version {word} does not exist"
            failed.append({**described, "ResponseError": {"Code": code, "Message": text}})
        else:
            template = replace(template, versions=tuple(each for each in template.versions if each not in found))
            done.append(described)
    backend.database.put(template)
    return {
        "SuccessfullyDeletedLaunchTemplateVersions": done,
        "UnsuccessfullyDeletedLaunchTemplateVersions": failed,
    }


def describe_launch_templates(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = _owned(backend, call)
    ids, names = call.params.get("LaunchTemplateIds", []), call.params.get("LaunchTemplateNames", [])
    for word in (*ids, *names):
        find_template(backend, call, {"LaunchTemplateId" if word in ids else "LaunchTemplateName": word})
    rows = [row for row in rows if not (ids or names) or row.id in ids or row.name in names]
    getters = AnswerFilters("DescribeLaunchTemplates", _to_api, GETTERS)
    shown, token = filters.page(rows, call.params, getters, least=1, most=200, ids="LaunchTemplateIds")
    return {"LaunchTemplates": [_to_api(row) for row in shown], "NextToken": token}


@dataclass(frozen=True, slots=True)
class _Row:
    """A version and its template."""

    template: LaunchTemplate
    version: TemplateVersion

    @property
    def id(self) -> str:
        return f"{self.template.id} {self.version.number}"

    @property
    def tags(self) -> Mapping[str, str]:
        return {}

    def data(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self.version.data)
        return found


VERSION_GETTERS: Mapping[str, Getter] = {
    "ebs-optimized": lambda row: row.data().get("EbsOptimized"),
    "http-endpoint": lambda row: row.data().get("MetadataOptions", {}).get("HttpEndpoint"),
    "http-tokens": lambda row: row.data().get("MetadataOptions", {}).get("HttpTokens"),
    "iam-instance-profile": lambda row: row.data().get("IamInstanceProfile", {}).get("Arn"),
    "image-id": lambda row: row.data().get("ImageId"),
    "instance-type": lambda row: row.data().get("InstanceType"),
    "is-default-version": lambda row: row.version.number == row.template.default_version,
    "kernel-id": lambda row: row.data().get("KernelId"),
    "ram-disk-id": lambda row: row.data().get("RamDiskId"),
}


def describe_launch_template_versions(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Describe versions of one template, the newest first, or the `$Latest` and `$Default` ones of all."""
    params = call.params
    words = [str(word) for word in params.get("Versions", [])]
    if params.get("LaunchTemplateId") or params.get("LaunchTemplateName"):
        templates = [find_template(backend, call, params)]
    elif words and set(words) <= {"$Latest", "$Default"}:
        templates = _owned(backend, call)
    else:
        raise missing("LaunchTemplateId or LaunchTemplateName")
    rows = [_Row(template, version) for template in templates for version in _chosen(template, words, params)]
    getters = AnswerFilters("DescribeLaunchTemplateVersions", _version_to_api, VERSION_GETTERS)
    shown, token = filters.page(rows, params, getters, least=1, most=200)
    described = [_with_image(backend, call, _version_to_api(row)) for row in shown]
    return {"LaunchTemplateVersions": described, "NextToken": token}


def _chosen(template: LaunchTemplate, words: Sequence[str], params: Mapping[str, Any]) -> list[TemplateVersion]:
    if words:
        return list(dict.fromkeys(find_version(template, word) for word in words))
    least, most = int(params.get("MinVersion") or 1), int(params.get("MaxVersion") or template.versions[-1].number)
    return [version for version in reversed(template.versions) if least <= version.number <= most]


def apply(backend: Backend, call: Call) -> Call:
    """Return the call of a launch with the values of its launch template; its own values win. Raises AwsError."""
    given = call.params.get("LaunchTemplate")
    if not given:
        return call
    template = find_template(backend, call, given)
    version = find_version(template, str(given.get("Version") or "$Default"))
    data = {RENAMED.get(name, name): value for name, value in json.loads(version.data).items()}
    return replace(call, params=merge(data, {key: val for key, val in call.params.items() if key != "LaunchTemplate"}))


def merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the parameters of a launch into those of a template: devices and tags one by one, the others whole."""
    merged = {**base, **own}
    for name, key in (("BlockDeviceMappings", "DeviceName"), ("TagSpecifications", "ResourceType")):
        if name in base and name in own:
            taken = {each.get(key) for each in own[name]}
            merged[name] = [*(each for each in base[name] if each.get(key) not in taken), *own[name]]
    if "SubnetId" in own and "NetworkInterfaces" not in own and base.get("NetworkInterfaces"):
        first, *others = base["NetworkInterfaces"]  # the request's subnet is that of the template's interface
        merged["NetworkInterfaces"] = [{**first, "SubnetId": own["SubnetId"]}, *others]
        del merged["SubnetId"]
    return merged


def _owned(backend: Backend, call: Call) -> list[LaunchTemplate]:
    return backend.database.templates.owned(call.account, call.region)


def find_template(backend: Backend, call: Call, given: Mapping[str, Any]) -> LaunchTemplate:
    """Find the template that a request names by id or by name. Raises AwsError."""
    identifier, name = given.get("LaunchTemplateId"), given.get("LaunchTemplateName")
    if identifier and name:
        raise conflicting("Specify the launch template ID or the launch template name, not both")
    if not identifier and not name:
        raise missing("LaunchTemplateId or LaunchTemplateName")
    for row in _owned(backend, call):
        if identifier == row.id or (name and name == row.name):
            return row
    if identifier:
        text = f"The specified launch template, with template ID {identifier}, does not exist."
        raise AwsError("InvalidLaunchTemplateId.NotFound", text)
    text = f"The specified launch template, with template name {name}, does not exist."
    raise AwsError("InvalidLaunchTemplateName.NotFoundException", text)


def find_version(template: LaunchTemplate, word: str) -> TemplateVersion:
    if word == "$Latest":
        return template.versions[-1]
    wanted = str(template.default_version) if word == "$Default" else word
    if not wanted.isdecimal():
        raise invalid(f"Invalid launch template version: either '$Default', '$Latest', or a numeric version: {word}")
    for version in template.versions:
        if str(version.number) == wanted:
            return version
    raise AwsError(
        "InvalidLaunchTemplateId.VersionNotFound",
        f"Could not find the specified version {word} for the launch template with ID {template.id}.",
    )


def _to_api(template: LaunchTemplate) -> dict[str, Any]:
    return {
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "CreateTime": template.created,
        "CreatedBy": f"arn:aws:iam::{template.account}:root",
        "DefaultVersionNumber": template.default_version,
        "LatestVersionNumber": template.versions[-1].number,
        "Tags": tagging.if_any(template.tags),
    }


def _version_to_api(row: _Row) -> dict[str, Any]:
    return {
        "LaunchTemplateId": row.template.id,
        "LaunchTemplateName": row.template.name,
        "VersionNumber": row.version.number,
        "VersionDescription": row.version.description or None,
        "CreateTime": row.version.created,
        "CreatedBy": f"arn:aws:iam::{row.template.account}:root",
        "DefaultVersion": row.version.number == row.template.default_version,
        "LaunchTemplateData": row.data(),
    }
