"""S3's state on disk: each key, each upload and each account's buckets are a blob of their own.

A request reads and writes only the blobs of the objects that it names, so a write costs the same however many objects
exist. An object's bytes are a file, named in its key's blob.
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from moto.backends import get_backend
from moto.s3.models import MultipartDict
from moto.s3.utils import _VersionedKeyStore

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.moto.pickling import Pickler, Unpickler
from imagepipe.local.aws.state.database import Database

ACCOUNT, KEY, UPLOAD = "s3", "s3-key", "s3-upload"
"""Prefixes of the names of the three kinds of blobs."""
MAX_PAGE_TOKENS = 1000


class WouldLose(Exception):
    """A save would delete objects that the request does not name, because moto has lost them from memory."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The objects that a request may have changed; without keys, the settings of the bucket."""

    bucket: str
    keys: frozenset[str] = frozenset()
    uploads: bool = False
    """True if a multipart upload may have changed too."""
    upload_id: str = ""
    """Id of that upload; empty for a new one."""
    deletes: bool = False
    """True if the request may delete the objects."""


class S3State:
    """Saves S3's state, and loads it. All calls need S3's lock."""

    def __init__(self, database: Database, objects: Path) -> None:
        self._database = database
        self._objects = objects
        self._digests: dict[str, bytes] = {}
        """Digests of the saved blobs, by blob."""
        self._named: dict[str, frozenset[str]] = {}
        """Files that a blob names, by blob."""
        self._owners: dict[str, str] = {}
        """Blob that names a file, by file."""
        self._within: dict[str, set[str]] = {}
        """Blobs by the prefix of their names: `s3-key/ACCOUNT/PARTITION/BUCKET`."""
        self._arns: dict[str, frozenset[str]] = {}
        """moto's names of the versions in a blob, by blob."""

    def load(self, blobs: Mapping[str, bytes]) -> None:
        """Replace moto's S3 state by the saved one."""
        accounts: Any = get_backend("s3")
        accounts.clear()
        accounts.bucket_accounts.clear()
        self._digests, self._named, self._owners, self._within, self._arns = {}, {}, {}, {}, {}
        ours = {name: body for name, body in blobs.items() if name.partition("/")[0] in (ACCOUNT, KEY, UPLOAD)}
        for name in sorted(ours, key=lambda name: (not name.startswith(f"{ACCOUNT}/"), name)):
            self._load(name, ours[name])

    def sweep(self) -> None:
        """Delete files that belong to no object: a killed process may have left some. Call before the first request."""
        for path in self._objects.iterdir():
            if path.name not in self._owners:
                path.unlink(missing_ok=True)

    def _load(self, name: str, body: bytes) -> None:
        accounts: Any = get_backend("s3")
        unpickler = Unpickler(body, self._objects)
        value = unpickler.load()
        kind, account, partition, *rest = name.split("/", 4)
        backend = accounts[account][partition]
        if kind == ACCOUNT:
            vars(backend).update(value)
            for bucket in backend.buckets:
                accounts.bucket_accounts[bucket] = (partition, account)
        elif kind == KEY:
            versions, tags = value
            dict.__setitem__(backend.buckets[rest[0]].keys, rest[1], versions)
            for of, arns in tags.items():
                accounts[of][partition].tagger.tags.update(arns)
            self._arns[name] = _arns(versions)
        else:
            backend.buckets[rest[0]].multiparts[rest[1]] = value
        self._note(name, _digest(body), frozenset(unpickler.named))

    def has_file(self, name: str) -> bool:
        """Tell if an object's bytes are in this file."""
        return name in self._owners

    def save(self, account: str, partition: str, changed: Changes) -> None:
        """Save the changes that a request of this account may have made. Raises WouldLose."""
        accounts: Any = get_backend("s3")
        partition, owner = accounts.bucket_accounts.get(changed.bucket, (partition, account))
        bucket = accounts[owner][partition].buckets.get(changed.bucket)
        place = f"{owner}/{partition}/{changed.bucket}"
        values: dict[str, Any] = {f"{KEY}/{place}/{key}": _key_of(bucket, key, partition) for key in changed.keys}
        if changed.uploads:
            present, prefix = (bucket.multiparts if bucket else {}), f"{UPLOAD}/{place}"
            new = {each for each in present if f"{prefix}/{each}" not in self._digests}
            values |= {f"{prefix}/{each}": present.get(each) for each in new | {changed.upload_id} - {""}}
        if not changed.keys:
            for each in {account, owner}:
                self._check_buckets(each, partition, changed)
                values[f"{ACCOUNT}/{each}/{partition}"] = _account_of(each, partition)
            if bucket is None:  # it was deleted; that may delete uploads in it, but not objects
                if self._within.get(f"{KEY}/{place}"):
                    raise WouldLose(f"bucket {changed.bucket} is gone, and there are objects in it")
                values |= dict.fromkeys(self._within.get(f"{UPLOAD}/{place}", ()))
        gone = [name for name, value in values.items() if value is None and name in self._digests]
        if gone and not changed.deletes:
            raise WouldLose(f"{len(gone)} of S3's objects are gone and no request deleted them, such as {gone[0]}")
        self._write(values)

    def _check_buckets(self, account: str, partition: str, changed: Changes) -> None:
        """Raise WouldLose if a bucket with saved objects has disappeared, and the request did not delete it."""
        present = cast(Any, get_backend("s3"))[account][partition].buckets
        place = f"{account}/{partition}/"
        for within in self._within:
            bucket = within.partition("/")[2].removeprefix(place) if f"/{place}" in within else ""
            is_meant = changed.deletes and bucket == changed.bucket
            if bucket and bucket not in present and not is_meant and self._within[within]:
                raise WouldLose(f"bucket {bucket} is gone, with all that was in it, and no request deleted it")

    def _write(self, values: Mapping[str, Any]) -> None:
        """Write the blobs that differ from those that are saved; None deletes one."""
        changes: dict[str, bytes | None] = {}
        files: dict[str, frozenset[str]] = {}
        for name, value in values.items():
            if value is None:
                if name in self._digests:
                    changes[name] = None
                continue
            body, named = self._pickled(name, value)
            if self._digests.get(name) != _digest(body):
                changes[name], files[name] = body, named
        self._database.write_blobs(changes)
        self._forget_tags({name: values[name] for name in changes if name.startswith(f"{KEY}/")})
        for name, written in changes.items():
            before = self._named.get(name, frozenset())
            if written is None:
                self._forget(name)
            else:
                self._note(name, _digest(written), files[name])
            for file in before - files.get(name, frozenset()):
                self._owners.pop(file, None)
                (self._objects / file).unlink(missing_ok=True)

    def _forget_tags(self, values: Mapping[str, Any]) -> None:
        """Delete the tags of deleted objects, which moto keeps."""
        for name, value in values.items():
            present = _arns(value[0]) if value else frozenset()
            for arn in self._arns.pop(name, frozenset()) - present:
                for regions in cast(Any, get_backend("s3")).values():
                    regions[name.split("/", 3)[2]].tagger.tags.pop(arn, None)
            if present:
                self._arns[name] = present

    def _pickled(self, name: str, value: Any) -> tuple[bytes, frozenset[str]]:
        buffer = io.BytesIO()
        pickler = Pickler(buffer, self._objects, lambda file: self._owners.get(file, name) != name)
        pickler.dump(value)
        return buffer.getvalue(), frozenset(pickler.named)

    def _note(self, name: str, digest: bytes, files: frozenset[str]) -> None:
        self._digests[name] = digest
        self._named[name] = files
        self._owners.update(dict.fromkeys(files, name))
        kind, account, partition, *rest = name.split("/", 4)
        if rest:
            self._within.setdefault(f"{kind}/{account}/{partition}/{rest[0]}", set()).add(name)

    def _forget(self, name: str) -> None:
        self._digests.pop(name, None)
        self._named.pop(name, None)
        kind, account, partition, *rest = name.split("/", 4) if name.count("/") >= 3 else (name, "", "")
        if rest:
            within = f"{kind}/{account}/{partition}/{rest[0]}"
            self._within.get(within, set()).discard(name)
            if not self._within.get(within):
                self._within.pop(within, None)


