"""A gateway behind a real HTTP server, with machines that do not boot, and boto3 clients for it."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from imagepipe.clock import SystemClock
from imagepipe.local.aws.app import Gateway
from imagepipe.local.aws.authentication.signature import Secret
from imagepipe.local.aws.http_server import make_server
from imagepipe.local.aws.moto.bundles import certificate_of
from imagepipe.local.disks.base_image import BaseImage
from imagepipe.local.disks.files import Disks
from imagepipe.local.host.errors import DiskBusy, MachineError
from imagepipe.local.machines.driver import Disk, Ingress, Machine, Metadata

ACCOUNT = "000000000000"
KEY_ID = "AKIATESTTESTTESTTEST"
SECRET = "secret/with+signs"
OTHER_ACCOUNT = "111122223333"
OTHER_KEY_ID = "AKIAOTHEROTHEROTHERO"
OTHER_SECRET = "another"
SESSION = boto3.Session()  # one, as it loads the service models: a client of a new session takes 40 ms more
_PORTS: list[int] = []
"""The port of this process's clouds: they have the same one after each other, so that clients can be reused."""
_CLIENTS: dict[tuple[object, ...], Any] = {}
"""Clients by their parameters: making one takes 10 ms, as botocore builds a class of 800 methods for it."""
_IDLE: dict[tuple[object, ...], list[KeyedClient]] = {}
"""Clients for the keys of one cloud alone, whose cloud is gone; by all their other parameters."""
BASE_BYTES = b"a disk with an operating system" * 64


@dataclass(frozen=True, slots=True)
class KeyedClient:
    """A client whose keys can be changed."""

    client: Any
    credentials: Credentials

    @classmethod
    def new(cls, service: str, region: str, endpoint: str, config: Config) -> KeyedClient:
        """Make a client in a session of its own, whose credentials no other client shares."""
        session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x", botocore_session=_core())
        made = session.client(service, region_name=region, endpoint_url=endpoint, config=config)
        return cls(made, session.get_credentials())

    def use(self, keys: Mapping[str, str]) -> Any:
        """Change the keys, and return the client."""
        self.credentials.access_key = keys["AccessKeyId"]
        self.credentials.secret_key = keys["SecretAccessKey"]
        self.credentials.token = keys.get("SessionToken")
        return self.client


def _core() -> botocore.session.Session:
    """Make a session that has loaded the service models already."""
    core = botocore.session.Session()
    core.register_component("data_loader", SESSION._session.get_component("data_loader"))
    return core


def _give_back(taken: Sequence[tuple[tuple[object, ...], KeyedClient]]) -> None:
    """Keep the clients of a cloud that is gone for the next one on its port."""
    for kind, each in taken:
        _IDLE.setdefault(kind, []).append(each)


