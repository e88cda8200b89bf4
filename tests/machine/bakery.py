"""imagepipe as a user runs it, on a local cloud of the tests' own; and what the cloud says of the account."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from imagepipe.cli.local_store import terminate_everything
from imagepipe.communicator import keys
from imagepipe.communicator.ssh import Connection, NotConnected, Watch, connect
from imagepipe.local.client import connect as local_cloud
from imagepipe.local.client.connect import LocalCloud
from imagepipe.local.disks.files import Disks
from imagepipe.local.store import Store, default_base_cache, default_root
from imagepipe.values import Endpoint
from tests.machine.guests import host_key_user_data

REGIONS = ("us-east-1", "us-west-2")
WITHOUT_BOOT = {"IMAGEPIPE_LOCAL_DRIVER": "sshd"}
SECONDS = 1800.0

MINIMAL = """\
imagepipe: 1
name: {name}
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch: {{region: us-east-1}}
provision:
{steps}
output: {{name: "{name}-{{{{ build.id }}}}"}}
publish: {{regions: [us-west-2]}}
"""


@dataclass
class Baked:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def images(self) -> dict[str, str]:
        """Image ids by region, of a build with --format json."""
        return {image["region"]: image["image_id"] for image in json.loads(self.out)["images"]}

    @property
    def run(self) -> str:
        return str(json.loads(self.out)["run"])


@dataclass
class Bakery:
    """The command line, in a folder and with a state of its own, on one local cloud."""

    folder: Path
    store: Store
    cloud: LocalCloud
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "imagepipe.yaml").write_text("defaults: {ssh_user: admin}\n", encoding="utf-8")
        kept = ("PATH", "HOME", "LANG", "SSL_CERT_FILE")
        self.env = {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "XDG_STATE_HOME": str(self.folder / "state"),
            "IMAGEPIPE_LOCAL_STORE": str(self.store.root),
            "IMAGEPIPE_LOCAL_BASE_CACHE": str(self.store.base_cache),
            "AWS_EC2_METADATA_DISABLED": "true",
            "IMAGEPIPE_DEBUG": "1",
            **self.env,
        }

    def spec(self, name: str, steps: str, **files: str) -> Path:
        """A small spec with these steps (YAML, not indented), and files beside it."""
        indented = "".join(f"  {line}\n" for line in steps.strip("\n").splitlines())
        return self.write(f"{name}.yaml", MINIMAL.format(name=name, steps=indented.rstrip("\n")), **files)

    def write(self, name: str, text: str, **files: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        for other, content in files.items():
            (self.folder / other.replace("__", "/")).write_text(content, encoding="utf-8")
        return path

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """The command, going on in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "imagepipe.cli.main", *args],
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Kill what a failed test left going on."""
        for process in self.started:
            if process.poll() is None:
                kill(process)

    def __call__(self, *args: str, **env: str) -> Baked:
        """The command, to its end."""
        process = self.start(*args, **env)
        try:
            out, err = process.communicate(timeout=SECONDS)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Baked(process.returncode, out, err)

    def build(self, spec: Path, *args: str, **env: str) -> Baked:
        """A build that must succeed."""
        baked = self("build", str(spec), "--local", "--format", "json", *args, **env)
        assert baked.code == 0, baked.err
        return baked

    @property
    def runs(self) -> Path:
        return self.folder / "state" / "imagepipe" / "runs"

    def journal(self) -> list[dict[str, Any]]:
        """The records of the newest run's journal."""
        return self._newest("journal.jsonl")

    def events(self) -> list[dict[str, Any]]:
        """The events of the newest run."""
        return self._newest("events.jsonl")

    def _newest(self, name: str) -> list[dict[str, Any]]:
        found = sorted(self.runs.glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)
        if not found:
            return []
        lines = found[-1].read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def client(self, service: str = "ec2", region: str = "us-east-1") -> Any:
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.cloud.endpoint_url,
            aws_access_key_id=self.cloud.access_key_id,
            aws_secret_access_key=self.cloud.secret_access_key,
        )

    def admin(self, method: str, name: str, body: object = None) -> Any:
        """The cloud's own interface."""
        data = b"" if body is None else json.dumps(body).encode()
        request = AWSRequest(method=method, url=f"{self.cloud.endpoint_url}/_imagepipe/{name}", data=data)
        credentials = Credentials(self.cloud.access_key_id, self.cloud.secret_access_key)
        SigV4Auth(credentials, "ec2", "us-east-1").add_auth(request)
        prepared = urllib.request.Request(request.url, data=data, headers=dict(request.headers), method=method)
        with urllib.request.urlopen(prepared, timeout=300) as answer:
            return json.loads(answer.read())

    @contextmanager
    def fault(self, **fault: object) -> Iterator[None]:
        """While inside, the cloud has this fault."""
        self.admin("POST", "faults", fault)
        try:
            yield
        finally:
            self.admin("DELETE", "faults")

    def inventory(self) -> dict[str, list[str]]:
        """Everything in the account that Describe calls list, in both regions."""
        found: dict[str, list[str]] = {}
        for region in REGIONS:
            ec2 = self.client(region=region)
            instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
            alive = [i["InstanceId"] for i in instances if i["State"]["Name"] != "terminated"]
            found[f"{region} instances"] = sorted(alive)
            found[f"{region} images"] = _ids(ec2.describe_images(Owners=["self"])["Images"], "ImageId")
            found[f"{region} snapshots"] = _ids(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"], "SnapshotId")
            found[f"{region} volumes"] = _ids(ec2.describe_volumes()["Volumes"], "VolumeId")
            found[f"{region} keys"] = _ids(ec2.describe_key_pairs()["KeyPairs"], "KeyPairId")
            found[f"{region} groups"] = _ids(ec2.describe_security_groups()["SecurityGroups"], "GroupId")
        return found

    def is_on_disk(self, baked: Baked, needle: bytes) -> bool:
        """Tell if any block of the captured disk of a build's last image, free ones too, has these bytes."""
        snapshot = json.loads(baked.out)["images"][-1]["snapshots"][0]
        path = Disks(self.store.disks).snapshot_path(snapshot)
        return any(needle in block for block in _data(path, overlap=len(needle)))

    @contextmanager
    def instance(
        self, image: str, region: str, *, ports: tuple[int, ...] = (), seconds: float = 300, kind: str = "t3.small"
    ) -> Iterator[Booted]:
        """An instance launched from an image, by plain boto3 calls, that lets us in."""
        ec2 = self.client(region=region)
        login, host = keys.generate("test"), _host_pair()
        name = f"test-{image}"
        key_path = self.folder / f"{image}.key"
        keys.write_private(key_path, login)
        ec2.import_key_pair(KeyName=name, PublicKeyMaterial=login.public.encode())
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = ec2.create_security_group(GroupName=name, Description="test", VpcId=vpc)["GroupId"]
        ranges = [{"CidrIp": "127.0.0.1/32"}]
        for port in (22, *ports):
            rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": ranges}
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        instance = ec2.run_instances(
            ImageId=image,
            InstanceType=kind,
            MinCount=1,
            MaxCount=1,
            KeyName=name,
            SecurityGroupIds=[group],
            UserData=host[1],
        )["Instances"][0]["InstanceId"]
        try:
            address = until(lambda: _address(ec2, instance), "the instance runs")
            endpoint = Endpoint(address, self.cloud.host_ports.of(22), "admin", host[0], str(key_path))
            connection = until(lambda: _connected(endpoint), "SSH answers", seconds=seconds)
            yield Booted(instance, address, connection)
            connection.close()
        finally:
            ec2.terminate_instances(InstanceIds=[instance])
            until(lambda: _address(ec2, instance, state="terminated") is not None or None, "the instance is gone")
            ec2.delete_security_group(GroupId=group)
            ec2.delete_key_pair(KeyName=name)


@dataclass
class Booted:
    """An instance that runs and lets us in."""

    id: str
    address: str
    connection: Connection

    def sh(self, command: str) -> str:
        """Return the output of a command, which must succeed."""
        from imagepipe.clock import Deadline, SystemClock
        from imagepipe.engine.cancel import Cancel

        clock = SystemClock()
        said: list[str] = []
        watch = Watch(lambda _, text: said.append(text), Deadline.after(60, clock), Cancel(clock))
        result = self.connection.run(command, watch)
        assert result.code == 0, f"{command}: {result} {said}"
        return "\n".join(said)


@contextmanager
def without_boot(folder: Path) -> Iterator[Bakery]:
    """imagepipe on a cloud whose machines are an sshd on the instance's own tree; ended with all that is on it."""
    cache = default_base_cache(os.environ) or default_root(os.environ) / "base"
    store = Store.open(folder / "store", base_cache=cache, driver="sshd")
    with local_cloud.connect(store) as cloud:
        bakery = Bakery(folder, store, cloud, env=WITHOUT_BOOT)
        try:
            yield bakery
        finally:
            bakery.end()
            local_cloud.stop(store, terminate=terminate_everything)
            shutil.rmtree(store.disks, ignore_errors=True)


def until(found: Callable[[], Any], what: str, *, seconds: float = 900) -> Any:
    """The first thing that is not None."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = found()
        if value is not None:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL of the process alone, whatever it started."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def _data(path: Path, *, overlap: int) -> Iterator[bytes]:
    """Yield the data of a sparse file, without its holes, in blocks that overlap."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        at = 0
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            while at < hole:
                yield os.pread(file.fileno(), min(4 << 20, hole - at) + overlap, at)
                at = min(at + (4 << 20), hole)


def _ids(rows: list[Mapping[str, Any]], key: str) -> list[str]:
    return sorted(str(row[key]) for row in rows)


def _address(ec2: Any, instance: str, *, state: str = "running") -> str | None:
    row = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return str(row.get("PrivateIpAddress") or "gone") if row["State"]["Name"] == state else None


def _connected(endpoint: Endpoint) -> Connection | None:
    try:
        return connect(endpoint)
    except NotConnected:
        return None


def _host_pair() -> tuple[str, str]:
    """The public host key, and the user data that gives it to the machine."""
    from tests.machine.guests import KeyPair

    pair = KeyPair()
    return " ".join(pair.public_line.split()[:2]), host_key_user_data(pair)
