"""`imagepipe ssh`: a login to a machine of a run, through the system's ssh to a real sshd."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from imagepipe.clock import SystemClock
from imagepipe.communicator import keys
from imagepipe.engine.encoding import encode
from imagepipe.engine.journal import Lifetime, RunRecord
from imagepipe.values import Endpoint, Instance, Reachable
from tests import run_folders
from tests.account import Account
from tests.communicator.sshd import Sshd, sshd
from tests.local.aws import harness
from tests.local.aws.harness import KEY_ID, SECRET


class Kept:
    """The folder of a failed run that kept machines of the local cloud."""

    def __init__(self, root: Path, account: Account) -> None:
        self.root, self.account = root, account
        self.record = RunRecord(
            "7f3a91c2", "2026-11-23T03:00:00Z", ("web",), {}, {"endpoint_url": account.cloud.endpoint}
        )
        self.folder = root / "imagepipe" / "runs" / self.record.id
        self.journal = run_folders.create(self.folder, self.record, SystemClock())

    def machine(self, endpoint: Endpoint, stage: str = "connect") -> str:
        """Record a machine that accepted a login; return the id of its instance."""
        id = harness.running(self.account.cloud.client())
        self.journal.bind(self.journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage=stage), id)
        value = encode(Reachable(Instance(id, "us-east-1", "t3.small", "/dev/xvda", None), endpoint))
        self.journal.note("output", stage=stage, fingerprint="f", value=value)
        return id

    def end(self) -> None:
        self.journal.note("finished", outcome="failed", held=[])
        self.journal.close()

    def ssh(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "XDG_STATE_HOME": str(self.root),
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            **env,
        }
        command = [sys.executable, "-m", "imagepipe.cli.main", "ssh", *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL, timeout=60
        )


@pytest.fixture
def kept(tmp_path: Path, account: Account) -> Kept:
    return Kept(tmp_path / "state", account)


def test_a_command_runs_on_the_machine_and_its_exit_code_is_the_result(kept: Kept, server: Sshd) -> None:
    kept.machine(server.endpoint)
    kept.end()
    ran = kept.ssh("latest", "--", "printf", "%s|", "a b", "$HOME", "'")
    assert (ran.stdout, ran.returncode) == ("a b|$HOME|'|", 0)
    ran = kept.ssh("7f3a", "--", "echo one | tr a-z A-Z; exit 7")
    assert (ran.stdout, ran.returncode) == ("ONE\n", 7)


def test_a_machine_of_a_build_in_progress_is_reached(kept: Kept, server: Sshd) -> None:
    kept.machine(server.endpoint)
    assert kept.ssh("latest", "--", "echo", "here").stdout == "here\n"
    kept.journal.close()


def test_a_machine_with_another_host_key_is_refused_without_a_question(kept: Kept, server: Sshd) -> None:
    other = " ".join(keys.generate("other").public.split()[:2])
    kept.machine(replace(server.endpoint, host_key=other))
    kept.end()
    ran = kept.ssh("latest", "--", "echo", "here")
    assert ran.stdout == ""
    assert ran.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in ran.stderr or "Host key verification failed" in ran.stderr


def test_a_machine_behind_a_bastion_is_reached_through_it(kept: Kept, server: Sshd, tmp_path: Path) -> None:
    with sshd(tmp_path / "bastion") as bastion:
        kept.machine(replace(server.endpoint, via=bastion.endpoint))
        kept.end()
        assert kept.ssh("latest", "--", "echo", "here").stdout == "here\n"
        assert "Accepted publickey" in bastion.log


def test_one_of_several_machines_is_chosen(kept: Kept, server: Sshd) -> None:
    first, second = kept.machine(server.endpoint), kept.machine(server.endpoint, "test-boot")
    kept.end()
    ran = kept.ssh("latest")
    assert ran.returncode == 2
    assert f"has several machines: {first} (connect), {second} (test-boot)\n" in ran.stderr
    assert "hint: choose one with --instance ID" in ran.stderr
    assert kept.ssh("latest", "--instance", second, "--", "echo", "here").stdout == "here\n"
    assert "has no instance i-9" in kept.ssh("latest", "--instance", "i-9").stderr


def test_a_run_that_kept_nothing_is_refused(kept: Kept, server: Sshd) -> None:
    kept.machine(server.endpoint)
    kept.journal.release(kept.journal.claims()[0])
    kept.end()
    ran = kept.ssh("latest")
    assert ran.returncode == 2
    assert "run 7f3a91c2 has no machine that was kept: it failed, and its instances were deleted" in ran.stderr
    assert "--keep-on-failure" in ran.stderr


def test_a_build_that_has_no_machine_yet_is_refused(kept: Kept) -> None:
    ran = kept.ssh("latest")
    kept.journal.close()
    assert "is in progress, and has no machine yet that accepts a login" in ran.stderr


def test_an_instance_that_is_gone_is_named_with_its_state(kept: Kept, server: Sshd) -> None:
    id = kept.machine(server.endpoint)
    kept.end()
    kept.account.cloud.client().terminate_instances(InstanceIds=[id])
    ran = kept.ssh("latest")
    assert ran.returncode == 6
    assert f"error: logging in to {id} in us-east-1: the instance is " in ran.stderr
    assert "imagepipe clean 7f3a91c2" in ran.stderr


def test_a_key_that_is_gone_is_named(kept: Kept, server: Sshd, tmp_path: Path) -> None:
    kept.machine(replace(server.endpoint, private_key=str(tmp_path / "gone")))
    kept.end()
    ran = kept.ssh("latest")
    assert ran.returncode == 6
    assert f"the private key {tmp_path / 'gone'} does not exist" in ran.stderr


def test_a_cloud_that_does_not_answer_is_only_a_warning(kept: Kept, server: Sshd) -> None:
    kept.machine(server.endpoint)
    kept.end()
    ran = kept.ssh("latest", "--", "echo", "here", AWS_ACCESS_KEY_ID="unknown", AWS_SECRET_ACCESS_KEY="unknown")
    assert ran.stdout == "here\n"


def test_a_computer_without_ssh_is_told_what_to_install(kept: Kept, server: Sshd, tmp_path: Path) -> None:
    kept.machine(server.endpoint)
    kept.end()
    (tmp_path / "bin").mkdir()
    ran = kept.ssh("latest", PATH=str(tmp_path / "bin"))
    assert ran.returncode == 2
    assert "the program ssh was not found" in ran.stderr


def test_the_host_keys_are_in_the_folder_of_the_run(kept: Kept, server: Sshd) -> None:
    kept.machine(server.endpoint)
    kept.end()
    kept.ssh("latest", "--", "true")
    lines = (kept.folder / "known_hosts").read_text().splitlines()
    assert lines == [f"[127.0.0.1]:{server.endpoint.port} {server.endpoint.host_key}"]


def test_a_host_key_that_was_accepted_at_the_first_login_is_expected_from_then_on(kept: Kept, server: Sshd) -> None:
    kept.machine(replace(server.endpoint, host_key=None))
    kept.end()
    assert kept.ssh("latest", "--", "echo", "here").stdout == "here\n"
    file = kept.folder / "known_hosts"
    assert file.read_text()
    other = " ".join(keys.generate("other").public.split()[:2])
    file.write_text(f"[127.0.0.1]:{server.endpoint.port} {other}\n")
    ran = kept.ssh("latest", "--", "echo", "here")
    assert (ran.stdout, ran.returncode) == ("", 255)
