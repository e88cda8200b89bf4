"""The scalar types of the language: durations, and EC2's ids and names with EC2's rules for them.

Sources: EC2 API reference (RegisterImage, CreateTags, EbsBlockDevice) and EC2 user guide ("Device names on Linux
instances", "Tag restrictions"), EBS user guide ("EBS volume types"), all as of November 2026.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from imagepipe import late
from imagepipe.spec import keys

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


def seconds(text: str) -> float | None:
    """Return `90s`, `5m` or `1h30m` in seconds; None for any other text."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(n) * UNITS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd])", text))


def duration_text(seconds: float) -> str:
    """Return a duration as a spec has it: the reverse of `seconds`."""
    for unit, size in reversed(UNITS.items()):
        if seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s"


def _duration(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticCustomError("duration", "a duration is written 90s, 5m, 2h or 90d")
    if isinstance(value, int | float):
        raise PydanticCustomError("duration", "a duration needs its unit: {value}s or {value}m?", {"value": value})
    found = seconds(value)
    if found is None:
        raise PydanticCustomError(
            "duration", "'{value}' is not a duration; write 90s, 5m, 2h or 90d", {"value": value[:40]}
        )
    if found > 3650 * 86400:
        raise PydanticCustomError("duration", "a duration cannot be longer than ten years")
    return found


Duration = Annotated[
    float,
    BeforeValidator(_duration, json_schema_input_type=str),
    Field(json_schema_extra={"format": "duration"}),
]


NEVER = 0.0
"""The value of `never` in place of a duration."""


def _duration_or_never(value: object) -> object:
    if value == "never":
        return NEVER
    found = _duration(value)
    if found == 0:
        raise PydanticCustomError("duration", "must be longer than 0s; for no such time, write never")
    return found


DurationOrNever = Annotated[
    float,
    BeforeValidator(_duration_or_never, json_schema_input_type=str),
    Field(json_schema_extra={"format": "duration"}),
]


def _matching(pattern: str, message: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise PydanticCustomError("ec2_format", message)  # without a context, braces are plain text
        return value

    return AfterValidator(check)


AccountId = Annotated[str, _matching(r"\d{12}", "an account id has 12 digits")]
ImageOwner = Annotated[
    str,
    _matching(
        r"\d{12}|self|amazon|aws-marketplace",
        "an owner is an account id of 12 digits, self, amazon or aws-marketplace",
    ),
]
AmiId = Annotated[
    str,
    _matching(
        r"ami-(?:[0-9a-f]{8}|[0-9a-f]{17})",
        "an image id is ami- and 8 or 17 hex digits; a filter is written {name: …, owners: […]}",
    ),
]
SubnetId = Annotated[
    str, _matching(r"subnet-(?:[0-9a-f]{8}|[0-9a-f]{17})", "a subnet id is subnet- and 8 or 17 hex digits")
]
SecurityGroupId = Annotated[
    str, _matching(r"sg-(?:[0-9a-f]{8}|[0-9a-f]{17})", "a security group id is sg- and 8 or 17 hex digits")
]
InstanceProfile = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9_+=,.@-]{1,128}|arn:aws[a-z-]*:iam::\d{12}:instance-profile/(?:[!-.0-~]+/)*[A-Za-z0-9_+=,.@-]{1,128}",
        "an instance profile is its name without a path, or its ARN: arn:aws:iam::123456789012:instance-profile/NAME",
    ),
]
"""IAM API reference, CreateInstanceProfile. EC2 finds a profile by its name alone; only an ARN may have the path."""
InstanceType = Annotated[
    str, _matching(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "an instance type is written family.size: t3.small")
]
SpecName = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "a spec's name has letters, digits, dots, dashes, underscores; at most 64",
    ),
]
SpecReference = Annotated[
    str,
    _matching(
        rf"{keys.NAME}(\[{keys.AXIS}={keys.VALUE}(,{keys.AXIS}={keys.VALUE})*\])?",
        "a spec is named by its name, or by the key of a variant: base[release=bookworm]",
    ),
]
VariableName = Annotated[
    str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name has letters, digits and underscores")
]
EnvName = Annotated[
    str,
    _matching(r"[A-Za-z_][A-Za-z0-9_]*", "an environment variable's name has letters, digits and underscores"),
]

DeviceName = Annotated[
    str,
    _matching(
        r"/dev/(?:sd[a-z](?:[1-9]|1[0-5])?|xvd[a-d]?[a-z]|xvda1|hd[a-z](?:[1-9]|1[0-5])?)",
        "not a device name of EC2: /dev/xvda, /dev/sda1, /dev/sdf … /dev/sdp, /dev/xvdb",
    ),
]
_DEVICE = re.compile(r"/dev/(?:sd|xvd|hd)([a-z]+)(\d*)")


def device_identity(name: str) -> str:
    """Return the part of a device's name that tells it from others: /dev/sdf and /dev/xvdf are one device.

    /dev/sda1 and /dev/xvda are both the root device (EC2 user guide, "Device names for volumes").
    """
    found = _DEVICE.fullmatch(name)
    if found is None:
        return name
    return "a" if found.groups() in (("a", ""), ("a", "1")) else "".join(found.groups())


