"""`imagepipe images launch`: an instance of an image, with a temporary key and group, until `clean` deletes it."""

from __future__ import annotations

import secrets
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

import click

from imagepipe.cleanup.undoers import Undoers
from imagepipe.cli import streams
from imagepipe.cli.cloud import cloud_target, home_region, open_cloud
from imagepipe.cli.login import write_known_hosts
from imagepipe.cli.options import CloudOptions, is_image_id, role_option, target_options
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run import stopped_by_signals
from imagepipe.cli.state import open_writable_state
from imagepipe.cli.state_options import StateOptions, state_option
from imagepipe.clock import Clock, SystemClock, iso
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.cloud.tags import RunTags
from imagepipe.communicator.openssh import ssh_command
from imagepipe.communicator.ssh import Connections
from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.encoding import encode
from imagepipe.engine.events import Events
from imagepipe.engine.journal import Journal, RunRecord, read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.engine.undo import undo
from imagepipe.errors import ImagepipeError, UndoFailed, UsageError
from imagepipe.launch.access import MakeGroup, MakeKey
from imagepipe.launch.connect import USUAL_USERS, AwaitAddress, AwaitSsh
from imagepipe.launch.machine import Launch
from imagepipe.launch.source import FindSource
from imagepipe.masking import Masker
from imagepipe.report.console import ConsoleReport
from imagepipe.retention.bakes import BakedImage, baked_image
from imagepipe.values import Reachable

DEFAULT_TYPES: Mapping[str, str] = {"x86_64": "t3.small", "arm64": "t4g.small", "i386": "t3.small"}
"""Instance type by architecture."""
BUNDLE_TYPE = "m3.medium"
"""The default of instance-store images, which need an instance type with instance store."""


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """Arguments and options of `imagepipe images launch`."""

    image: str
    instance_type: str | None
    user: str | None
    subnet: str | None
    port: int
    waits: bool
    region: str | None
    cloud: CloudOptions
    state: StateOptions
    output: Format


@click.command(
    short_help="Launch an instance of an image, and say how to log in.",
    epilog="""\b
Examples:
  imagepipe images launch ami-0123456789abcdef0 --local
  imagepipe images launch web-server-20261125T110000Z --wait
  imagepipe images launch ami-0123456789abcdef0 --instance-type m5.large --user ubuntu --region eu-west-1
""",
)
@click.argument("image", metavar="IMAGE")
@click.option(
    "--instance-type", metavar="TYPE", help="Instance type.  [default: t3.small, t4g.small or m3.medium, by the image]"
)
@click.option(
    "--user", metavar="NAME", help="User to log in as.  [default: that of the run that baked it, if it is here]"
)
@click.option("--subnet", metavar="ID", help="Subnet of the instance.  [default: one of the default VPC]")
@click.option("--port", type=click.IntRange(1, 65535), default=22, show_default=True, help="Port of SSH.")
@click.option("--wait", "waits", is_flag=True, help="Wait until a login works and the first boot is over.")
@click.option("--region", metavar="REGION", help="Region of the image.  [default: the AWS CLI's]")
@role_option()
@target_options
@state_option
@log_format_option
@pass_options(LaunchOptions)
def launch(options: LaunchOptions) -> int:
    """Launch an instance of an image of this account, given by id or by complete name, and print how to log in.

    The instance, its key pair and its security group, which admits only this computer, are a run: `imagepipe runs`
    lists it, `imagepipe ssh RUN` logs in, and `imagepipe clean RUN` deletes all of it. Until then, it costs money.
    After a failure or Ctrl-C, everything is deleted at once.
    """
    clock = SystemClock()
    cancel = Cancel(clock)
    run_id = secrets.token_hex(4)
    with ExitStack() as stack:
        signals = stack.enter_context(stopped_by_signals(cancel))
        target = cloud_target(options.cloud)
        store = stack.enter_context(open_writable_state(options.state, target, clock))
        regions = stack.enter_context(open_cloud(target, region=options.region, clock=clock))
        home = home_region(options.region, regions)
        image = _find(regions[home], options.image)
        user = options.user or _user_of(image, store)
        signals.has_begun = True
        record = RunRecord(
            run_id, iso(clock.now()), (image.spec or image.name,), {}, target.with_account(regions).record()
        )
        launched = _Launched(record, store, regions, clock, cancel)
        machine = launched.run(_stages(regions[home], image, user, options, run_id, launched.connections))
    known_hosts = write_known_hosts(store.folder(run_id), [machine.endpoint])
    login = shlex.join(ssh_command(machine.endpoint, known_hosts))
    if options.output == "json":
        print_json(
            {
                "run": run_id,
                "instance_id": machine.instance.id,
                "region": home,
                "image_id": image.id,
                "address": machine.endpoint.host,
                "user": user,
                "ssh": login,
                "clean": f"imagepipe clean {run_id}",
            }
        )
        return 0
    click.echo(f"{machine.instance.id} in {home}, of {image.id} '{image.name}', at {machine.endpoint.host}")
    click.echo(f"log in:  imagepipe ssh {run_id}")
    click.echo(f"     or  {login}")
    click.echo(f"delete:  imagepipe clean {run_id}")
    return 0


