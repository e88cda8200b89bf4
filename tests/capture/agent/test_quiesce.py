from __future__ import annotations

import pytest

from imagepipe.capture.agent.quiesce import unit_of


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/notes.service\n", "user@1000.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ""),
        ("0::/system.slice/docker-0a1b.scope\n", ""),
        ("12:pids:/\n1:name=systemd:/system.slice/cron.service\n0::/\n", "cron.service"),
        ("0::/machine.slice/systemd-nspawn@a.service/payload/system.slice/nginx.service\n", "nginx.service"),
    ],
    ids=["system", "user's", "session", "container", "version 1", "seen from outside"],
)
def test_a_process_is_stopped_by_the_service_that_systemctl_knows(cgroups: str, unit: str) -> None:
    assert unit_of(cgroups) == unit
