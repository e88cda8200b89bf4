"""Instance-store images from spec to a machine that boots from its bundle; and what goes wrong on the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from imagepipe.local.host.cgroup import MachineGroup
from tests.machine.bakery import Baked, Bakery, until

pytestmark = pytest.mark.machine

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "specs/web-server-instance-store.yaml"
QEMU_SECONDS = 900.0  # measured 205 s with other work beside it
SMALL = "  exclude: [/usr/share, /usr/lib/modules, /usr/lib/firmware, /var/lib/apt, /var/cache]\n"
"""For an image that nobody boots: a third of the bytes, in some ten parts."""
SPEC = """\
imagepipe: 1
name: {name}
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch: {{region: us-east-1, instance_types: [m3.medium]}}
provision:
{steps}
output:
  type: instance-store
  name: "{name}-{{{{ build.id }}}}"
  bucket: bundles-of-tests
  prefix: "{name}"
  account: "000000000000"
{more}
"""
# Hard links, a sparse file, an ACL (user 1 may read), an attribute of a user's, a capability, odd names, and a fifo.
FIDELITY = r"""
import os, struct
os.makedirs("/srv/odd/sub dir", mode=0o2750)
os.chmod("/srv/odd/sub dir", 0o2750)
os.chown("/srv/odd/sub dir", 1, 2)
open("/srv/odd/a", "wb").write(b"a" * 5000)
os.link("/srv/odd/a", "/srv/odd/sub dir/a again")
os.symlink("a", "/srv/odd/.to a")
with open("/srv/odd/sparse", "wb") as file:
    file.seek(300 << 20); file.write(b"end")
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in
    ((1, 6, 0xFFFFFFFF), (2, 4, 1), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)))