class FakeDriver:
    """Machines that only say that they run; what they would do is done by tests through these methods."""

    name = "fake"

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.ingress: dict[str, Sequence[Ingress]] = {}
        self.calls: list[tuple[str, str]] = []
        self.fails: set[str] = set()
        """Methods that raise."""
        self.gate: threading.Event | None = None
        """A start waits for it."""
        self.console_end = ""
        self.sizes: dict[str, int] = {}
        """Sizes of disks that machines were shown."""
        self.mounted: set[str] = set()
        """Devices that machines use, so that they cannot be detached."""
        self._on_exit: Callable[[str], None] = lambda machine_id: None

    def _called(self, name: str, machine_id: str) -> None:
        self.calls.append((name, machine_id))
        if name in self.fails:
            raise MachineError(f"{name} {machine_id}: told to fail")

    def start(self, machine: Machine, ingress: Sequence[Ingress]) -> None:
        if self.gate is not None:
            self.gate.wait(10)
        self._called("start", machine.id)
        assert machine.id not in self.machines
        assert all(disk.path.exists() for disk in machine.disks)
        self.machines[machine.id] = machine
        self.ingress[machine.id] = tuple(ingress)

    def stop(self, machine_id: str, *, force: bool = False) -> None:
        self._called("stop", machine_id)
        self.machines.pop(machine_id, None)

    def reboot(self, machine_id: str) -> None:
        self._called("reboot", machine_id)

    def close(self) -> None:
        self.calls.append(("close", ""))

    def set_ingress(self, machine_id: str, ingress: Sequence[Ingress]) -> None:
        self._called("set_ingress", machine_id)
        self.ingress[machine_id] = tuple(ingress)

    def set_addresses(self, machine_id: str, further: Sequence[str]) -> None:
        self._called("set_addresses", machine_id)
        self.machines[machine_id] = replace(self.machines[machine_id], further_addresses=tuple(further))

    def attach(self, machine_id: str, disk: Disk) -> None:
        self._called("attach", machine_id)
        machine = self.machines[machine_id]
        assert disk.path.exists()
        if disk not in machine.disks:
            self.machines[machine_id] = replace(machine, disks=(*machine.disks, disk))

    def detach(self, machine_id: str, device: str) -> None:
        self._called("detach", machine_id)
        if device in self.mounted:
            raise DiskBusy(f"{device} is mounted")
        machine = self.machines[machine_id]
        rest = tuple(disk for disk in machine.disks if disk.device != device)
        self.machines[machine_id] = replace(machine, disks=rest)

    def resize(self, machine_id: str, device: str) -> None:
        self._called("resize", machine_id)
        [disk] = [disk for disk in self.machines[machine_id].disks if disk.device == device]
        self.sizes[device] = disk.path.stat().st_size

    def set_metadata(self, machine_id: str, metadata: Metadata) -> None:
        self._called("set_metadata", machine_id)
        self.machines[machine_id] = replace(self.machines[machine_id], metadata=metadata)

    @contextmanager
    def quiesced(self, machine_id: str) -> Iterator[None]:
        self._called("quiesced", machine_id)
        yield

    def console(self, machine_id: str) -> bytes:
        return f"Linux on {machine_id}\n{self.console_end}".encode()

    def running(self) -> frozenset[str]:
        return frozenset(self.machines)

    def on_exit(self, callback: Callable[[str], None]) -> None:
        self._on_exit = callback

    def forget(self, machine_id: str) -> None:
        self._called("forget", machine_id)

    def power_off_from_inside(self, machine_id: str) -> None:
        del self.machines[machine_id]
        self._on_exit(machine_id)


@cache
def _key_of_clouds() -> tuple[tuple[str, bytes], ...]:
    """EC2's certificate and key, the same for every cloud of a run: to make them takes longer than most tests."""
    with TemporaryDirectory() as folder:
        certificate_of(Path(folder))
        return tuple((path.name, path.read_bytes()) for path in Path(folder).iterdir())


def _give_key(state: Path) -> None:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in _key_of_clouds():
        if not (state / name).exists():
            (state / name).write_bytes(content)


