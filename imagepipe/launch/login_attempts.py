"""The failed attempts at the first login: when to report them, how long to pause, and when to give up."""

from __future__ import annotations

import re
from collections.abc import Callable

from imagepipe.clock import Deadline
from imagepipe.communicator.ssh import NotConnected

QUIET_SECONDS = 15.0
"""Time without reports: a machine that boots refuses connections, then accepts them before its sshd answers."""
RETRY_SECONDS = 0.25
"""First pause between attempts; it grows to one second."""
REFUSED_RETRY_SECONDS = 1.0
"""First pause after a refused key; it grows to five seconds.

OpenSSH 9.8 and later block an address for 5 s for each refused login once these penalties reach 15 s (sshd_config(5),
PerSourcePenalties). More frequent attempts would shut out the login that is accepted at last.
"""
LONGEST_REFUSED_RETRY_SECONDS = 5.0
BOOTED_SECONDS = 15.0
"""Time of refusals after which a key counts as refused for good, if the console shows that cloud-init has finished."""
REFUSED_SECONDS = 60.0
"""Time of refusals after which a key counts as refused for good, whatever the console shows.

cloud-init installs the key before sshd starts (cloud-init.service has Before=sshd.service), so usually the first
refusal is final. Some refusals pass: sshd started first, or pam_nologin(8) refuses users until the system is up.
"""
HOST_KEY_TRIES = 3
"""Attempts with a wrong host key: a machine may briefly show the image's key before cloud-init sets ours."""
_FINISHED = re.compile(r"Cloud-init v\. \S+ finished at")
"""The line that cloud-init writes to the console at its end (its module "final message")."""


class LoginAttempts:
    """All attempts so far.

    With user data of the spec, whose scripts may create the user late in the boot, refusals count only after
    cloud-init has finished.
    """

    def __init__(self, deadline: Deadline, *, has_user_data: bool) -> None:
        self.deadline = deadline
        self.last: NotConnected | None = None
        """The failure to report: the last one, or the last refusal while keys are refused."""
        self._has_user_data = has_user_data
        self._began = deadline.clock.monotonic()
        self._reported: str | None = None
        self._wrong_keys = 0
        self._refused_since: float | None = None
        self._pause = RETRY_SECONDS

    def failed(self, error: NotConnected) -> None:
        """Record a failed attempt."""
        self._wrong_keys = self._wrong_keys + 1 if error.why == "host-key" else 0
        is_refusal = error.why == "auth" and not error.at_bastion
        if is_refusal and self._refused_since is None:
            self._refused_since, self._pause = self._now(), REFUSED_RETRY_SECONDS
        elif self._refused_since is not None and not is_refusal:
            if error.why == "protocol":
                return  # sshd penalizes refused logins: it closes the next connections unanswered
            self._refused_since, self._pause = None, RETRY_SECONDS  # a reboot, for example
        self.last = error

    def report(self) -> str | None:
        """Return a line for the log if the attempts have lasted a while and their result is new."""
        elapsed = self._now() - self._began
        if self.last is None or elapsed < QUIET_SECONDS or self._reported == self.last.why:
            return None
        self._reported = self.last.why
        return (
            f"no login yet after {elapsed:.0f} s, trying until {self.deadline.seconds:g} s (launch.ssh.timeout):"
            f" {self.last}"
        )

    def pause(self) -> float:
        """Return the seconds to wait before the next attempt."""
        now = self._pause
        if self._refused_since is None:
            self._pause = min(self._pause * 1.3, 1.0)
        else:
            self._pause = min(self._pause * 2, LONGEST_REFUSED_RETRY_SECONDS)
        return min(now, self.deadline.remaining())

    def is_hopeless(self, console: Callable[[], str]) -> bool:
        """Return whether more attempts are useless. The console is read only while keys are refused."""
        error = self.last
        if error is None:
            return False
        if error.why == "private-key" or self._wrong_keys >= HOST_KEY_TRIES:
            return True
        if error.at_bastion:
            return error.why in ("auth", "host-key")
        refused = self.refused_seconds()
        if refused < BOOTED_SECONDS:
            return False
        return (refused >= REFUSED_SECONDS and not self._has_user_data) or bool(_FINISHED.search(console()))

    def refused_seconds(self) -> float:
        """Return how long the machine has refused the key; 0 if the last attempt failed otherwise."""
        return 0.0 if self._refused_since is None else self._now() - self._refused_since

    def _now(self) -> float:
        return self.deadline.clock.monotonic()
