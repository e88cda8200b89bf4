"""The local cloud of a user who is not root: QEMU machines in user namespaces. Each boot takes one to two minutes in
software emulation, so few are made, and each is looked at thoroughly.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagepipe.communicator.ssh import NotConnected, connect
from imagepipe.local.client import connect as client
from imagepipe.local.daemon import rendezvous
from imagepipe.local.host.namespace_group import NamespaceGroup
from imagepipe.local.host.processes import start_time
from imagepipe.local.store import Store
from imagepipe.values import Endpoint
from tests.machine.bakery import Bakery, Booted, until
from tests.machine.guests import leftovers
from tests.machine.test_loopback import service
from tests.plain_user import PlainUser, plain_user

pytestmark = pytest.mark.machine

IMAGEPIPE = (sys.executable, "-m", "imagepipe.cli.main")
BOOT_SECONDS = 400.0
BUILD_SECONDS = 1800.0  # the base image, two boots and two scans; measured 400 s with a busy neighbour
SPEC = """\
imagepipe: 1
name: plain
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin, timeout: 15m}}
provision:
  - shell: {inline: ["echo baked | sudo tee /etc/baked"]}
test:
  - shell: {inline: ["grep -q baked /etc/baked"]}
output: {name: "plain-{{ build.id }}"}
publish: {regions: [us-west-2]}
"""


@pytest.fixture(scope="module")
def user() -> Iterator[PlainUser]:
    with plain_user() as user:
        (user.home / "spec.yaml").write_text(SPEC)
        yield user
        for each in user.processes():  # of a failed test
            os.kill(int(each.split()[0]), signal.SIGKILL)


def store_of(user: PlainUser) -> Store:
    return Store(root=user.home / "store", base_cache=user.home / "store/base")


def environment(user: PlainUser) -> dict[str, str]:
    return {"IMAGEPIPE_LOCAL_STORE": str(store_of(user).root), "IMAGEPIPE_DEBUG": "1"}


def run(user: PlainUser, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return user.run(*IMAGEPIPE, *words, env=environment(user), timeout=timeout)


def is_clean(user: PlainUser) -> bool:
    """Tell if no process of the user is left, and nothing in the folder is in use or mounted."""
    return not user.processes() and not leftovers(user.files)


def until_clean(user: PlainUser) -> None:
    end = time.monotonic() + 60
    while not is_clean(user):
        assert time.monotonic() < end, user.processes() + leftovers(user.files)
        time.sleep(0.2)


@pytest.mark.emulated
def test_a_plain_user_bakes_and_tests_an_image_from_an_empty_store(user: PlainUser) -> None:
    doctor = run(user, "local", "doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "driver: qemu, for every machine; container and sshd need root" in doctor.stdout
    assert not list((user.home / "store/base").glob("*.raw"))

    baked = run(user, "build", "spec.yaml", "--local", "--format", "json", timeout=BUILD_SECONDS)
    assert baked.returncode == 0, baked.stderr
    assert len(json.loads(baked.stdout)["images"]) == 2
    assert "host key verified" in baked.stderr
    assert "scanned the running machine before it stopped" in baked.stderr
    images = run(user, "local", "images").stdout
    assert images.count("plain-") == 2

    owners = {path.lstat().st_uid for path in user.home.rglob("*")}
    assert owners <= {user.id, 0}  # root wrote the spec
    assert run(user, "local", "stop", "--force").returncode == 0
    until_clean(user)


def test_a_driver_that_needs_root_is_refused_before_the_launch_with_the_alternative(user: PlainUser) -> None:
    environ = {**environment(user), "IMAGEPIPE_LOCAL_DRIVER": "container"}
    refused = user.run(*IMAGEPIPE, "build", "spec.yaml", "--local", env=environ)
    assert refused.returncode == 9
    assert "the driver container needs root; as a plain user, use QEMU" in refused.stderr
    until_clean(user)


@contextmanager
def serving(user: PlainUser, folder: Path) -> Iterator[tuple[Bakery, int]]:
    """Run the user's cloud in the foreground; yield a client and the process id. The cloud is killed at the end."""
    store = store_of(user)
    with user.popen(*IMAGEPIPE, "local", "serve", env=environment(user)) as process:
        try:
            # Only then: its locks must be files of the user's.
            until(lambda: store.serving.exists() or None, "the cloud is announced", seconds=BUILD_SECONDS)
            cloud = until(lambda: client.running(store), "the cloud serves")
            folder.mkdir(exist_ok=True)
            yield Bakery(folder, store, cloud), process.pid
        finally:
            process.kill()