def _account_of(account: str, partition: str) -> dict[str, Any]:
    """Return an account's buckets without their objects and the objects' tags, which are saved with the keys."""
    backend: Any = cast(Any, get_backend("s3"))[account][partition]
    tagger = copy.copy(backend.tagger)
    tagger.tags = {arn: tags for arn, tags in tagger.tags.items() if not _is_of_object(arn)}
    return {
        **vars(backend),
        "buckets": {name: _empty(each) for name, each in backend.buckets.items()},
        "tagger": tagger,
    }


def forget_page_tokens(backend: Any) -> None:
    """Forget old page tokens: moto keeps all of them."""
    tokens = backend._pagination_tokens
    while len(tokens) > MAX_PAGE_TOKENS:
        tokens.pop(next(iter(tokens)))


def _empty(bucket: Any) -> Any:
    shell = copy.copy(bucket)
    shell.keys, shell.multiparts = _VersionedKeyStore(), MultipartDict()
    return shell


def _is_of_object(arn: str) -> bool:
    return "/" in arn


def _key_of(bucket: Any, key: str, partition: str) -> tuple[list[Any], dict[str, dict[str, Any]]] | None:
    """Return all versions of a key, and their tags, which moto keeps with the account that set them."""
    versions = dict.get(bucket.keys, key) if bucket is not None else None
    if not versions:
        return None
    tags: dict[str, dict[str, Any]] = {}
    for account, regions in cast(Any, get_backend("s3")).items():
        of = regions[partition].tagger.tags
        if found := {arn: of[arn] for arn in _arns(versions) if of.get(arn)}:
            tags[account] = found
    return versions, tags


def _arns(versions: Sequence[Any]) -> frozenset[str]:
    """List moto's names of the versions, by which it keeps their tags; a delete marker has none."""
    return frozenset(version.arn for version in versions if hasattr(version, "arn"))


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
