"""Choose the KMS key of a volume or a copy, and find out if it can be used.

Nothing is encrypted here: the records say what EC2 would encrypt. The keys are moto's; the account's default key is
made when it is first needed.
"""

from __future__ import annotations

from functools import partial

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.account_settings import DEFAULT_KEY, ENCRYPTS, setting
from imagepipe.local.aws.moto import kms
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Snapshot

NOT_ACCESSIBLE = "Given key ID is not accessible"


@dataclass(frozen=True, slots=True)
class Encryption:
    """The encryption of a volume or snapshot."""

    is_on: bool
    kms_key_id: str | None = None
    """The key's ARN."""
    problem: str = ""
    """Reason why the key cannot be used; EC2 checks it after its answer (API reference, RunInstances, CopyImage)."""


def for_volume(
    backend: Backend, call: Call, *, is_asked: bool, key: str | None, snapshot: Snapshot | None
) -> Encryption:
    """Decide a volume's encryption by the request, its snapshot, and the account's settings.

    EBS user guide, "Encryption outcomes": a volume takes over the key of its snapshot,
    if that is the caller's own.
    """
    if key:
        return _with_key(backend, call, key)
    if snapshot is not None and snapshot.encrypted:
        if snapshot.account == call.account and snapshot.kms_key_id:
            return _with_key(backend, call, snapshot.kms_key_id)
        return _with_default(backend, call)
    if is_asked or encrypts_by_default(backend, call):
        return _with_default(backend, call)
    return Encryption(False)


def for_copy(backend: Backend, call: Call, source: Snapshot) -> Encryption:
    """Decide a copy's encryption: with the named key, or else with the default key of the copy's region."""
    key = call.params.get("KmsKeyId")
    if not (call.params.get("Encrypted") or source.encrypted or encrypts_by_default(backend, call)):
        if key:
            raise key_without_encryption()
        return Encryption(False)
    return _with_key(backend, call, str(key)) if key else _with_default(backend, call)


def key_without_encryption() -> AwsError:
    return AwsError("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")


def encrypts_by_default(backend: Backend, call: Call) -> bool:
    """Tell if the account encrypts all new volumes and copies in this region."""
    return setting(backend, call.account, call.region, ENCRYPTS, "false") == "true"


def aws_managed_key(backend: Backend, call: Call) -> str:
    """Return the ARN of AWS's own key for EBS, which moto makes after the change that needs it."""
    for key in kms.keys(backend.moto, call.account, call.region):
        if kms.EBS_ALIAS in key.aliases:
            return key.arn
    backend.database.later(partial(kms.make_ebs_key, backend.moto, call.account, call.region))
    return f"arn:aws:kms:{call.region}:{call.account}:key/{kms.ebs_key_id(call.account, call.region)}"


def is_aws_managed(backend: Backend, snapshot: Snapshot) -> bool:
    """Tell if the snapshot is encrypted with AWS's own key for EBS, which cannot be shared."""
    if not snapshot.encrypted or not snapshot.kms_key_id:
        return False
    name = snapshot.kms_key_id.rpartition("/")[2]
    return name == kms.ebs_key_id(snapshot.account, snapshot.region) or any(
        key.id == name and kms.EBS_ALIAS in key.aliases
        for key in kms.keys(backend.moto, snapshot.account, snapshot.region)
    )


def _with_default(backend: Backend, call: Call) -> Encryption:
    own = setting(backend, call.account, call.region, DEFAULT_KEY, "")
    return Encryption(True, own or aws_managed_key(backend, call))


def _with_key(backend: Backend, call: Call, name: str) -> Encryption:
    if name in (kms.EBS_ALIAS, aws_managed_key(backend, call)):
        return Encryption(True, aws_managed_key(backend, call))
    key = kms.find_key(backend.moto, call.account, call.region, name)
    if key is None:
        return Encryption(True, name, NOT_ACCESSIBLE)
    return Encryption(True, key.arn, "" if key.is_enabled else f"{key.arn} is disabled")
