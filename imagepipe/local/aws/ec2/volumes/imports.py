"""ImportSnapshot: make a snapshot of a disk image in this cloud's S3."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import unquote, urlparse

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import idempotency
from imagepipe.local.aws.ec2.instances.jobs import FAILURES
from imagepipe.local.aws.ec2.volumes import encryption
from imagepipe.local.aws.moto import iam, s3_objects
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid, missing
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import ImportTask, Snapshot
from imagepipe.local.disks import vm_formats

log = logging.getLogger(__name__)

ROLE = "vmimport"
"""Default of RoleName (EC2 API reference, ImportSnapshot)."""
FORMATS = ("RAW", *vm_formats.DRIVERS)
MAX_GIB = 16384  # VM Import/Export user guide, "Resource limits"


def import_snapshot(backend: Backend, call: Call) -> Mapping[str, Any]:
    before = idempotency.earlier_result(backend, call)
    if before is not None:
        return to_api(backend.database.imports[before[0]])
    params = call.params
    container: Mapping[str, Any] = params.get("DiskContainer") or {}
    form = str(container.get("Format") or "").upper()
    if form not in FORMATS:
        raise AwsError("InvalidParameter", f"The value {container.get('Format')} is not one of {', '.join(FORMATS)}")
    if form in vm_formats.DRIVERS and not vm_formats.is_installed():
        text = f"The local cloud reads {form} with qemu-img, which is not installed: import a raw disk, or install it"
        raise AwsError("UnsupportedOperation", text)
    bucket, key = _place(container)
    role = str(params.get("RoleName") or ROLE)
    if not iam.has_role(backend.moto, call.account, role):
        text = f"The service role {role} provided does not exist or does not have sufficient permissions"
        raise AwsError("InvalidParameter", text)
    if params.get("KmsKeyId") and not params.get("Encrypted"):
        raise encryption.key_without_encryption()
    encrypted = encryption.for_volume(
        backend, call, is_asked=bool(params.get("Encrypted")), key=params.get("KmsKeyId"), snapshot=None
    )
    task = ImportTask(
        id=new_id("import-snap"),
        account=call.account,
        region=call.region,
        tags=tagging.parse_specifications(params, "import-snapshot-task")["import-snapshot-task"],
        snapshot_id=new_id("snap"),
        bucket=bucket,
        key=key,
        url=str(container.get("Url") or ""),
        form=form,
        description=str(params.get("Description") or ""),
        disk_description=str(container.get("Description") or ""),
        encrypted=encrypted.is_on,
        kms_key_id=encrypted.kms_key_id,
        fails_with=encrypted.problem,
    )
    backend.faults.bind(task.id, call.action, params, "fail", "hang")
    backend.database.put(task)
    idempotency.remember(backend, call, [task.id])
    backend.submit_later(task.id, run, task.id)
    return to_api(task)


def _place(container: Mapping[str, Any]) -> tuple[str, str]:
    """Return the bucket and the key of the disk image. Raises AwsError."""
    inside, url = container.get("UserBucket") or {}, container.get("Url")
    if inside and url:
        raise conflicting("The parameters url and userBucket cannot be used together")
    if url:
        parts = urlparse(str(url))
        host = re.fullmatch(r"(.+)\.s3[.-].*", parts.hostname or "")
        path = unquote(parts.path).lstrip("/")
        if parts.scheme == "s3":
            bucket, key = parts.netloc, path
        elif host:
            bucket, key = host[1], path
        else:
            bucket, _, key = path.partition("/")
    else:
        bucket, key = str(inside.get("S3Bucket") or ""), str(inside.get("S3Key") or "")
    if not bucket or not key:
        raise missing("diskContainer.userBucket")
    return bucket, key


def run(backend: Backend, task_id: str) -> None:
    """Do an active import: read the object, and make the snapshot. A job of the task's queue."""
    task = backend.database.imports.get(task_id)
    if task is None or task.state != "active":
        return
    try:
        backend.job_queues.delay("import")
        if backend.faults.bound(task_id, "hang"):
            return
        if fault := backend.faults.bound(task_id, "fail"):
            raise AwsError("ClientError", fault.reason)
        if task.fails_with:
            raise AwsError("ClientError", task.fails_with)
        source = s3_objects.object_file(backend.moto, task.account, task.region, bucket=task.bucket, key=task.key)
        size = source.stat().st_size
        _set(backend, task_id, size=size, progress=30, message="downloading/converting")
        make_raw = None if task.form == "RAW" else partial(vm_formats.make_raw, source, task.form)
        size_gib = backend.disks.import_snapshot(source, task.snapshot_id, most_gib=MAX_GIB, make_raw=make_raw)
    except FAILURES as error:
        log.warning("import %s failed: %s", task_id, error)
        text = error.message if isinstance(error, AwsError) else str(error)
        _set(backend, task_id, state="error", message=f"ClientError: {text}", progress=None)
        return
    with backend.database.change():
        present = backend.database.imports.get(task_id)
        if present is None or present.state != "active":  # cancelled meanwhile
            backend.disks.delete_snapshot(task.snapshot_id)
            return
        backend.database.put(replace(present, state="completed", progress=None, message=""))
        backend.database.put(_snapshot(backend, present, size_gib))


