"""The process that a machine without an init lives in: `python -I -S supervisor.py`, started by the sshd driver.

It runs in mount, network, host name and IPC namespaces of its own, holds the machine's disks, and outlives the cloud's
process. Each boot starts a child process, PID 1 of a new PID namespace, which sees only the machine's own tree. Each
connection to port 22 starts the image's own `sshd -i` beside it. However this process ends, all of them end with it.

It uses only the standard library, without `site`, so that it starts in some 20 ms and takes a few MB.
"""

# No pathlib (see pyproject.toml): its import would take a third of the whole start.
from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import pwd
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

SOCKET = "supervisor.sock"
READY, UP = "ready", "up"
SSH_PORT = 22
REBOOT = 133  # the exit status of systemd-nspawn for a reboot
STOP_SECONDS = 2.0  # for processes that are told to end; then they are killed
CHUNK_BYTES = 256 << 10
REQUEST_BYTES = 64 << 10
TCP_REPAIR, REPAIR_OFF = 19, -1  # as in port_relay.py
SSHD = "/usr/sbin/sshd"
NOBODY = 60000  # login.defs(5), UID_MAX
FILE_SYSTEMS = ("ext4", "xfs", "btrfs")

# linux/sched.h, linux/mount.h, linux/prctl.h, linux/capability.h, asm/unistd_64.h
CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 1024, 16384, 1 << 18
MS_REMOUNT, MS_BIND = 32, 4096
MNT_DETACH = 2
PR_CAPBSET_DROP = 24
SYS_PIVOT_ROOT = 155
# Without MKNOD the machine's root cannot open the computer's own disks; the others concern the kernel itself:
# SYS_MODULE, SYS_RAWIO, SYS_PACCT, SYS_TIME, MKNOD, MAC_OVERRIDE, MAC_ADMIN, SYSLOG, WAKE_ALARM, PERFMON, BPF.
DROPPED = (16, 17, 20, 25, 27, 32, 33, 34, 35, 38, 39)
# /proc is made read-only, apart from processes and the first list: the machine may configure its own network. The files
# of the second list are hidden, as systemd-nspawn does: no program in a machine needs to read them.
OPEN_IN_PROC = ("/proc/sys/net",)
HIDDEN_IN_PROC = ("/proc/kcore", "/proc/keys", "/proc/kallsyms", "/proc/timer_list")
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
# A request to sysvinit (its initreq.h), which `reboot` and `poweroff` fall back on where systemd does not run.
INITCTL = "/run/initctl"
INIT_REQUEST, INIT_MAGIC, RUN_LEVEL = struct.Struct("=iii"), 0x03091969, 1
LEVELS = {"0": "off", "6": "reboot"}

_libc = ctypes.CDLL(None, use_errno=True)


