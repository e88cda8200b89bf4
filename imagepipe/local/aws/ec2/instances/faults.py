"""Faults of a running instance that are not tied to a call: its SSH connections drop, or its ports answer late."""

from __future__ import annotations

import logging
from functools import partial

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.faults.faults import Effect, Fault
from imagepipe.local.aws.state.records import Instance
from imagepipe.local.host import tcp_faults

log = logging.getLogger(__name__)

EFFECTS: tuple[Effect, ...] = ("fail", "die", "drop-ssh", "late-ssh")
"""Effects that can be bound to an instance at its launch."""


def hold(backend: Backend, instance: Instance) -> None:
    """Make the ports answer late if a fault says so. Call this before the instance is shown as running."""
    late = backend.faults.bound(instance.id, "late-ssh")
    if late is None:
        return
    stopped = tcp_faults.hold_ports(instance.id, instance.address)
    log.info("the ports of %s answer in %g s", instance.id, late.seconds)
    release = partial(tcp_faults.release_ports, instance.id, stopped)
    backend.job_queues.run_later(late.seconds, release, at_close=True)


def drop_later(backend: Backend, instance: Instance) -> None:
    """Reset the instance's connections later, if a fault says so."""
    drop = backend.faults.bound(instance.id, "drop-ssh")
    if drop is not None:
        backend.job_queues.run_later(drop.seconds, partial(_drop, backend, instance, drop))


def _drop(backend: Backend, instance: Instance, fault: Fault) -> None:
    if backend.faults.bound(instance.id, "drop-ssh") is fault:
        count = tcp_faults.reset_connections(instance.id, instance.address)
        log.info("%d connections to %s reset", count, instance.id)