def _port() -> int:
    """Return the port of this process's clouds; 0, for any, while another cloud has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as cheroot does for a port that is named
        try:
            probe.bind(("127.0.0.1", _PORTS[0] if _PORTS else 0))
        except OSError:
            return 0
        port = int(probe.getsockname()[1])
    if not _PORTS:
        _PORTS.append(port)
    return port


THREADS = 16  # a test makes a dozen calls at once at most, and starting 48 threads takes longer than many a test


@dataclass
class Cloud:
    """A local cloud in this process, that can be killed and started again over the same store."""

    root: Path
    driver: FakeDriver = field(default_factory=FakeDriver)
    port: int = 0
    delays: Mapping[str, float] = field(default_factory=dict)
    gateway: Gateway = field(init=False)
    _keyed: list[tuple[tuple[object, ...], KeyedClient]] = field(default_factory=list, init=False)
    """Clients that go to the next cloud on this port, once this one is gone."""
    _own: dict[tuple[object, ...], Any] = field(default_factory=dict, init=False)
    """Clients for this cloud's keys, by their parameters."""
    _server: Any = field(init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, _give_back, self._keyed)

    def start(self) -> None:
        base = self.root / "base.raw"
        if not base.exists():
            base.write_bytes(BASE_BYTES)
        _give_key(self.root / "state")
        self.gateway = Gateway(
            state=self.root / "state",
            disks=Disks(self.root / "disks", reserve_bytes=0),
            driver=self.driver,
            base=BaseImage(
                path=base,
                name="debian-12-amd64-20261123-local",
                description="Debian 12",
                architecture="x86_64",
                size_gib=1,
                created=datetime(2026, 11, 1, tzinfo=UTC),
            ),
            clock=SystemClock(),
            credentials={KEY_ID: Secret(SECRET, ACCOUNT), OTHER_KEY_ID: Secret(OTHER_SECRET, OTHER_ACCOUNT)},
        )
        for kind, seconds in self.delays.items():
            self.gateway.backend.job_queues.set_delay(kind, seconds)
        self.gateway.recover()
        self._server = make_server(self.gateway, port=_port())
        self._server.expiration_interval = 0.02  # how long it takes to see that it is to stop
        self._server.requests.min = THREADS
        self._server.prepare()
        self.port = self._server.bind_addr[1]
        self._thread = threading.Thread(target=self._server.serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(10)
        self.gateway.close()

    def restart(self) -> None:
        """Another process over the same store: nothing in memory is carried over but the machines themselves."""
        self.stop()
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(
        self,
        service: str = "ec2",
        region: str = "us-east-1",
        *,
        other: bool = False,
        keys: Mapping[str, str] | None = None,
        retries: int = 0,
        **config: Any,
    ) -> Any:
        """A boto3 client that does not retry unless told to; `keys` are an added account's, or AssumeRole's.

        Later tests use it too: remove the event handlers that a test adds.
        """
        given = keys or {}
        known = (service, region, other, tuple(sorted(given.items())), retries, repr(sorted(config.items())), self.port)
        if known in self._own:
            return self._own[known]
        if known in _CLIENTS:
            return _CLIENTS[known]
        configured = Config(retries={"total_max_attempts": retries + 1, "mode": "standard"}, **config)
        if keys:
            self._own[known] = self._keyed_client(service, region, configured, known).use(keys)
            return self._own[known]
        made = SESSION.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id=OTHER_KEY_ID if other else KEY_ID,
            aws_secret_access_key=OTHER_SECRET if other else SECRET,
            config=configured,
        )
        if self.port in _PORTS:  # any other port is not used again
            _CLIENTS[known] = made
        return made

    def _keyed_client(self, service: str, region: str, config: Config, known: tuple[object, ...]) -> KeyedClient:
        """Take a client that no cloud uses, or make one."""
        kind = (service, region, *known[4:])
        idle = _IDLE.get(kind)
        taken = idle.pop() if idle else KeyedClient.new(service, region, self.endpoint, config)
        if self.port in _PORTS:
            self._keyed.append((kind, taken))
        return taken

    def admin(self, method: str, name: str, body: object = None, *, other: bool = False) -> Any:
        """The cloud's own interface, signed by boto3's own signer. Raises HTTPError."""
        data = b"" if body is None else json.dumps(body).encode()
        request = AWSRequest(method=method, url=f"{self.endpoint}/_imagepipe/{name}", data=data)
        keys = Credentials(OTHER_KEY_ID, OTHER_SECRET) if other else Credentials(KEY_ID, SECRET)
        SigV4Auth(keys, "ec2", "us-east-1").add_auth(request)
        prepared = urllib.request.Request(request.url, data=data, headers=dict(request.headers), method=method)
        with urllib.request.urlopen(prepared, timeout=60) as answer:  # on a busy machine
            return json.loads(answer.read())

    def added_account(self, *memberships: str) -> dict[str, str]:
        """Another account, as `client(keys=…)` takes it, with its id."""
        made = self.admin("POST", "accounts", {"memberships": list(memberships)})
        return {
            "Account": made["account"],
            "AccessKeyId": made["access_key_id"],
            "SecretAccessKey": made["secret_access_key"],
        }

    @property
    def disks(self) -> Path:
        return self.root / "disks"


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until it holds; a test that waits in vain says for what.

    The pauses grow, because on a busy computer the calls would keep the cloud from the work that they wait for.
    """
    end, pause = time.monotonic() + seconds, 0.005
    while not condition():
        assert time.monotonic() < end, f"never became true: {condition}"
        time.sleep(pause)
        pause = min(pause * 1.3, 0.1)


@contextmanager
def refused(code: str, *, match: str = "") -> Iterator[None]:
    """Assert that the block is refused with this code, and a message that the pattern finds."""
    caught: ClientError | None = None
    try:
        yield
    except ClientError as error:
        caught = error
    assert caught is not None, f"was not refused; {code} was expected"
    assert caught.response["Error"]["Code"] == code, caught
    assert re.search(match, caught.response["Error"]["Message"]), caught


def base_image(ec2: Any) -> str:
    [image] = ec2.describe_images(Owners=["136693071363"])["Images"]
    return str(image["ImageId"])


def launch(ec2: Any, **params: Any) -> str:
    """One instance of the base image."""
    request = {"ImageId": params.pop("ImageId", None) or base_image(ec2), "MinCount": 1, "MaxCount": 1}
    answer = ec2.run_instances(**{**request, "InstanceType": "t3.small", **params})
    return str(answer["Instances"][0]["InstanceId"])


def instance(ec2: Any, instance_id: str) -> Any:
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def state(ec2: Any, instance_id: str) -> str:
    return str(instance(ec2, instance_id)["State"]["Name"])


def running(ec2: Any, **params: Any) -> str:
    """One instance of the base image, once it runs."""
    instance_id = launch(ec2, **params)
    until(lambda: state(ec2, instance_id) == "running")
    return instance_id


def stopped(ec2: Any, **params: Any) -> str:
    """One instance of the base image, once it was started and stopped."""
    instance_id = running(ec2, **params)
    ec2.stop_instances(InstanceIds=[instance_id])
    until(lambda: state(ec2, instance_id) == "stopped")
    return instance_id


def root_volume(ec2: Any, instance_id: str) -> str:
    return str(instance(ec2, instance_id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"])


def snapshot_of(ec2: Any, instance_id: str) -> str:
    """A completed snapshot of the root volume."""
    snapshot_id = str(ec2.create_snapshot(VolumeId=root_volume(ec2, instance_id))["SnapshotId"])
    until(lambda: ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["State"] == "completed")
    return snapshot_id


def register(ec2: Any, snapshot_id: str, name: str, **params: Any) -> str:
    """An image of the snapshot, as soon as it is asked for."""
    answer = ec2.register_image(
        **{
            "Name": name,
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
            "EnaSupport": True,
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id}}],
            **params,
        }
    )
    return str(answer["ImageId"])


def image(ec2: Any, image_id: str) -> Any:
    return ec2.describe_images(ImageIds=[image_id])["Images"][0]


def available(ec2: Any, image_id: str) -> str:
    until(lambda: image(ec2, image_id)["State"] == "available")
    return image_id


def bake(ec2: Any, name: str, **params: Any) -> str:
    """An available image of one's own, of a new snapshot."""
    return available(ec2, register(ec2, snapshot_of(ec2, stopped(ec2)), name, **params))


