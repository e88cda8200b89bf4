"""`imagepipe ssh`: log in to a machine of a run that was kept after a failure, or is still in progress."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from imagepipe.cli.cloud import open_cloud, recorded_target
from imagepipe.cli.login import ssh_program, write_known_hosts
from imagepipe.cli.options import CloudOptions
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run_store import run_of
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, check_state_access, state_access_options
from imagepipe.clock import SystemClock
from imagepipe.communicator.openssh import ssh_command
from imagepipe.dataclass import dataclass
from imagepipe.engine.encoding import decode
from imagepipe.engine.journal import JournalState, read
from imagepipe.errors import ConnectError, ImagepipeError, UsageError
from imagepipe.values import Endpoint, Reachable


@dataclass(frozen=True, slots=True)
class SshOptions:
    """Arguments and options of `imagepipe ssh`."""

    run: str
    command: tuple[str, ...]
    instance: str | None
    state: StateOptions
    cloud: CloudOptions


@click.command(
    epilog="""\b
Examples:
  imagepipe ssh latest
  imagepipe ssh 7f3a -- journalctl -u nginx
  imagepipe ssh 7f3a -- 'sudo ls /root | wc -l'
  imagepipe ssh latest --instance i-0123456789abcdef0
"""
)
@click.argument("run", metavar="RUN")
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARGUMENT]...]")
@click.option("--instance", metavar="ID", help="Log in to this instance, if the run has several.")
@state_access_options
@pass_options(SshOptions)
def ssh(options: SshOptions) -> int:
    """Log in to a machine that `--keep-on-failure` kept, or to one of a build in progress; or run a command there.

    RUN is the id of a run, the start of one, or `latest`. The machine's host key is verified, and its bastion is used
    if it has one. A command of one word is a line for the machine's shell; the words of a longer one are passed as they
    are. The exit code is that of the command.
    """
    check_state_access(options.state, options.cloud)
    with open_state(options.state, options.cloud, SystemClock()) as store:
        run = run_of(store, options.run)
        past = read(store, run)
    machine = _choose(past, machines_of(past), options.instance)
    for endpoint in _hops(machine.endpoint):
        if not Path(endpoint.private_key).is_file():
            raise ConnectError(
                f"logging in to {machine.instance.id}: the private key {endpoint.private_key} does not exist",
                hint="a temporary key is deleted with its run, and never leaves its machine;"
                f" to delete what is left: imagepipe clean {past.run.id}",
            )
    program = ssh_program()
    _check_state(past, machine, options.cloud)
    known_hosts = write_known_hosts(store.folder(run), [machine.endpoint])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, [*_words(machine.endpoint, known_hosts), *_remote(options.command)])  # noqa: S606 - no shell is wanted here


def machines_of(past: JournalState) -> dict[str, Reachable]:
    """Return the machines of a run that accepted a login and have not been deleted, by the stage that logged in."""
    held = {claim.id for claim in past.open_claims() if claim.kind == "instance"}
    found: dict[str, tuple[str, Reachable]] = {}
    for stage, done in past.outputs.items():
        if isinstance(done.value, dict) and done.value.keys() == {"instance", "endpoint"}:
            machine: Reachable = decode(Reachable, done.value)
            if machine.instance.id in held:
                found.setdefault(machine.instance.id, (stage, machine))
    return dict(found.values())


def _choose(past: JournalState, machines: Mapping[str, Reachable], wanted: str | None) -> Reachable:
    """Return the machine to log in to. Raises UsageError without a machine, or with several."""
    id = past.run.id
    if not machines:
        if past.is_alive:
            raise UsageError(f"run {id} is in progress, and has no machine yet that accepts a login", hint="try again")
        raise UsageError(
            f"run {id} has no machine that was kept: {_end_of(past)}",
            hint="build with --keep-on-failure to keep the machine of a failed build",
        )
    names = ", ".join(f"{machine.instance.id} ({stage})" for stage, machine in machines.items())
    if wanted is not None:
        for machine in machines.values():
            if machine.instance.id == wanted:
                return machine
        raise UsageError(f"run {id} has no instance {wanted}", hint=f"it has {names}")
    if len(machines) > 1:
        raise UsageError(f"run {id} has several machines: {names}", hint="choose one with --instance ID")
    return next(iter(machines.values()))


def _end_of(past: JournalState) -> str:
    if past.outcome is None:
        return "its process died before a machine accepted a login"
    return f"it {past.outcome}, and its instances were deleted"


def _hops(endpoint: Endpoint) -> list[Endpoint]:
    """Return the endpoint and its bastions."""
    return [endpoint, *(_hops(endpoint.via) if endpoint.via else [])]


def _check_state(past: JournalState, machine: Reachable, cloud: CloudOptions) -> None:
    """Raise ConnectError if the instance no longer runs. A cloud that cannot be asked is only a warning."""
    id, region = machine.instance.id, machine.instance.region
    target = recorded_target(past.run.cloud, cloud)
    try:
        with open_cloud(target, region=region, clock=SystemClock()) as regions:
            target.check_account(regions)
            state = regions[region].instances.ended(id)
    except ImagepipeError as error:
        click.echo(f"warning: the state of {id} is unknown: {error}", err=True)
        return
    if state is not None:
        raise ConnectError(
            f"logging in to {id} in {region}: the instance is {state}",
            hint=f"to delete what is left of the run: imagepipe clean {past.run.id}",
        )


def _words(endpoint: Endpoint, known_hosts: Path) -> list[str]:
    """Return the words of ssh. A host key that differs is refused without a question."""
    program, *words = ssh_command(endpoint, known_hosts)
    checking = "yes" if endpoint.host_key else "accept-new"
    return [program, "-o", f"StrictHostKeyChecking={checking}", *words]


def _remote(command: Sequence[str]) -> list[str]:
    """Return the command for the machine's shell."""
    if not command:
        return []
    return [command[0] if len(command) == 1 else shlex.join(command)]