def _called(what: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Call mount(2). Raises OSError."""
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _called(f"mounting {source} at {target}", done)


def unshare(flags: int) -> None:
    """Call unshare(2). Raises OSError."""
    _called("unshare", _libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    """Call setns(2). Raises OSError."""
    _called("setns", _libc.setns(fd, kind))


def pivot_into(root: str) -> None:
    """Make a mounted tree the root of this process and its children (pivot_root(2), its example with two dots)."""
    os.chdir(root)
    _called("pivot_root", _libc.syscall(SYS_PIVOT_ROOT, b".", b"."))
    _called("umount", _libc.umount2(b".", MNT_DETACH))
    os.chdir("/")


def drop_capabilities() -> None:
    """Drop DROPPED for all programs that are executed from here on."""
    for number in DROPPED:
        _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # fails harmlessly if the kernel does not know one


def execute(path: str, arguments: Sequence[str]) -> NoReturn:
    """Execute a program of the machine in this process, as PID 1 of an ordinary system would start it."""
    # The cloud may have been started with any signal ignored: by a shell in the background, nohup, a CI runner.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    os.execve(path, list(arguments), environment)  # noqa: S606


class Boot:
    """PID 1 of a machine, from its first step to its end. The plan is `first_boot.Plan`, as JSON."""

    def __init__(self, plan: Mapping[str, Any], orders: int) -> None:
        self._plan = plan
        self._orders = orders

    def run(self, answer: int) -> NoReturn:
        """Set the machine up, report that to the descriptor `answer`, and wait for its end."""
        try:
            devices = {name: os.stat(path).st_rdev for name, path in self._plan["devices"].items()}
            unshare(CLONE_NEWNS)
            mount("none", "/", "none", MS_REC | MS_PRIVATE)
            pivot_into(f"{self._plan['folder']}/root")
            self._mount_all(devices)
            drop_capabilities()
            _mount_disks()
            first = self._is_first()
            self._name()
            if first:
                self._make_first_boot()
            self._finish(first)
        except Exception as problem:  # noqa: BLE001 - reported to the driver, and this process ends
            os.write(answer, f"error {problem}\n".encode())
            os._exit(1)
        os.write(answer, f"{UP}\n".encode())
        os.close(answer)
        self._wait()

    def _mount_all(self, devices: Mapping[str, int]) -> None:
        """Mount the file systems in memory, as an init does. Paths are the machine's own: its root is / by now."""
        for folder in ("proc", "sys", "dev", "run"):
            os.makedirs(f"/{folder}", exist_ok=True)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _protect_proc()
        mount("sysfs", "/sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=256m")
        mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=0755,size=4m")
        os.umask(0)
        for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
            os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
        os.mknod("/dev/tty", stat.S_IFCHR | 0o666, os.makedev(5, 0))
        for name, number in devices.items():
            os.mknod(name, stat.S_IFBLK | 0o660, number)
        os.umask(0o022)
        for path in filter(os.path.exists, HIDDEN_IN_PROC):
            mount("/dev/null", path, "none", MS_BIND)
        for folder in ("/dev/pts", "/dev/shm", "/run/lock", "/run/sshd", "/run/cloud-init"):  # noqa: S108
            os.mkdir(folder)
        mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108
        for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("initctl", INITCTL)):
            os.symlink(target, f"/dev/{name}")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")
        os.mkfifo(INITCTL, 0o600)

    # The work of cloud-init at a first boot, as planned.

    def _is_first(self) -> bool:
        """Tell if this instance boots from this disk for the first time, by cloud-init's own mark."""
        try:
            return os.path.basename(os.readlink("/var/lib/cloud/instance")) != str(self._plan["instance_id"])
        except OSError:
            return True

    def _name(self) -> None:
        name = self._plan["hostname"]
        socket.sethostname(name)
        _write("/etc/hostname", f"{name}\n", 0o644)

    def _make_first_boot(self) -> None:
        plan, name = self._plan, self._plan["hostname"]
        _write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name} {name}\n::1 localhost ip6-localhost\n", 0o644)
        sudo = []
        for user in plan["users"]:
            self._make_user(user)
            sudo += [f"{user['name']} {rule}\n" for rule in user["sudo"]]
        if sudo:
            _write("/etc/sudoers.d/90-cloud-init-users", "".join(sudo), 0o440)
        self._make_host_keys()

    def _make_user(self, user: Mapping[str, Any]) -> None:
        name = user["name"]
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            _add_user(user)
            entry = pwd.getpwnam(name)
        if not user["keys"]:
            return
        folder = f"{entry.pw_dir}/.ssh"
        os.makedirs(folder, mode=0o700, exist_ok=True)
        known_lines = _lines(f"{folder}/authorized_keys")
        lines = [*known_lines, *(key for key in user["keys"] if key not in known_lines)]
        _write(f"{folder}/authorized_keys", "".join(f"{line}\n" for line in lines), 0o600)
        for path in (folder, f"{folder}/authorized_keys"):
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)

    def _make_host_keys(self) -> None:
        keys, kinds = self._plan["host_keys"], self._plan["host_key_kinds"]
        if self._plan["deletes_host_keys"]:
            for name in os.listdir("/etc/ssh"):
                if name.startswith("ssh_host_") and "_key" in name:
                    os.unlink(f"/etc/ssh/{name}")
        for name, text in keys.items():
            kind, _, half = name.rpartition("_")
            if half == "private":
                _write(f"/etc/ssh/ssh_host_{kind}_key", f"{text.rstrip()}\n", 0o600)
            elif half == "public":
                _write(f"/etc/ssh/ssh_host_{kind}_key.pub", f"{text.rstrip()}\n", 0o644)
        for kind in () if keys else kinds:
            path = f"/etc/ssh/ssh_host_{kind}_key"
            if not os.path.exists(path):
                _run(["/usr/bin/ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path])
        shown = [_lines(f"/etc/ssh/{name}") for name in sorted(os.listdir("/etc/ssh")) if name.endswith("_key.pub")]
        lines = [line for lines in shown for line in lines]
        say("\n".join(("-----BEGIN SSH HOST KEY KEYS-----", *lines, "-----END SSH HOST KEY KEYS-----")))

    def _finish(self, first: bool) -> None:
        """Leave cloud-init's marks of a finished first boot, and start the user's scripts."""
        id, now = self._plan["instance_id"], time.time()
        if first:
            os.makedirs(f"/var/lib/cloud/instances/{id}", exist_ok=True)
            os.makedirs("/var/lib/cloud/data", exist_ok=True)
            for name in os.listdir("/var/lib/cloud/data"):
                with suppress(OSError):  # a folder, or a mount: neither is cloud-init's
                    os.unlink(f"/var/lib/cloud/data/{name}")
            with suppress(FileNotFoundError):
                os.unlink("/var/lib/cloud/instance")
            os.symlink(f"/var/lib/cloud/instances/{id}", "/var/lib/cloud/instance")
            _write("/var/lib/cloud/data/instance-id", f"{id}\n", 0o644)
            _write(f"/var/lib/cloud/instances/{id}/boot-finished", f"{now}\n", 0o644)
        stage = {"errors": [], "start": now, "finished": now}
        stages = dict.fromkeys(("init-local", "init", "modules-config", "modules-final"), stage)
        status = {"datasource": "DataSourceNoCloud", "stage": None, **stages}
        result = {"datasource": "DataSourceNoCloud", "errors": []}
        _write("/run/cloud-init/enabled", "", 0o644)
        _write("/run/cloud-init/instance-id", f"{id}\n", 0o644)
        _write("/run/cloud-init/status.json", json.dumps({"v1": status}, indent=1), 0o644)
        _write("/run/cloud-init/result.json", json.dumps({"v1": result}, indent=1), 0o644)
        for line in self._plan["not_done"]:
            say(f"imagepipe: not done at this boot, as there is no cloud-init: {line}")
        if first:
            self._start_scripts()
        say(f"imagepipe: {self._plan['hostname']} ({id}) is up; no init, no cloud-init, sshd alone")

    def _start_scripts(self) -> None:
        """Start the user's own scripts, one after the other, in the background."""
        if not self._plan["scripts"] or os.fork():
            return
        os.close(self._orders)
        for number, text in enumerate(self._plan["scripts"]):
            path = f"/run/imagepipe-script-{number}"
            _write(path, text, 0o700)
            with suppress(OSError):
                _run([path])
        os._exit(0)

    # The machine's end.

    def _wait(self) -> NoReturn:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel itself reaps orphans
        requests = os.open(INITCTL, os.O_RDWR)
        poll = select.poll()
        poll.register(requests, select.POLLIN)
        poll.register(self._orders, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._orders:
                    self._end(os.read(fd, 64).decode().strip())
                magic, command, level = INIT_REQUEST.unpack(os.read(fd, 384)[: INIT_REQUEST.size])
                if (magic, command) == (INIT_MAGIC, RUN_LEVEL) and chr(level & 0x7F) in LEVELS:
                    self._end(LEVELS[chr(level & 0x7F)])

    def _end(self, how: str) -> NoReturn:
        """Ask all processes to end, and wait a moment for them; the kernel kills the rest with this one."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(-1, number)
        end = time.monotonic() + STOP_SECONDS
        while time.monotonic() < end and any(name.isdigit() and name != "1" for name in os.listdir("/proc")):
            time.sleep(0.005)
        os._exit(REBOOT if how == "reboot" else 0)


def _add_user(user: Mapping[str, Any]) -> None:
    """Add a user as useradd does, but without its fsync: on a disk that was just copied, that takes half a second."""
    name, home = user["name"], f"/home/{user['name']}"
    numbers = [int(line.split(":")[2]) for path in ("/etc/passwd", "/etc/group") for line in _lines(path)]
    id = max([999, *(number for number in numbers if number < NOBODY)]) + 1
    days = int(time.time() // 86400)
    _append("/etc/passwd", f"{name}:x:{id}:{id}:{user['gecos']}:{home}:{user['shell']}", 0o644)
    _append("/etc/shadow", f"{name}:!:{days}:0:99999:7:::", 0o640)
    lines = [f"{line}{'' if line.endswith(':') else ','}{name}" if line.partition(":")[0] in user["groups"] else line
             for line in _lines("/etc/group")]  # fmt: skip
    _write("/etc/group", "".join(f"{line}\n" for line in [*lines, f"{name}:x:{id}:"]), 0o644)
    if os.path.exists("/etc/gshadow"):
        _append("/etc/gshadow", f"{name}:!::", 0o640)
    shutil.copytree("/etc/skel", home, symlinks=True, dirs_exist_ok=True)
    os.chmod(home, 0o755)  # noqa: S103 - as Debian's adduser makes it
    for folder, folders, files in os.walk(home):
        for path in (folder, *(f"{folder}/{entry}" for entry in (*folders, *files))):
            os.chown(path, id, id, follow_symlinks=False)


def _append(path: str, line: str, mode: int) -> None:
    """Append a line, and keep the file's owner."""
    group = os.stat(path).st_gid
    _write(path, "".join(f"{each}\n" for each in [*_lines(path), line]), mode)
    os.chown(path, 0, group)


def say(text: str) -> None:
    """Write a line to the machine's console."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _write(path: str, text: str, mode: int) -> None:
    """Write a file, whole or not at all, in place of anything of that name."""
    half = f"{path}.imagepipe"
    fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "w") as file:
        os.fchmod(fd, mode)
        file.write(text)
    os.rename(half, path)


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


def _run(arguments: Sequence[str]) -> None:
    """Run a program of the machine's to its end. Raises OSError if it fails."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(2, 1)
            execute(arguments[0], arguments)
        finally:
            os._exit(127)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0:
        raise OSError(errno.ECHILD, f"{arguments[0]} ended with {code}")


class Supervisor:
    """Boots the machine, also after a reboot, and accepts connections on the sockets that the driver passes."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = dict(plan)
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._init = 0
        self._mounts = -1
        self._orders = -1
        self._open: dict[tuple[str, int], socket.socket] = {}
        """Listening sockets by address and port."""
        self._in_repair: set[tuple[str, int]] = set()
        self._poll = select.poll()
        self._is_ending = False

    def prepare(self) -> None:
        """Do everything that can fail: mount the disk, bind the control socket. Raises OSError."""
        folder = self._plan["folder"]
        for fd in self._plan["held"]:
            os.set_inheritable(fd, False)
        _mount_root(self._plan["root"], f"{folder}/root")
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        os.chdir(folder)
        with suppress(FileNotFoundError):
            os.unlink(SOCKET)
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control.bind(SOCKET)
        self._control.listen(8)

    def boot(self) -> str:
        """Start a new PID 1, and return its answer: `up`, or an error."""
        setns(self._own_pids, CLONE_NEWPID)  # a second PID namespace can be created only from the original one
        unshare(CLONE_NEWPID)
        reading, writing = os.pipe()
        orders, self._orders = os.pipe()
        self._init = os.fork()
        if self._init == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(reading)
            self._close_descriptors()
            Boot(self._plan, orders).run(writing)
        os.close(writing)
        os.close(orders)
        with os.fdopen(reading) as lines:
            answer = lines.readline().strip()
        if answer == UP:
            self._mounts = os.open(f"/proc/{self._init}/ns/mnt", os.O_RDONLY)
        return answer or "error PID 1 ended"

    def _close_descriptors(self) -> None:
        """In a child, close the supervisor's own descriptors: other processes watch them to learn that it has ended."""
        for fd in (*self._plan["held"], self._orders, self._own_pids):
            os.close(fd)
        for each in (self._control, *self._open.values()):
            each.close()

    def serve(self) -> None:
        """Serve the driver and callers until the machine is powered off."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.kill(os.getpid(), signal.SIGCHLD)  # for children that have ended already
        self._poll.register(woken, select.POLLIN)
        self._poll.register(self._control, select.POLLIN)
        while not self._is_ending:
            for fd, _ in self._poll.poll():
                if fd == woken:
                    os.read(woken, 4096)
                    self._reap()
                elif fd == self._control.fileno():
                    self._obey()
                else:
                    self._accept(fd)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._init:
                self._booted_down(status)

    def _booted_down(self, status: int) -> None:
        """After reboot(2) in its namespace PID 1 ends by SIGHUP, after a power off by SIGINT (reboot(2), NOTES)."""
        os.close(self._mounts)
        os.close(self._orders)
        again = os.waitstatus_to_exitcode(status) in (REBOOT, -signal.SIGHUP)
        if not again:
            self._is_ending = True
        elif (answer := self.boot()) != UP:
            say(f"imagepipe: {answer}")
            self._is_ending = True

    def _accept(self, fd: int) -> None:
        place = next((place for place, listening in self._open.items() if listening.fileno() == fd), None)
        if place is None:
            return
        try:
            accepted, _ = self._open[place].accept()
        except OSError:  # the caller has disconnected again
            return
        accepted.setblocking(True)
        if place in self._in_repair:
            accepted.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF)
        with accepted:
            self._hand_on(accepted, place[1])

    def _hand_on(self, accepted: socket.socket, port: int) -> None:
        """Hand a connection to a process in the machine: the image's sshd, or one that carries bytes to a port."""
        try:
            if os.fork():
                return
        except OSError:  # between two boots
            return
        try:
            setns(self._mounts, CLONE_NEWNS)
            drop_capabilities()
            os.setsid()
            if port == SSH_PORT:
                for fd in (0, 1):
                    os.dup2(accepted.fileno(), fd)
                execute(SSHD, ["sshd", "-i", "-e"])
            self._close_descriptors()
            _pass_on(accepted, port)
        except BaseException as problem:  # noqa: BLE001 - this process must not return
            say(f"imagepipe: a connection to port {port}: {problem}")
        finally:
            os._exit(1)

    # Requests of the driver.

    def _obey(self) -> None:
        asking, _ = self._control.accept()
        with asking, suppress(OSError, ValueError):
            asking.settimeout(5)
            line, fds, _, _ = socket.recv_fds(asking, REQUEST_BYTES, 1)
            wanted = json.loads(line)
            answer: object = True
            match wanted["do"]:
                case "open":
                    place = (wanted["address"], int(wanted["port"]))
                    self._admit(place, socket.socket(fileno=fds[0]), in_repair=wanted["in_repair"])
                case "close":
                    self._refuse((wanted["address"], int(wanted["port"])))
                case "ports":
                    answer = sorted(self._open)
                case "names":
                    answer = self._plan["devices"]
                case "set-names":
                    self._plan["devices"] = wanted["names"]
                case "hold":
                    os.set_inheritable(fds[0], False)
                    self._plan["held"].append(fds[0])
                case "release":
                    self._release(wanted["device"])
                case "off" | "reboot" as how:
                    os.write(self._orders, f"{how}\n".encode())
            asking.sendall(json.dumps(answer).encode())

    def _release(self, device: str) -> None:
        """Close the disk; if nothing else uses it, the kernel detaches its loop device then."""
        number = os.stat(device).st_rdev
        for fd in [fd for fd in self._plan["held"] if os.fstat(fd).st_rdev == number]:
            self._plan["held"].remove(fd)
            os.close(fd)

    def _admit(self, place: tuple[str, int], listening: socket.socket, *, in_repair: bool) -> None:
        self._refuse(place)
        self._open[place] = listening
        listening.setblocking(False)
        if in_repair:
            self._in_repair.add(place)
        self._poll.register(listening, select.POLLIN)

    def _refuse(self, place: tuple[str, int]) -> None:
        self._in_repair.discard(place)
        if listening := self._open.pop(place, None):
            self._poll.unregister(listening)
            listening.close()


def _mount_disks() -> None:
    """Mount the entries of /etc/fstab, as a boot does. A failure is reported on the console, and the boot continues."""
    for line in _lines("/etc/fstab"):
        words = line.split()
        if len(words) < 3 or words[0].startswith("#") or words[1] == "/" or words[2] == "swap":
            continue
        options = words[3].split(",") if len(words) > 3 else []
        if "noauto" in options and "x-systemd.automount" not in options:
            continue
        where = words[1].replace("\\040", " ")
        try:
            os.makedirs(where, exist_ok=True)
            _run(["/bin/mount", where])
        except OSError as problem:
            say(f"imagepipe: /etc/fstab: {words[0]} is not mounted at {where}: {problem}")


def _protect_proc() -> None:
    """Make /proc read-only but for the processes and the network.

    It protects from accidents alone: a root with SYS_ADMIN can undo it.
    """
    for path in OPEN_IN_PROC:
        mount(path, path, "none", MS_BIND)
    for name in sorted(os.listdir("/proc")):
        path = f"/proc/{name}"
        if name.isdigit() or os.path.islink(path) or (not os.stat(path).st_mode & 0o222 and not os.path.isdir(path)):
            continue
        mount(path, path, "none", MS_BIND | MS_REC)
        mount("none", path, "none", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _mount_root(device: str, target: str) -> None:
    for kind in FILE_SYSTEMS:
        try:
            mount(device, target, kind, MS_NOATIME)
        except OSError as problem:
            if problem.errno not in (errno.EINVAL, errno.ENODEV) or kind == FILE_SYSTEMS[-1]:
                raise
        else:
            return


def _pass_on(accepted: socket.socket, port: int) -> None:
    """Carry bytes between a caller and a listener in the machine."""
    with suppress(OSError), socket.socket() as onward:
        # Not create_connection: it loads a codec from Python's library, which the machine's mounts do not contain.
        onward.connect(("127.0.0.1", port))
        for each in (accepted, onward):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=_pump, args=(onward, accepted), daemon=True)
        back.start()
        _pump(accepted, onward)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    chunk = memoryview(bytearray(CHUNK_BYTES))
    with suppress(OSError):
        while count := source.recv_into(chunk):
            sink.sendall(chunk[:count])
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def main() -> int:
    """Read a plan, write `ready`, wait for the word to boot (end of file: the driver is gone), and write `up`."""
    supervisor = Supervisor(json.loads(sys.stdin.readline()))
    try:
        supervisor.prepare()
    except OSError as problem:
        sys.stdout.write(f"error {problem.strerror or problem}\n")
        return 1
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    if sys.stdin.readline() != "boot\n":
        return 1
    answer = supervisor.boot()
    sys.stdout.write(f"{answer}\n")
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nowhere, fd)
    if answer != UP:
        return 1
    supervisor.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
