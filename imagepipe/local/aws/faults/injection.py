"""Inject the faults around a call: delays, expired credentials, refusals and cut connections."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.authentication import signature
from imagepipe.local.aws.authentication.signature import Identity
from imagepipe.local.aws.faults.faults import Faults


class ConnectionCut(Exception):
    """A fault ends the connection without an answer."""


@dataclass(frozen=True, slots=True)
class LateFaults:
    """Faults of a call that follow its effect."""

    delay_seconds: float = 0.0
    is_cut: bool = False

    def inject(self) -> None:
        """Hold the answer back, or raise ConnectionCut."""
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        if self.is_cut:
            raise ConnectionCut


def inject(faults: Faults, identity: Identity, action: str, params: Mapping[str, Any]) -> LateFaults:
    """Inject the faults that precede the effect, and return the others. Raises AwsError, ConnectionCut."""
    if delay := faults.take("delay", action, params):
        time.sleep(delay.seconds)
    if faults.expire(identity.access_key_id, action, params):
        raise signature.expired(identity.service)
    if refusal := faults.take("refuse", action, params):
        raise refusal.error()
    if faults.take("cut-before", action, params):
        raise ConnectionCut
    is_cut = faults.take("cut-after", action, params) is not None
    delay = faults.take("delay-after", action, params)
    return LateFaults(delay.seconds if delay else 0.0, is_cut)