def state_of(ec2: Any, instance: str) -> str:
    return str(ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["State"]["Name"])


def refuses(address: str, port: int) -> bool:
    try:
        connect(Endpoint(address, port, "admin", "ssh-ed25519 AAAA", "/none")).close()
    except NotConnected as error:
        return error.why == "refused"
    return False


def check_confinement(user: PlainUser, instance: str) -> None:
    """Check that QEMU runs as the user, without capabilities, in namespaces of its own."""
    [pid] = [
        pid for pid in NamespaceGroup(instance).processes() if "qemu-system" in Path(f"/proc/{pid}/comm").read_text()
    ]
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {str(user.id)}
    assert {status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {"0000000000000000"}
    assert status["NoNewPrivs"].strip() == "1"
    for kind in ("user", "net", "pid", "mnt"):
        assert Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink(), kind


def check_network(bakery: Bakery, booted: Booted) -> None:
    """Check that the instance reaches only the endpoint on our loopback, and that its low ports are at an offset."""
    url = bakery.cloud.instance_endpoint_url
    assert booted.sh(f"curl -s -o /dev/null -w '%{{http_code}}' -m 20 {url}/nothing") in ("400", "403", "404")
    with service() as other:
        for address in ("10.0.2.2", "10.0.3.2", "169.254.169.254"):
            assert booted.sh(f"curl -s -m 5 http://{address}:{other}/ || echo no") == "no", address
    booted.sh("for port in 80 8080; do sudo systemd-run -q --working-directory=/etc python3 -m http.server $port; done")
    for port in (20080, 8080):
        page = ["curl", "-s", "-m", "10", "--retry", "8", "--retry-all-errors"]
        done = subprocess.run([*page, f"http://{booted.address}:{port}/debian_version"], capture_output=True, text=True)
        assert done.stdout.startswith("12."), port
    assert refuses(booted.address, 22)


def check_elastic_address(bakery: Bakery, booted: Booted) -> None:
    ec2 = bakery.client()
    allocated = ec2.allocate_address(Domain="vpc")
    ec2.associate_address(AllocationId=allocated["AllocationId"], InstanceId=booted.id)
    command = ["curl", "-s", "-m", "10", "--retry", "8", "--retry-all-errors"]
    url = f"http://{allocated['PublicIp']}:20080/debian_version"
    assert subprocess.run([*command, url], capture_output=True, text=True, check=False).stdout.startswith("12.")
    address = ec2.describe_addresses(AllocationIds=[allocated["AllocationId"]])["Addresses"][0]
    ec2.disassociate_address(AssociationId=address["AssociationId"])
    ec2.release_address(AllocationId=allocated["AllocationId"])


def check_volumes(bakery: Bakery, booted: Booted) -> None:
    """Attach a volume to the running instance, use it, enlarge it and detach it."""
    ec2 = bakery.client()
    zone = ec2.describe_instances(InstanceIds=[booted.id])["Reservations"][0]["Instances"][0]["Placement"]
    volume = ec2.create_volume(Size=1, AvailabilityZone=zone["AvailabilityZone"])["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume])
    ec2.attach_volume(VolumeId=volume, InstanceId=booted.id, Device="/dev/sdf")
    ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume])
    booted.sh("for n in $(seq 100); do test -e /dev/sdf && break; sleep 0.2; done")
    booted.sh("sudo mkfs.ext4 -q /dev/sdf && sudo mount /dev/sdf /mnt && echo data | sudo tee /mnt/data >/dev/null")
    ec2.modify_volume(VolumeId=volume, Size=2)
    size = "for n in $(seq 100); do blockdev --getsize64 $(readlink -f /dev/sdf) | grep -q {} && break; sleep 0.2; done"
    booted.sh(f"sudo sh -c '{size.format(2 << 30)}'; test $(lsblk -bndo SIZE $(readlink -f /dev/sdf)) = {2 << 30}")
    booted.sh("sudo umount /mnt")
    ec2.detach_volume(VolumeId=volume)
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume])
    file = bakery.store.disks / "volumes" / f"{volume}.raw"
    read = subprocess.run(["debugfs", "-R", "cat /data", str(file)], capture_output=True, check=True)
    assert read.stdout == b"data\n"
    ec2.delete_volume(VolumeId=volume)


