"""Stop the machine so that its disks do not change, and terminate it once it is captured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from imagepipe.cloud.ec2 import Ec2
from imagepipe.communicator import keys
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.values import Image, Instance, Sealed, Stopped

STOP_SECONDS = 600
TERMINATE_SECONDS = 600


@dataclass(frozen=True)
class Stop(Stage[Stopped]):
    """Stop the instance; a spot instance is already frozen instead."""

    ec2: Ec2 = field(repr=False, compare=False)
    machine: Ref[Sealed]

    def run(self, ctx: Context) -> Stopped:
        instance = ctx[self.machine].instance
        if instance.spot:
            return Stopped(instance)  # frozen instead: EC2 cannot stop an instance of a one-time spot request
        with ctx.span("boot"):
            self.ec2.instances.stop(instance.id)
            self.ec2.poller.until(
                "instance",
                instance.id,
                lambda seen: _stopped(instance, seen),
                operation=f"waiting for {instance.id} in {instance.region} to stop",
                deadline=ctx.deadline(STOP_SECONDS),
                cancel=ctx.cancel,
                state=_state,
            )
        return Stopped(instance)

    def title(self) -> str:
        return "stop the instance"


@dataclass(frozen=True)
class TerminateInstance(Stage[None]):
    """Terminate the instance as soon as nothing needs it, while copies are still running."""

    ec2: Ec2 = field(repr=False, compare=False)
    instance: Ref[Instance]
    image: Ref[Image]
    """The image: once it exists, nothing needs the instance."""

    def run(self, ctx: Context) -> None:
        instance = ctx[self.instance]
        claim = ctx.journal.claim_of("instance", instance.id)
        if not claim.is_open():  # cleaned up by an earlier process of the run
            return
        try:
            self.ec2.instances.terminate(instance.id)
            self.ec2.await_terminated(instance.id, deadline=ctx.deadline(TERMINATE_SECONDS), cancel=ctx.cancel)
        except CloudError as error:
            # Not a reason to fail a good image: the end of the run tries again, and reports what is left.
            ctx.say(f"not terminated yet: {error}")
            return
        keys.delete_private_key(claim.details)  # before the release, because nothing looks at a released claim again
        ctx.released(claim)

    def must_exist(self) -> tuple[Ref[Any], ...]:
        return (self.image,)

    def title(self) -> str:
        return "terminate the instance"


def _stopped(instance: Instance, seen: Mapping[str, Any] | None) -> bool | None:
    state = _state(seen) if seen else "unknown"
    if state in ("terminated", "shutting-down"):
        raise CloudError(f"{instance.id} in {instance.region} was terminated before it was captured", code=state)
    return True if state == "stopped" else None


def _state(seen: Mapping[str, Any]) -> str:
    return str(seen["State"]["Name"])