def _set(backend: Backend, task_id: str, **changes: Any) -> None:
    with backend.database.change():
        task = backend.database.imports.get(task_id)
        if task is not None and task.state == "active":
            backend.database.put(replace(task, **changes))


def _snapshot(backend: Backend, task: ImportTask, size_gib: int) -> Snapshot:
    now = backend.clock.now()
    return Snapshot(
        id=task.snapshot_id,
        account=task.account,
        region=task.region,
        volume_id="vol-ffffffff",  # EC2's own stand-in for the volume of an import
        size_gib=size_gib,
        state="completed",
        progress=100,
        description=task.description or f"Created by AWS-VMImport service for {task.id}",
        start_time=now,
        completion_time=now,
        encrypted=task.encrypted,
        kms_key_id=task.kms_key_id,
    )


def cancel_import_task(backend: Backend, call: Call) -> Mapping[str, Any]:
    [task] = _named(backend, call, [call.text("ImportTaskId")])
    if task.state != "active":
        raise AwsError("IncorrectState", f"The import task {task.id} is {task.state} and cannot be cancelled")
    reason = str(call.params.get("CancelReason") or "Cancelled by the user")
    backend.database.put(replace(task, state="deleted", message=reason, progress=None))
    return {"ImportTaskId": task.id, "PreviousState": "active", "State": "deleting"}


def _named(backend: Backend, call: Call, identifiers: list[str]) -> list[ImportTask]:
    known = {row.id: row for row in backend.database.imports.owned(call.account, call.region)}
    for identifier in identifiers:
        if identifier not in known:
            raise AwsError("InvalidConversionTaskId", f"The import task ID {identifier} is not valid")
    return [known[each] for each in identifiers] if identifiers else list(known.values())


def describe_import_snapshot_tasks(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = _named(backend, call, call.params.get("ImportTaskIds", []))
    for each in call.params.get("Filters") or ():
        if not str(each.get("Name", "")).startswith("tag"):
            raise invalid(f"The filter '{each.get('Name')}' is invalid")
    shown, token = filters.page(rows, call.params, {}, least=1, ids="ImportTaskIds")
    return {"ImportSnapshotTasks": [to_api(row) for row in shown], "NextToken": token}


def to_api(task: ImportTask) -> dict[str, Any]:
    """Describe an import as DescribeImportSnapshotTasks does."""
    inside = None if task.url else {"S3Bucket": task.bucket, "S3Key": task.key}
    return {
        "ImportTaskId": task.id,
        "Description": task.description or None,
        "SnapshotTaskDetail": {
            "Description": task.disk_description or None,
            "DiskImageSize": float(task.size),
            "Encrypted": task.encrypted,
            "KmsKeyId": task.kms_key_id,
            "Format": task.form,
            "Progress": None if task.progress is None else str(task.progress),
            "SnapshotId": task.snapshot_id if task.state == "completed" else None,
            "Status": task.state,
            "StatusMessage": task.message or None,
            "Url": task.url or None,
            "UserBucket": inside,
        },
        "Tags": tagging.if_any(task.tags),
    }


def resume(backend: Backend) -> None:
    """Submit what an earlier process did not finish."""
    for task in backend.database.imports:
        if task.state == "active":
            backend.submit(task.id, run, task.id)