def only_snapshot(ec2: Any, image_id: str) -> str:
    """The snapshot of an image that has one."""
    [mapping] = image(ec2, image_id)["BlockDeviceMappings"]
    return str(mapping["Ebs"]["SnapshotId"])


def share(ec2: Any, image_id: str, account: str = OTHER_ACCOUNT) -> str:
    """Let an account launch the image."""
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [{"UserId": account}]})
    return image_id


def caller(cloud: Cloud, *statements: Mapping[str, Any], service: str = "ec2") -> Any:
    """A client under a policy of these statements."""
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    made = cloud.admin("POST", "keys", {"account": ACCOUNT, "policy": policy})
    keys = {"AccessKeyId": made["access_key_id"], "SecretAccessKey": made["secret_access_key"]}
    return cloud.client(service, keys=keys)


def may(action: str, resource: str | list[str] = "*", **condition: Any) -> dict[str, Any]:
    """The statement that allows an action."""
    more = {"Condition": condition} if condition else {}
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def retain(cloud: Cloud, kind: str, days: int = 7, *, other: bool = False, **more: Any) -> str:
    """A retention rule of Recycle Bin; its id."""
    period = {"RetentionPeriodValue": days, "RetentionPeriodUnit": "DAYS"}
    made = cloud.client("rbin", other=other).create_rule(ResourceType=kind, RetentionPeriod=period, **more)
    return str(made["Identifier"])