os.setxattr("/srv/odd/a", "system.posix_acl_access", acl)
os.setxattr("/srv/odd/a", "user.note", b"kept")
os.setxattr("/srv/odd/sparse", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
os.mkfifo("/srv/odd/fifo")
os.utime("/srv/odd/sub dir", (1e9, 1e9))
"""
LISTING = r"""
import hashlib, os, stat
for folder, names, files in os.walk("/srv/odd"):
    names.sort()
    for name in sorted([".", *files]):
        path = os.path.normpath(os.path.join(folder, name))
        seen = os.lstat(path)
        content = hashlib.sha1(open(path, "rb").read()).hexdigest() if stat.S_ISREG(seen.st_mode) else ""
        attributes = [] if stat.S_ISLNK(seen.st_mode) else \
            [(each, os.getxattr(path, each).hex()) for each in sorted(os.listxattr(path))]
        links = seen.st_nlink if stat.S_ISREG(seen.st_mode) else 0
        size = seen.st_size if not stat.S_ISDIR(seen.st_mode) else 0
        print(path, oct(seen.st_mode), seen.st_uid, seen.st_gid, links, size, seen.st_blocks < 1000, int(seen.st_mtime),
            content, attributes)
"""


@pytest.fixture
def bundles(bakery: Bakery) -> Iterator[Bakery]:
    yield from _left_empty(bakery)


@pytest.fixture
def quick_bundles(quick: Bakery) -> Iterator[Bakery]:
    yield from _left_empty(quick)


def _left_empty(bakery: Bakery) -> Iterator[Bakery]:
    """Nothing may be left in any bucket of the test's that the test has not deleted itself."""
    yield bakery
    left = kept(bakery)
    for each in left:  # the next test is not to suffer for it
        bucket, _, key = each.partition("/")
        bakery.client("s3", _region(bakery.client("s3"), bucket)).delete_object(Bucket=bucket, Key=key)
    assert left == []


def kept(bakery: Bakery) -> list[str]:
    s3 = bakery.client("s3")
    names = [each["Name"] for each in s3.list_buckets()["Buckets"]]
    return [
        f"{name}/{row['Key']}"
        for name in names
        if name.startswith(("bundles-of-tests", "my-images"))
        for row in bakery.client("s3", _region(s3, name)).list_objects_v2(Bucket=name).get("Contents", [])
    ]


def _region(s3: object, bucket: str) -> str:
    return str(s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1")  # type: ignore[attr-defined]


def spec(bakery: Bakery, name: str, steps: str, more: str = "", **files: str) -> Path:
    indented = "".join(f"  {line}\n" for line in steps.strip("\n").splitlines()).rstrip("\n")
    return bakery.write(f"{name}.yaml", SPEC.format(name=name, steps=indented, more=more), **files)


def deregister(bakery: Bakery, image: str, region: str = "us-east-1", *more: str) -> Baked:
    done = bakery("images", "deregister", image, "--local", "--region", region, "--delete-data", *more)
    assert done.code == 0, done.err
    return done


def page(address: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def test_the_sample_ends_in_an_image_whose_instances_serve_the_page_and_goes_with_its_bundle(bundles: Bakery) -> None:
    before = bundles.inventory()
    baked = bundles.build(SAMPLE, "--var", "greeting=from a bundle")
    [image] = baked.images.values()
    described = bundles.client().describe_images(ImageIds=[image])["Images"][0]
    assert described["RootDeviceType"] == "instance-store"
    assert described["BlockDeviceMappings"] == []
    assert described["ImageLocation"].startswith("my-images/web-server/")
    with bundles.instance(image, "us-east-1", ports=(80,), kind="m3.medium") as booted:
        assert "<h1>from a bundle</h1>" in until(lambda: page(booted.address), "the page is served")
        assert booted.sh("ls -A / | grep imagepipe; ls /run/imagepipe-bundle 2>/dev/null; true") == ""
    assert len(kept(bundles)) > 10
    said = deregister(bundles, image).out
    assert re.search(r"deleted my-images/web-server/\S+: \d+ objects, \d+\.\d MiB", said)
    assert kept(bundles) == []
    assert bundles.inventory() == before


def test_a_tree_keeps_what_files_have_leaves_out_what_it_is_told_and_boots_in_another_region(bundles: Bakery) -> None:
    steps = """
- {file: {src: make.py, dest: /root/make.py}, sudo: true}
- {file: {src: list.py, dest: /root/list.py}, sudo: true}
- shell: |
    python3 /root/make.py
    python3 /root/list.py >/root/before
    mkdir -p /var/left-out/sub && echo x >/var/left-out/sub/file && echo y >/mnt/never
    head -c 100M /dev/urandom >/var/left-out/large
  sudo: true
"""
    more = """\
  exclude: [/var/left-out]
  size_gib: 4
  bundle_on: controller
  per_region: {us-west-2: {bucket: bundles-of-tests-west}}
test:
  - {shell: python3 /root/list.py | diff /root/before -, sudo: true}
  - shell: test "$(df --output=size -BM / | tail -1 | tr -dc 0-9)" -lt 4000
publish: {regions: [us-west-2], share: {accounts: ["111122223333"]}}
"""
    files = {"make.py": FIDELITY, "list.py": LISTING}
    baked = bundles.build(spec(bundles, "tree", steps, more, **files))
    for region, image in baked.images.items():
        attribute = bundles.client(region=region).describe_image_attribute(ImageId=image, Attribute="launchPermission")
        assert attribute["LaunchPermissions"] == [{"UserId": "111122223333"}]
    west = baked.images["us-west-2"]
    with bundles.instance(west, "us-west-2", kind="m3.medium") as booted:
        assert booted.sh(
            "sudo python3 /root/list.py | sudo diff /root/before - && ls -A /mnt /var/left-out 2>&1; true"
        ) == ("ls: cannot access '/var/left-out': No such file or directory\n/mnt:")
        assert "e2fsck" not in booted.sh("sudo dmesg 2>/dev/null | grep -i ext4-fs.*error; true")
    said = deregister(bundles, f"tree-{baked.run}", "us-east-1", "--every-region").out
    assert said.count("deregistered") == 2


def _processes(machine: str) -> list[tuple[int, bytes]]:
    """Process ids and command lines of an instance's processes, as this computer sees them."""
    found = []
    for procs in MachineGroup(machine).procs_files()[0].parent.rglob("cgroup.procs"):
        for pid in procs.read_text().split():
            with suppress(OSError):
                found.append((int(pid), Path(f"/proc/{pid}/cmdline").read_bytes()))
    return found


def _agent(bakery: Bakery, process: subprocess.Popen[str]) -> int:
    """The agent's process, once it has sent a part."""

    def sending() -> int | None:
        assert process.poll() is None, process.communicate()
        if not any("part.0" in key for key in kept(bakery)):
            return None
        ids = [
            each["InstanceId"] for r in bakery.client().describe_instances()["Reservations"] for each in r["Instances"]
        ]
        for id in ids:
            for pid, words in _processes(id):
                if words.startswith(b"python3\0-I\0-c\0"):
                    return pid
        return None

    return int(until(sending, "the agent sends parts"))


@pytest.mark.parametrize("victim", ["agent", "connection"])
def test_what_is_killed_midway_is_gone_on_with_and_nothing_is_sent_twice(bundles: Bakery, victim: str) -> None:
    bundles.admin("DELETE", "calls")
    path = spec(bundles, f"killed-{victim}", "- shell: 'true'")
    process = bundles.start("build", str(path), "--local", "--format", "json")
    pid = _agent(bundles, process)
    if victim == "connection":  # sshd's process of it: the agent's parent is sudo, whose parent it is
        pid = _parent(_parent(pid))
        assert b"sshd" in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert "continuing with another agent" in err
    [image] = Baked(0, out, err).images.values()
    parts = [key for key in kept(bundles) if ".part." in key]
    puts = bundles.admin("GET", "calls")["s3:PutObject"]
    # Beside the parts the manifest, the probe, and at most the four parts that were on their way.
    assert len(parts) + 2 <= puts <= len(parts) + 6
    with bundles.instance(image, "us-east-1", kind="m3.medium") as booted:
        assert booted.sh("id -un") == "admin"
    deregister(bundles, image)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_an_upload_that_is_cut_at_part_3_and_throttled_at_5_goes_on(bundles: Bakery) -> None:
    cut = {"effect": "cut-before", "action": "s3:PutObject", "where": {"Key": "*part.03"}, "times": 1}
    slow = {"effect": "refuse", "action": "s3:PutObject", "where": {"Key": "*part.05"}, "code": "SlowDown", "times": 2}
    bundles.admin("POST", "faults", slow)
    with bundles.fault(**cut):
        baked = bundles.build(spec(bundles, "cut", "- shell: 'true'", SMALL))
    assert "part 3: " in baked.err
    assert "part 5: 169.254.169.254 answered 503 SlowDown" in baked.err
    deregister(bundles, *baked.images.values())


@pytest.mark.parametrize(
    ("name", "steps", "more", "code", "words", "hint"),
    [
        (
            "no-python",
            "- {shell: rm /usr/bin/python3 /usr/bin/python3.11, sudo: true}",
            "",
            7,
            "the machine has no Python 3",
            "install python3 in a provisioning step",
        ),
        (
            "too-large",
            "- {shell: fallocate -l 800M /large, sudo: true}",
            "  size_gib: 1",
            8,
            "but size_gib leaves 1024 MiB",
            "raise output.size_gib",
        ),
        (
            "no-room",
            "- {shell: 'mount -o remount,size=8M /dev/shm && fallocate -l 6900M /large', sudo: true}",
            "  exclude: [/large]",
            8,
            "finding space for the image: it temporarily needs ",
            "use a larger root volume",
        ),
        (
            "no-device",
            "- shell: 'true'",
            "  method: block",
            8,
            "the machine is a container, which has no disk of its own",
            "use method: tree",
        ),
    ],
    ids=["no Python", "larger than size_gib", "no room for a tree", "block in a container"],
)
def test_what_cannot_be_done_is_said_and_nothing_is_left(
    quick_bundles: Bakery, name: str, steps: str, more: str, code: int, words: str, hint: str
) -> None:
    before = quick_bundles.inventory()
    failed = quick_bundles("build", str(spec(quick_bundles, name, steps, more)), "--local")
    assert failed.code == code, failed.out + failed.err
    assert words in failed.err
    assert f"  hint: {hint}" in failed.err.replace("\n  hint: the agent needs it: ", "\n  hint: ")
    assert "Traceback" not in failed.err
    assert kept(quick_bundles) == []
    assert quick_bundles.inventory() == before


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("region", "bucket bundles-of-tests-bad is in eu-west-1"),
        ("acl", "has ACLs disabled"),
        ("kms", "encrypts its objects with aws:kms"),
        ("denied", "s3:PutObject"),
    ],
)
def test_a_bucket_that_will_not_do_is_refused_before_anything_is_launched(
    quick_bundles: Bakery, setting: str, words: str
) -> None:
    bucket = "bundles-of-tests-bad"
    home = "eu-west-1" if setting == "region" else "us-east-1"
    s3 = quick_bundles.client("s3", home)
    where = {"CreateBucketConfiguration": {"LocationConstraint": home}} if home != "us-east-1" else {}
    ownership = "BucketOwnerEnforced" if setting == "acl" else "BucketOwnerPreferred"
    s3.create_bucket(Bucket=bucket, ObjectOwnership=ownership, **where)
    if setting == "kms":
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    if setting == "denied":
        quick_bundles.admin(
            "POST", "faults", {"effect": "refuse", "action": "s3:PutObject", "code": "AccessDenied", "status": 403}
        )
    try:
        path = spec(quick_bundles, "bad-bucket", "- shell: 'true'")
        path.write_text(path.read_text().replace("bucket: bundles-of-tests", f"bucket: {bucket}"))
        failed = quick_bundles("build", str(path), "--local")
        assert failed.code == 3, failed.out + failed.err
        assert words in failed.err, failed.err
        assert "hint:" in failed.err
        assert "launch  " not in failed.out
    finally:
        quick_bundles.admin("DELETE", "faults")
        s3.delete_bucket(Bucket=bucket)


@pytest.mark.emulated
def test_the_block_method_takes_a_disk_with_its_boot_loader_and_qemu_boots_it(bundles: Bakery) -> None:
    """Two guests under software emulation, the second from the bundle: by its own boot loader, with no trace of us."""
    steps = "- {shell: 'echo taken >/etc/taken; rm -f /root/secret; sync', sudo: true}"
    path = spec(bundles, "block", steps, "test:\n  - shell: grep taken /etc/taken && grep BOOT_IMAGE= /proc/cmdline")
    path.write_text(
        path.read_text().replace("debian-12-amd64", "debian-disk-12-amd64").replace("m3.medium", "m3.large")
    )
    process = bundles.start("build", str(path), "--local", "--format", "json")
    out, err = process.communicate(timeout=QEMU_SECONDS)
    assert process.returncode == 0, err
    assert "by method block: " in err
    assert "no disk space is needed" in err
    assert "BOOT_IMAGE=/vmlinuz" in err
    [image] = Baked(0, out, err).images.values()
    described = bundles.client().describe_images(ImageIds=[image])["Images"][0]
    assert described["RootDeviceType"] == "instance-store"
    deregister(bundles, image)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9 and clean"])
def test_a_build_that_ends_while_parts_are_sent_leaves_nothing(bundles: Bakery, how: signal.Signals) -> None:
    """The instance goes first: so nobody sends a part any more when the bucket is emptied."""
    before = bundles.inventory()
    process = bundles.start("build", str(spec(bundles, "ended", "- shell: 'true'", SMALL)), "--local")
    _agent(bundles, process)
    os.kill(process.pid, how)
    out, err = process.communicate(timeout=900)
    if how == signal.SIGINT:
        assert process.returncode == 130, out + err
        terminated = [line.split()[2] for line in out.splitlines() if " deleted " in line]
        assert terminated.index("instance") < terminated.index("bundle")
    else:
        cleaned = bundles("clean", "--all", "--local")
        assert cleaned.code == 0, cleaned.err
        assert "bundle" in cleaned.out
    assert kept(bundles) == []
    assert bundles.inventory() == before