def _find(ec2: Ec2, word: str) -> BakedImage:
    """Return the image of this account with this id or name. Raises UsageError."""
    name = "image-id" if is_image_id(word) else "name"
    found = [baked_image(each, ec2.region) for each in ec2.lifecycle.own({"Name": name, "Values": [word]})]
    if not found:
        raise UsageError(
            f"this account has no image {word} in {ec2.region}",
            hint="an id belongs to one region: check --region. A name must be complete",
        )
    if found[0].state != "available":
        hint = f"imagepipe images restore {found[0].id}" if found[0].state == "disabled" else None
        raise UsageError(f"{found[0].describe()} is {found[0].state}, so it cannot be launched", hint=hint)
    return found[0]


def _user_of(image: BakedImage, store: JournalStore) -> str:
    """Return the user that the run of the image logged in as. Raises UsageError if that is not known here."""
    with suppress(ImagepipeError, OSError):
        for done in read(store, image.run).outputs.values() if image.run else ():
            if isinstance(done.value, dict) and isinstance(done.value.get("endpoint"), dict):
                return str(done.value["endpoint"]["user"])
    raise UsageError(
        f"the login user of {image.id} is not known: its run is not on this computer",
        hint=f"pass --user NAME. {USUAL_USERS}",
    )


def _stages(
    ec2: Ec2, image: BakedImage, user: str, options: LaunchOptions, run_id: str, connections: Connections
) -> dict[str, Stage[Any]]:
    own = RunTags(run_id, image.spec or "none", f"{ec2.clock.now():%Y%m%dT%H%M%SZ}")
    subnets = (options.subnet,) if options.subnet else ()
    default = BUNDLE_TYPE if image.bundle else DEFAULT_TYPES.get(str(image.described.get("Architecture")), "t3.small")
    await_machine = AwaitSsh if options.waits else AwaitAddress
    return {
        "source": FindSource(ec2, image.id, needs_ebs=False),
        "key": MakeKey(ec2, own),
        "network": MakeGroup(ec2, own, subnets, options.port, ("caller",)),
        "launch": Launch(
            ec2=ec2,
            run_tags=own,
            source=Ref("source"),
            key=Ref("key"),
            network=Ref("network"),
            after=(),
            instance_types=(options.instance_type or default,),
            devices=(),
            encrypt_root=False,
            kms_key=None,
            instance_profile=None,
            sends_host_key=True,
            user_data=None,
            public_address=True,
        ),
        "connect": await_machine(ec2, connections, Ref("launch"), Ref("key"), user, options.port, "public_ip", 600.0),
    }


class _Launched:
    """The run of a launch: its stages one after the other, with a journal, and everything deleted after a failure."""

    def __init__(self, record: RunRecord, store: JournalStore, regions: Regions, clock: Clock, cancel: Cancel) -> None:
        self._record, self._store, self._regions, self._clock, self._cancel = record, store, regions, clock, cancel
        self.connections = Connections()

    def run(self, stages: Mapping[str, Stage[Any]]) -> Reachable:
        """Run the stages; return the machine. Raises the error of a stage after everything is deleted."""
        journal = Journal.create(self._store, self._record, self._clock)
        journal.on_lost(self._cancel.set)
        self._regions.session.check_before_changes(journal.check_held)
        with ExitStack() as stack:
            stack.callback(journal.close)
            stack.callback(self.connections.close)
            sink = stack.enter_context(journal.event_sink())
            events = Events(
                self._record.id,
                self._clock,
                Masker(),
                [sink, ConsoleReport(sys.stderr, has_colours=streams.has_colours(sys.stderr))],
            )
            outputs: dict[str, Any] = {}
            try:
                for name, stage in stages.items():
                    ctx = Context(name, outputs, journal, events, self._cancel, self._clock)
                    self._cancel.check()
                    began = self._clock.monotonic()
                    events.emit(ev.StageStarted(*events.stamp(), name, stage.title()))
                    outputs[name] = stage.run(ctx)
                    seconds = self._clock.monotonic() - began
                    events.emit(ev.StageFinished(*events.stamp(), name, seconds, stage.summary(outputs[name])))
                    journal.note("output", stage=name, fingerprint="", value=encode(outputs[name]))
            except BaseException as error:
                held = undo(journal, Undoers(self._regions, self._clock).undoers(), events)
                with suppress(ImagepipeError):
                    outcome = "cancelled" if self._cancel.is_set() else "failed"
                    journal.note("finished", outcome=outcome, held=[str(each) for each in held])
                if held:
                    what = f"run {self._record.id} still holds {', '.join(map(str, held))}"
                    raise UndoFailed(
                        f"{what}; later: imagepipe clean {self._record.id}", [each.error for each in held]
                    ) from error
                raise
            journal.note("finished", outcome="succeeded", held=[str(c) for c in journal.claims() if c.is_open()])
            machine: Reachable = outputs["connect"]
            return machine