def same_device(one: str, other: str) -> bool:
    """Return whether two names mean one device."""
    return device_identity(one) == device_identity(other)


AbsolutePath = Annotated[str, _matching(r"/[^\x00]*", "must be absolute: start with /")]
FileMode = Annotated[str, _matching(r"0?[0-7]{3,4}", 'a mode is octal digits in quotes: "0644"')]
Owner = Annotated[
    str,
    _matching(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]*)?", "an owner is user or user:group"),
]
_SSM_PART = "[A-Za-z0-9_.-]+"
SSM_NAME = re.compile(
    rf"(?P<arn>arn:aws[a-z-]*:ssm:[a-z0-9-]+:[0-9]{{12}}:parameter(?:/{_SSM_PART})+)(?P<arn_selector>:{_SSM_PART})?"
    rf"|(?P<name>{_SSM_PART}|(?:/{_SSM_PART})+)(?P<selector>:{_SSM_PART})?"
)
"""GetParameter, parameter Name (Systems Manager API reference): a plain name, a path that starts with a slash, or the
ARN of a parameter that another account shares; each also with `:VERSION` or `:LABEL`."""
SsmName = Annotated[
    str,
    _matching(
        SSM_NAME.pattern,
        "a parameter is a name, a path that starts with /, or an ARN; letters, digits and . _ -; also NAME:VERSION or"
        " NAME:LABEL",
    ),
]


MAX_PARAMETER = 1011
MAX_LEVELS = 15


def parameter_name_problem(name: str) -> str | None:
    """Return the reason why no parameter with this name could be written; None if one could be (PutParameter, Name)."""
    if ":" in name:
        return "write the name alone: a version or a label cannot be written, nor a parameter of another account by ARN"
    found = SSM_NAME.fullmatch(name)
    if found is None:
        return "a parameter is a name, or a path that starts with /; letters, digits and . _ -"
    if name.removeprefix("/").lower().startswith(("aws", "ssm")):
        return "a parameter's name cannot start with aws or ssm, which Systems Manager reserves"
    if len(name) > MAX_PARAMETER or name.count("/") > MAX_LEVELS:
        return f"a parameter's name has at most {MAX_PARAMETER} characters and {MAX_LEVELS} levels"
    return None


def ssm_parameter_arn(name: str, partition: str, region: str) -> str:
    """Return the ARN of a parameter as IAM compares it, without version and label, in any account if it is a name."""
    found = SSM_NAME.fullmatch(name)
    assert found is not None, f"{name} is checked by the spec"
    if found["arn"]:
        return found["arn"]
    return f"arn:{partition}:ssm:{region}:*:parameter/{found['name'].removeprefix('/')}"


LaunchTemplateId = Annotated[
    str, _matching(r"lt-(?:[0-9a-f]{8}|[0-9a-f]{17})", "a launch template's id is lt- and 8 or 17 hex digits")
]
LaunchTemplateName = Annotated[
    str,
    _matching(
        r"[a-zA-Z0-9().\-/_]{3,128}",
        "a launch template's name has 3 to 128 letters, digits and ( ) . - / _",
    ),
]
"""EC2 API reference, CreateLaunchTemplate, LaunchTemplateName."""
SnapshotId = Annotated[
    str, _matching(r"snap-(?:[0-9a-f]{8}|[0-9a-f]{17})", "a snapshot id is snap- and 8 or 17 hex digits")
]
VirtualName = Annotated[
    str, _matching(r"ephemeral(?:1?\d|2[0-3])", "an instance store volume is named ephemeral0 to ephemeral23")
]


def _price(value: str) -> str:
    if float(value) <= 0.001:
        raise PydanticCustomError("price", "a spot price is more than 0.001 dollars per hour")
    return value


Price = Annotated[
    str, _matching(r"\d+(\.\d+)?", 'a price is dollars per hour, in quotes: "0.02"'), AfterValidator(_price)
]
"""EC2 API reference, SpotMarketOptions, MaxPrice."""
KeyName = Annotated[str, _matching(r"[ -~]{1,255}", "a key pair's name has 1 to 255 printable ASCII characters")]
"""EC2 API reference, CreateKeyPair, KeyName."""
UserName = Annotated[
    str, _matching(r"[a-z_][a-z0-9_.-]*", "a user's name has lower case letters, digits and . _ -, a letter first")
]
ProvisionerName = Annotated[
    str,
    _matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "the name of a folder under provisioners/, without slashes"),
]


def _bucket(name: str) -> str:
    if problem := _bucket_problem(name):
        raise PydanticCustomError("bucket", "{problem}", {"problem": problem})
    return name