RESET = """
import sys
from imagepipe.local.host.tcp_faults import reset_connections
print(reset_connections(*sys.argv[1:]))
"""


def check_faults(user: PlainUser, booted: Booted) -> None:
    """Check that the user can reset the instance's connections, as the fault drop-ssh does, and connect again."""
    assert int(user.python(RESET, booted.id, booted.address)) >= 1
    until(lambda: True if not booted.connection.is_alive() else None, "the connection ends")
    booted.connection = connect(booted.connection.endpoint)


@pytest.mark.emulated
def test_an_instance_has_what_roots_has_and_outlives_its_cloud_but_not_its_supervisor(
    user: PlainUser, tmp_path: Path
) -> None:
    with ExitStack() as clouds:
        bakery, cloud_pid = clouds.enter_context(serving(user, tmp_path / "client"))
        image = bakery.client().describe_images(
            Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}]
        )["Images"][0]["ImageId"]
        with bakery.instance(image, "us-east-1", ports=(80, 8080), seconds=BOOT_SECONDS) as booted:
            assert booted.sh("cloud-init status --wait").endswith("status: done")
            check_confinement(user, booted.id)
            check_network(bakery, booted)
            check_elastic_address(bakery, booted)
            check_volumes(bakery, booted)
            check_faults(user, booted)

            os.kill(cloud_pid, signal.SIGKILL)
            assert booted.sh("id -un") == "admin"
            members = list(NamespaceGroup(booted.id).processes())
            assert len(members) >= 3  # the supervisor, QEMU and slirp4netns
            second, _ = clouds.enter_context(serving(user, tmp_path / "client"))
            ec2 = second.client()
            assert second.cloud.endpoint_url == bakery.cloud.endpoint_url
            assert state_of(ec2, booted.id) == "running"
            assert booted.sh("id -un") == "admin"

            leader = NamespaceGroup(booted.id).leader()
            assert leader is not None
            os.kill(leader, signal.SIGKILL)
            until(lambda: state_of(ec2, booted.id) in ("stopped", "terminated") or None, "the cloud sees the end")
            assert [start_time(each) for each in members] == [""] * len(members)
            assert [each for each in leftovers(user.files) if "qemu" in each] == []
        assert run(user, "local", "stop", "--force").returncode == 0
    until_clean(user)


def qemu_runs(user: PlainUser) -> bool | None:
    return any(" qemu-system" in each for each in user.processes()) or None


@pytest.mark.emulated
def test_ctrl_c_of_a_build_leaves_no_process(user: PlainUser) -> None:
    with user.popen(*IMAGEPIPE, "build", "spec.yaml", "--local", env=environment(user)) as build:
        until(lambda: qemu_runs(user), "the machine boots", seconds=BUILD_SECONDS)
        build.send_signal(signal.SIGINT)
        _, said = build.communicate(timeout=900)
        assert build.returncode == 130, said
    assert not qemu_runs(user)
    until_clean(user)  # the cloud ends by itself


@pytest.mark.emulated
def test_after_a_kill_of_build_and_cloud_the_next_cloud_ends_the_machine(user: PlainUser) -> None:
    with user.popen(*IMAGEPIPE, "build", "spec.yaml", "--local", env=environment(user)) as build:
        until(lambda: qemu_runs(user), "the machine boots", seconds=BUILD_SECONDS)
        found = rendezvous.current(store_of(user))
        assert found is not None
        build.kill()
        os.kill(found.pid, signal.SIGKILL)
    assert qemu_runs(user)
    assert any("qemu-system" in each for each in leftovers(user.files))
    cleaned = run(user, "clean", "--all", timeout=900)
    assert cleaned.returncode == 0, cleaned.stderr
    assert not qemu_runs(user)
    until_clean(user)
