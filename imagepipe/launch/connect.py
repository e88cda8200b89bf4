"""Wait until the instance runs, accepts a verified login and has finished its first boot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import Any

from imagepipe.cloud.ec2 import Ec2
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Connection, Connections, Disconnected, NotConnected, Watch
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError, CommandFailed, ConnectError
from imagepipe.launch.access import Key
from imagepipe.launch.login_attempts import LoginAttempts
from imagepipe.values import Endpoint, Instance, Reachable

RUNNING_SECONDS = 600
CLOUD_INIT_SECONDS = 600
STARTED = "imagepipe-started"
"""The first line that the script prints; without it, the image has run something else."""
CLOUD_INIT = f"""\
echo {STARTED}
command -v cloud-init >/dev/null 2>&1 || exit 0
grep -qs '"errors": \\[\\]' /run/cloud-init/result.json && exit 0
echo waiting
cloud-init status --wait --long
"""
"""cloud-init writes result.json when it is done (its documentation, "Status"); `cloud-init status` takes 0.3 s."""
WAITING = "waiting"
"""The line that the script prints if cloud-init was still running."""
CHECK_SECONDS = 5.0
"""Interval between checks that the instance still runs."""
DROPPED_SECONDS = 1.0
"""Pause before a new connection after one broke during the first boot."""
CONSOLE_LINES = 10

ADDRESSES = {
    "public_ip": "PublicIpAddress",
    "private_ip": "PrivateIpAddress",
    "public_dns": "PublicDnsName",
    "private_dns": "PrivateDnsName",
    "ipv6": "Ipv6Address",
}


NO_ADDRESS_HINTS = {
    "public_ip": "set launch.ssh.address: private_ip, or launch into a subnet that assigns public addresses",
    "public_dns": "set launch.ssh.address: public_ip, or enable DNS host names in the VPC (enableDnsHostnames)",
    "private_dns": "set launch.ssh.address: private_ip, or enable DNS support in the VPC (enableDnsSupport)",
    "ipv6": "set launch.ssh.address: public_ip, or launch into a subnet that assigns IPv6 addresses",
}
CONSOLE_FIRST_SECONDS = 1.0
CONSOLE_LONGEST_SECONDS = 10.0
USUAL_USERS = (
    "Debian has admin, Ubuntu ubuntu, Amazon Linux, RHEL and SUSE ec2-user, Fedora fedora, Rocky Linux rocky, CentOS"
    " centos, CoreOS and Flatcar core"
)
_ROOT_REFUSED = re.compile(r'Please login as the user "([^"]+)" rather than the user "([^"]+)"')
"""The line of the forced command that cloud-init puts before a root key (`disable_root_opts`, its module "ssh")."""
BASTION_HINTS = {
    "auth": "check user and private_key in launch.ssh.bastion; the bastion's sshd must allow TCP forwarding",
    "private-key": "check launch.ssh.bastion.private_key: it must be a private key without a passphrase",
    "host-key": "check launch.ssh.bastion.host_key: `ssh-keyscan` shows the current one; ask its owner",
    "refused": "check launch.ssh.bastion.host and port",
    "timeout": "check launch.ssh.bastion.host; does its security group admit this computer?",
    "unreachable": "check launch.ssh.bastion.host",
}
_KEYS = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_KEY = re.compile(r"\b(ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) (AAAA[A-Za-z0-9+/]+=*)")


def host_key_of(console: str) -> str | None:
    """Return the host key that a console shows, Ed25519 before ECDSA before RSA; None if it shows none yet.

    cloud-init writes all of a machine's keys between two marks (its module "keys to console"). If there were several
    boots, the last one counts.
    """
    blocks = _KEYS.findall(console)
    found = {kind: f"{kind} {key}" for kind, key in _KEY.findall(blocks[-1])} if blocks else {}
    return next((found[kind] for kind in sorted(found, key=_preference)), None)


def _preference(kind: str) -> int:
    return 0 if kind == "ssh-ed25519" else 1 if kind.startswith("ecdsa") else 2


@dataclass(frozen=True)
class AwaitSsh(Stage[Reachable]):
    """Wait until a verified login works and cloud-init is done."""

    ec2: Ec2 = field(repr=False, compare=False)
    connections: Connections = field(repr=False, compare=False)
    instance: Ref[Instance]
    key: Ref[Key]
    user: str
    port: int
    address: str
    timeout_seconds: float
    via: Endpoint | None = None
    """The bastion; None for a direct connection."""
    key_on_console: bool = False
    """True to read the host key from the console before the first connection."""
    has_user_data: bool = False
    """True if the spec has user data of its own, which may create the login user."""
    of_new_image: bool = False
    """True if this is the test instance: if it does not come up, the image is at fault."""

    def run(self, ctx: Context) -> Reachable:
        instance = ctx[self.instance]
        self.connections.prepare()
        with ctx.span("boot"):
            described = self._until_running(ctx, instance)
            endpoint = self._endpoint(ctx, described)
            if self.key_on_console:
                endpoint = replace(endpoint, host_key=self._key_on_console(ctx, instance))
            ctx.progress(f"{instance.id} is running; connecting to {endpoint.user}@{endpoint.host}")
            connection = self._until_connected(ctx, instance, endpoint)
        with ctx.span("boot"):
            self._await_cloud_init(ctx, instance, endpoint, connection)
        return Reachable(instance, endpoint)

    def _until_running(self, ctx: Context, instance: Instance) -> Mapping[str, Any]:
        def settled(seen: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
            state = _state(seen) if seen else "unknown"
            if state in ("terminated", "shutting-down", "stopped", "stopping"):
                reason = (seen or {}).get("StateReason", {}).get("Message") or (seen or {}).get("StateTransitionReason")
                message = f"{instance.id} in {instance.region} ended before it was reached: {reason or state}"
                raise CloudError(f"{self._image_fault()}{message}\n  console:{self._console(instance)}", code=state)
            return seen if state == "running" else None

        return self.ec2.poller.until(
            "instance",
            instance.id,
            settled,
            operation=f"waiting for {instance.id} in {instance.region} to run",
            deadline=ctx.deadline(RUNNING_SECONDS),
            cancel=ctx.cancel,
            state=_state,
        )

    def _endpoint(self, ctx: Context, described: Mapping[str, Any]) -> Endpoint:
        host = described.get(ADDRESSES[self.address])
        if not host:
            raise ConnectError(
                f"{described['InstanceId']} has no {self.address.replace('_', ' ')}",
                hint=NO_ADDRESS_HINTS.get(self.address),
            )
        instance = ctx[self.instance]
        port = self.ec2.host_ports.of(self.port)
        return Endpoint(str(host), port, self.user, instance.host_key, ctx[self.key].private_key, self.via)

    def _key_on_console(self, ctx: Context, instance: Instance) -> str:
        """Read the host key that cloud-init writes to the console at the first boot."""
        deadline = ctx.deadline(self.timeout_seconds)
        ctx.progress(f"{instance.id} is running; waiting for its host key on the console")
        pause = CONSOLE_FIRST_SECONDS
        while True:
            if key := host_key_of(self.ec2.instances.console(instance.id)):
                return key
            if deadline.is_past():
                raise ConnectError(
                    f"{self._image_fault()}{instance.id} in {instance.region} wrote no host key on its console within"
                    f" {self.timeout_seconds:g} s (launch.ssh.timeout)\n  console:{self._console(instance)}",
                    hint="cloud-init writes it unless emit_keys_to_console is false; EC2 may show a console minutes"
                    " late: raise launch.ssh.timeout, or set host_key: user-data",
                )
            ctx.cancel.sleep(min(pause, max(deadline.remaining(), 0.1)))
            self._until_running(ctx, instance)  # raises if the instance has ended
            pause = min(pause * 1.5, CONSOLE_LONGEST_SECONDS)

    def _until_connected(self, ctx: Context, instance: Instance, endpoint: Endpoint) -> Connection:
        attempts = LoginAttempts(ctx.deadline(self.timeout_seconds), has_user_data=self.has_user_data)
        next_check = ctx.deadline(CHECK_SECONDS)
        while not attempts.deadline.is_past():
            ctx.cancel.check()
            try:
                return self.connections.get(endpoint)
            except NotConnected as error:
                attempts.failed(error)
            if report := attempts.report():
                ctx.progress(report)
            if attempts.is_hopeless(lambda: self._console_text(instance)):
                break
            ctx.cancel.sleep(attempts.pause())
            if next_check.is_past():
                self._until_running(ctx, instance)  # raises if the instance has ended
                next_check = ctx.deadline(CHECK_SECONDS)
        raise self._never_up(instance, endpoint, attempts)

    def _never_up(self, instance: Instance, endpoint: Endpoint, attempts: LoginAttempts) -> ConnectError:
        """Return an error that lists everything that was checked."""
        last, limit = attempts.last, f"{self.timeout_seconds:g} s (launch.ssh.timeout)"
        checked = [f"last try: {last or 'none'}"]
        if attempts.deadline.is_past():
            checked.append(f"within {limit}")
        elif refused := attempts.refused_seconds():
            checked.append(f"refused for {refused:.0f} s, so imagepipe did not wait for the {limit}")
        try:
            seen = self.ec2.instances.describe_many([instance.id]).get(instance.id)
            checked.append(f"instance state: {_state(seen) if seen else 'not known'}")
            groups = ", ".join(g["GroupId"] for g in (seen or {}).get("SecurityGroups", ()))
            checked.append(f"security groups: {groups or 'none'}; port: {self.port}")
            checked += self._reach(seen or {}, endpoint)
        except CloudError as error:
            checked.append(f"EC2 did not answer further questions: {error}")
        checked.append(f"key: {endpoint.private_key}; host key: {'known' if endpoint.host_key else 'not checked'}")
        if last is not None and last.at_bastion:
            return ConnectError(f"{instance.id} in {instance.region}: {last}", hint=BASTION_HINTS.get(last.why))
        hints = {
            "timeout": "check the route, security groups and network ACLs: is launch.ssh.address reachable from here?",
            "unreachable": "there is no route from this computer: is launch.ssh.address right?",
            "refused": "no SSH server listens on this port of the machine: see the console, and check launch.ssh.port",
            "auth": f"is '{endpoint.user}' the login user of this image, in launch.ssh.user? {USUAL_USERS}. With"
            " launch.ssh.key_pair: is launch.ssh.private_key its private key?",
            "private-key": "check launch.ssh.private_key: it must be a private key without a passphrase",
            "host-key": "the machine does not use the host key from its user data (no cloud-init?), "
            "or another machine answers at its address",
            "protocol": "the server on this port does not speak SSH, or it closes the connection at once",
        }
        return ConnectError(
            f"{self._image_fault()}{instance.id} in {instance.region}: no SSH to"
            f" {endpoint.user}@{endpoint.host}:{endpoint.port}\n  "
            + "\n  ".join(checked)
            + f"\n  console:{self._console(instance)}",
            hint=hints[last.why] if last else None,
        )

    def _image_fault(self) -> str:
        return "the new image does not come up: " if self.of_new_image else ""

    def _console(self, instance: Instance) -> str:
        """Return the last lines of the console, indented."""
        try:
            lines = self.ec2.instances.console(instance.id).splitlines()[-CONSOLE_LINES:]
        except CloudError as error:
            return f" cannot be read: {error}"
        return "".join(f"\n    {line}" for line in lines) or " empty so far"

    def _console_text(self, instance: Instance) -> str:
        """Return the console; empty if EC2 does not show it."""
        try:
            return self.ec2.instances.console(instance.id)
        except CloudError:
            return ""

    def _reach(self, seen: Mapping[str, Any], endpoint: Endpoint) -> Iterator[str]:
        """Return the network settings in EC2 that may block the connection."""
        yield f"public address: {seen.get('PublicIpAddress') or 'none'}; private: {seen.get('PrivateIpAddress')}"
        if endpoint.via:
            yield f"through bastion {endpoint.via.user}@{endpoint.via.host}:{endpoint.via.port}"
        if subnet := seen.get("SubnetId"):
            route = self.ec2.subnets.default_route(str(subnet), str(seen.get("VpcId")))
            yield f"route to the internet from {subnet}: {route or 'none'}"
        yield f"status checks: {self.ec2.instances.status_checks(str(seen['InstanceId']))}"

    def _await_cloud_init(self, ctx: Context, instance: Instance, endpoint: Endpoint, connection: Connection) -> None:
        """Wait until the first boot is over. It may install packages, which would conflict with the steps.

        The boot may restart sshd or the network, so a connection that breaks is opened again.
        """
        lines: list[str] = []
        deadline = ctx.deadline(CLOUD_INIT_SECONDS)
        watch = Watch(lambda _, line: lines.append(line), deadline, ctx.cancel)
        while True:
            try:
                result = run_script(connection, Script(CLOUD_INIT), watch)
                break
            except Disconnected as error:
                if deadline.is_past():
                    raise
                ctx.progress(f"connecting again: {error}")
                self.connections.drop(endpoint)
                ctx.cancel.sleep(DROPPED_SECONDS)  # a booting sshd may accept each login and then end it
                connection = self._until_connected(ctx, instance, endpoint)
        if STARTED not in lines:
            raise self._not_our_script(instance, lines, result.code)
        # 2 is "done, with warnings that were recovered from" (cloud-init's exit codes, since 23.4).
        if result.code not in (0, 2):
            output = " ".join(line for line in lines if line.strip(". ") and line not in (STARTED, WAITING))
            raise CommandFailed(
                f"cloud-init on the instance failed (exit {result.code}): {output}",
                code=result.code,
                hint="see /var/log/cloud-init.log there; --keep-on-failure keeps the instance",
            )
        if WAITING in lines:
            # A connection keeps the locale, groups and environment of its login; cloud-init may have set them since.
            self.connections.drop(endpoint)
            self._until_connected(ctx, instance, endpoint)

    def _not_our_script(self, instance: Instance, lines: list[str], code: int | None) -> ConnectError:
        """Return the error for a login that did not run the script: a forced command, or a shell that refuses."""
        output = " ".join(line for line in lines if line.strip()) or "no output"
        where = f"{self._image_fault()}{instance.id} in {instance.region}"
        if found := _ROOT_REFUSED.search(output):
            return ConnectError(
                f"{where}: the image refuses logins as '{self.user}': {found[0]}",
                hint=f"set launch.ssh.user: {found[1]} (or defaults.ssh_user in imagepipe.yaml); steps that need root"
                " take sudo: true",
            )
        return ConnectError(
            f"{where}: the login as '{self.user}' works, but runs no commands (exit {code}): {output}",
            hint=f"the user needs a shell, no forced command and a writable /dev/shm; is '{self.user}' the login user"
            f" of this image, in launch.ssh.user? {USUAL_USERS}",
        )

    def title(self) -> str:
        return "boot the new image" if self.of_new_image else "wait for SSH"

    def summary(self, output: Reachable) -> str:
        return f"{output.endpoint.user}@{output.endpoint.host}, host key verified" if output.endpoint.host_key else ""


@dataclass(frozen=True)
class AwaitAddress(AwaitSsh):
    """Wait until the instance runs and has an address, and no longer."""

    def run(self, ctx: Context) -> Reachable:
        instance = ctx[self.instance]
        return Reachable(instance, self._endpoint(ctx, self._until_running(ctx, instance)))

    def title(self) -> str:
        return "wait for the address"


def _state(seen: Mapping[str, Any]) -> str:
    return str(seen["State"]["Name"])