def _bucket_problem(name: str) -> str | None:
    """Return the problem with a bucket's name, by the S3 user guide, "General purpose bucket naming rules"."""
    if name.startswith("s3://"):
        return f"write only the bucket's name, {name[5:].partition('/')[0]}, without s3://; the rest is the prefix"
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name):
        return "a bucket's name has 3 to 63 lower case letters, digits, dots and dashes, but no dash or dot at its ends"
    if ".." in name or re.fullmatch(r"\d+(\.\d+){3}", name):
        return "a bucket's name cannot have two dots in a row, or be an IP address"
    if found := [start for start in _BUCKET_STARTS if name.startswith(start)]:
        return f"a bucket's name cannot start with {found[0]}, which S3 reserves"
    if found := [end for end in _BUCKET_ENDS if name.endswith(end)]:
        return f"a bucket's name cannot end with {found[0]}, which S3 reserves for other resources"
    return None


_BUCKET_STARTS = ("xn--", "sthree-", "amzn-s3-demo-")
_BUCKET_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
"""Endings of access point aliases, directory buckets and table buckets."""
BucketName = Annotated[str, AfterValidator(_bucket)]


def _excluded(path: str) -> str:
    """Return the path in the form that the tree walk uses."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PydanticCustomError("exclude", "an excluded path cannot contain ..")
    if any(c in path for c in "*?["):
        raise PydanticCustomError("exclude", "an excluded path is taken literally: *, ? and [ are not wildcards here")
    return "/" + "/".join(parts)


ExcludedPath = Annotated[AbsolutePath, AfterValidator(_excluded)]


def _cidr(value: str) -> str:
    if value != "caller":
        from ipaddress import ip_network  # loaded late: 4 ms that most specs do not need

        try:
            if "/" not in value:
                raise ValueError
            ip_network(value, strict=False)
        except ValueError:
            raise PydanticCustomError("cidr", "must be caller or a CIDR: 203.0.113.7/32") from None
    return value


Cidr = Annotated[str, AfterValidator(_cidr)]
KmsKey = Annotated[
    str,
    _matching(
        r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:(key/[0-9a-zA-Z-]+|alias/[a-zA-Z0-9/_-]{1,250})"
        r"|alias/[a-zA-Z0-9/_-]{1,250}|mrk-[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "not a KMS key: its id (a UUID), mrk-…, alias/NAME, or their ARN",
    ),
]
HostKey = Annotated[
    str,
    _matching(
        r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) AAAA[A-Za-z0-9+/]+=*( .*)?",
        "not a public host key: one line of `ssh-keyscan` without the host, `ssh-ed25519 AAAA…`",
    ),
]
OrganizationArn = Annotated[
    str,
    _matching(r"arn:aws[a-z-]*:organizations::\d{12}:organization/o-[a-z0-9]{10,32}", "not an organization's ARN"),
]
OuArn = Annotated[
    str,
    _matching(
        r"arn:aws[a-z-]*:organizations::\d{12}:ou/o-[a-z0-9]{10,32}/ou-[0-9a-z-]{8,68}",
        "not an organizational unit's ARN",
    ),
]


class _TextSchema:
    """Accepts a string or a `Late`; a string in the JSON Schema."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        text = core_schema.str_schema()

        def check(value: Any, inner: core_schema.ValidatorFunctionWrapHandler) -> Any:
            return value if isinstance(value, late.Late) else inner(value)

        return core_schema.no_info_wrap_validator_function(check, text)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string"}


Text = Annotated[late.Text, _TextSchema]
"""Text that may use `source` and `region`, in addition to `var`, `spec` and `build`."""

IMAGE_NAME = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}")
"""RegisterImage, parameter Name."""


def image_name_problem(name: str) -> str | None:
    """Return the reason why EC2 would refuse an image's name; None if it would not."""
    if not 3 <= len(name) <= 128:
        return f"an image's name has 3 to 128 characters, not {len(name)}"
    if not IMAGE_NAME.fullmatch(name):
        bad = sorted({c for c in name if not IMAGE_NAME.fullmatch(c * 3)})
        listed = " ".join(map(repr, bad))
        return f"an image's name has letters, digits, spaces and ( ) [ ] . - / ' @ _, and cannot have {listed}"
    return None


MAX_DESCRIPTION = 255


def description_problem(text: str) -> str | None:
    """Return the reason why EC2 would refuse an image's description; None if it would not (RegisterImage)."""
    if len(text) > MAX_DESCRIPTION:
        return f"a description can have at most {MAX_DESCRIPTION} characters, not {len(text)}"
    if bad := sorted({character for character in text if not " " <= character <= "~"}):
        return f"EC2 accepts only printable ASCII characters in a description, not {' '.join(map(repr, bad[:5]))}"
    return None


def tag_problem(key: str, value: str | None) -> str | None:
    """Return the reason why EC2 would refuse a tag; None if it would not."""
    if not 1 <= len(key) <= 128:
        return "a tag's key has 1 to 128 characters"
    if key.lower().startswith("aws:"):
        return "tag keys that start with aws: belong to AWS"
    if key.startswith("imagepipe:"):
        return "tag keys that start with imagepipe: are reserved for imagepipe"
    if value is not None and len(value) > 256:
        return f"a tag's value can have at most 256 characters, not {len(value)}"
    return None


MAX_TAGS = 38
"""EC2's limit is 50 for each resource; imagepipe's own tags, with Name, need up to twelve."""
