"""No secret on the instance: canaries are planted, and looked for on its whole disk, in its processes over time, and in
the unpacked bundle. Each search is shown to find what is there.

With -s the test prints what it looked through.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from imagepipe.bundle.certificates import load_certificate, load_owner
from imagepipe.bundle.cipher import Secret
from imagepipe.bundle.manifest import Recipients, find_secret, read_manifest
from imagepipe.capture.instance_store.stages import BundleRoot
from imagepipe.capture.scan.stages import Offline
from imagepipe.clock import Deadline, SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.s3 import Presigned
from imagepipe.cloud.session import Access, Session
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Connections, Watch
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.events import AnyEvent, Events
from imagepipe.engine.journal import Lifetime, RunRecord
from imagepipe.engine.stage import Context, Ref
from imagepipe.local.disks.files import Disks
from imagepipe.local.disks.search import scan_disk
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.masking import Masker
from imagepipe.values import Bundle, BundlePlace, Endpoint, Instance, Reachable
from tests import run_folders
from tests.bundle.samples import CASES
from tests.machine.bakery import Bakery, _data

pytestmark = pytest.mark.machine

ACCOUNT = "000000000000"
BUCKET = "canaries"
STEP_SECRET = "CANARY-of-a-step-5b1d2f0c"
CONTROL = b"CONTROL-that-must-be-found-77aa"
CONTROL_PROCESS = "86399.77"


@dataclass
class Sampler:
    """Command lines and environments of all processes of an instance, again and again."""

    machine: str
    seen: dict[str, set[bytes]] = field(default_factory=lambda: {"cmdline": set(), "environ": set()})
    samples: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        folder = MachineGroup(self.machine).procs_files()[0].parent
        while not self.is_over.is_set():
            with suppress(OSError):  # groups come and go
                for procs in folder.rglob("cgroup.procs"):
                    for pid in procs.read_text().split():
                        self._look(pid)
            self.samples += 1

    def _look(self, pid: str) -> None:
        for name, seen in self.seen.items():
            with suppress(OSError):
                seen.add(Path(f"/proc/{pid}/{name}").read_bytes())

    @contextmanager
    def going(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.is_over.set()
            thread.join()


def _session(bakery: Bakery) -> Session:
    cloud = bakery.cloud
    access = Access(
        endpoint_url=cloud.endpoint_url,
        region="us-east-1",
        access_key_id=cloud.access_key_id,
        secret_access_key=cloud.secret_access_key,
        instance_endpoint_url=cloud.instance_endpoint_url,
    )
    return Session(access)


def _key_needles(name: str, pem: bytes) -> dict[str, bytes]:
    """A private key as text, line by line, and as its numbers."""
    lines = [line for line in pem.splitlines() if len(line) > 60]
    middle = base64.b64decode(lines[len(lines) // 2])
    return {f"{name}, a line of its PEM": lines[len(lines) // 2], f"{name}, its bytes": middle[3:43]}


def _found(path: Path, needles: Mapping[str, bytes]) -> tuple[set[str], int]:
    """Which of them are anywhere in a file that is not a hole, and how many bytes were looked through."""
    found: set[str] = set()
    size = 0
    for block in _data(path, overlap=max(map(len, needles.values()))):
        size += len(block)
        found |= {name for name, needle in needles.items() if needle in block}
    return found, size


def test_no_secret_is_on_the_instance_in_its_processes_or_in_the_bundle(
    bakery: Bakery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = bakery.client("s3")
    s3.create_bucket(Bucket=BUCKET, ObjectOwnership="BucketOwnerPreferred")
    recipients = Recipients(
        load_owner(CASES / "user-cert.pem", CASES / "user-key.pem"), load_certificate(bakery.store.ec2_certificate)
    )
    source = bakery.client().describe_images(Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}])["Images"][0]
    clock = SystemClock()
    cancel = Cancel(clock)
    regions = Regions(_session(bakery), clock)
    ec2 = regions["us-east-1"]
    signed: list[Presigned] = []
    give = ec2.s3.presigned_put

    def noted(*args: str, **keys: str) -> Presigned:
        signed.append(give(*args, **keys))  # type: ignore[arg-type]
        return signed[-1]

    monkeypatch.setattr(ec2.s3, "presigned_put", noted)
    monkeypatch.setenv("CANARY_OF_THE_CONTROLLER", "CANARY-of-our-environment-91c2")
    said: list[AnyEvent] = []
    with bakery.instance(source["ImageId"], "us-east-1") as booted:
        endpoint = booted.connection.endpoint
        connections = Connections()
        watch = Watch(lambda *_: None, Deadline.after(60, clock), cancel)
        process = f"sudo -u nobody sleep {CONTROL_PROCESS} >/dev/null 2>&1 &"
        plant = f"sudo sh -c 'echo {CONTROL.decode()} >/etc/control; sync'; {process}"
        step = Script(f'{plant}\ntest -n "$SECRET"', env={"SECRET": STEP_SECRET})
        machine = Reachable(Instance(booted.id, "us-east-1", "t3.small", "/dev/xvda", None), endpoint)
        stage = BundleRoot(
            ec2, connections, recipients, Ref("machine"), Ref("source"), Ref("place"), "canary", ACCOUNT, is_local=True,
            offline=Offline(Disks(bakery.store.disks).snapshot_path, scan_disk),
        )  # fmt: skip
        journal = run_folders.create(tmp_path / "r1", RunRecord("r1", "2026-11-23T00:00:00Z", (), {}, {}), clock)
        events = Events("r1", clock, Masker(), [said.append])
        claim = journal.intend("bundle", "us-east-1", lifetime=Lifetime.PRODUCT, stage="bucket")
        place = BundlePlace(BUCKET, f"p/{claim.token}", claim.token)
        outputs = {"machine": machine, "source": ec2.images.by_id(source["ImageId"]), "place": place}
        sampler = Sampler(booted.id)
        with sampler.going():
            assert run_script(connections.get(endpoint), step, watch).code == 0
            bundle = stage.run(Context("bundle", outputs, journal, events, cancel, clock))
        journal.close()
        connections.close()
        secret = find_secret(read_manifest(_read(bakery, bundle, bundle.manifest_key)), recipients.owner.private_key)
        needles = _needles(bakery, secret, endpoint, signed)
        disk, host_key = _disk(bakery, booted.id), _host_key(bakery, booted.id)
        os.sync()
        on_disk, disk_bytes = _found(disk, {**needles, "control": CONTROL})
    assert on_disk == {"control"}

    words, environments = (b"\0\0".join(sampler.seen[name]) for name in ("cmdline", "environ"))
    assert CONTROL_PROCESS.encode() in words
    assert b"imagepipe-agent" in words
    assert {name for name, needle in needles.items() if needle in words} == set()
    # A step's environment is where its own process has its secret from.
    assert {name for name, needle in needles.items() if needle in environments} <= {"secret of a step"}

    unpacked = _unpacked(bakery, bundle, tmp_path)
    more = {"our login, in authorized_keys": _public(endpoint), "the machine's host key": host_key}
    in_bundle, bundle_bytes = _found(unpacked, {**needles, **more, "control": CONTROL})
    assert in_bundle == {"control"}

    journal_text = (tmp_path / "r1/journal.jsonl").read_bytes() + repr(said).encode()
    assert not [name for name, needle in needles.items() if needle in journal_text]
    for key in [row["Key"] for row in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]:
        s3.delete_object(Bucket=BUCKET, Key=key)
    s3.delete_bucket(Bucket=BUCKET)
    sys.stdout.write(
        f"\n{len(needles)} canaries, {len(signed)} URLs among them: 0 found in {disk_bytes >> 20} MiB of the disk, 0 in"
        f" {sum(map(len, sampler.seen.values()))} command lines and environments ({sampler.samples} samples), 0 in"
        f" {bundle_bytes >> 20} MiB of the unpacked bundle\n"
    )


def _needles(bakery: Bakery, secret: Secret, endpoint: Endpoint, signed: list[Presigned]) -> dict[str, bytes]:
    owner = (CASES / "user-key.pem").read_bytes()
    numbers = load_owner(CASES / "user-cert.pem", CASES / "user-key.pem").private_key.private_bytes(
        Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    signatures = {url.url.rpartition("X-Amz-Signature=")[2][:64] for url in signed}
    return {
        "bundle key": secret.key,
        "bundle key in hex": secret.key.hex().encode(),
        "bundle IV": secret.iv,
        "bundle IV in hex": secret.iv.hex().encode(),
        **_key_needles("signing key", owner),
        "signing key, in DER": numbers[40:100],
        **_key_needles("login key", Path(endpoint.private_key).read_bytes()),
        "secret access key": bakery.cloud.secret_access_key.encode(),
        "secret of a step": STEP_SECRET.encode(),
        "our environment": b"CANARY-of-our-environment-91c2",
        **{f"signature of URL {number}": each.encode() for number, each in enumerate(sorted(signatures))},
    }


def _public(endpoint: Endpoint) -> bytes:
    from imagepipe.communicator.ssh import public_key

    return public_key(endpoint).encode()


def _read(bakery: Bakery, bundle: Bundle, key: str) -> bytes:
    return bytes(bakery.client("s3").get_object(Bucket=bundle.bucket, Key=key)["Body"].read())


def _disk(bakery: Bakery, instance: str) -> Path:
    ec2 = bakery.client()
    described = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return Disks(bakery.store.disks).volume_path(described["BlockDeviceMappings"][0]["Ebs"]["VolumeId"])


def _host_key(bakery: Bakery, instance: str) -> bytes:
    """A line of the private host key that user data gave it."""
    answer = bakery.client().describe_instance_attribute(InstanceId=instance, Attribute="userData")
    text = base64.b64decode(answer["UserData"]["Value"])
    lines: list[bytes] = re.findall(rb"[A-Za-z0-9+/]{64}", text)
    assert len(lines) > 3, text
    return lines[2]


def _unpacked(bakery: Bakery, bundle: Bundle, folder: Path) -> Path:
    """By the command that anybody has."""
    here = folder / "bundle"
    here.mkdir()
    for name in (bundle.manifest_key.rpartition("/")[2], *(part.filename for part in bundle.parts)):
        (here / name).write_bytes(_read(bakery, bundle, f"{bundle.folder}/{name}"))
    manifest = here / f"{bundle.name}.manifest.xml"
    key = CASES / "user-key.pem"
    done = bakery("bundle", "unpack", str(manifest), "--private-key", str(key), "--output", str(folder))
    assert done.code == 0, done.err
    return folder / bundle.name
