"""One process per store: found, started, given up, taken over."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from imagepipe.errors import LocalCloudError
from imagepipe.local.aws.protocol import paths
from imagepipe.local.client import connect as client
from imagepipe.local.client.connect import LocalCloud
from imagepipe.local.daemon import main, rendezvous
from imagepipe.local.store import Store
from imagepipe.values import HostPorts
from tests.local import fake_cloud

SECONDS = 120.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store")
    yield store
    if found := rendezvous.current(store):
        os.kill(found.pid, signal.SIGKILL)
        until(lambda: not found.is_alive())


def connect(store: Store, instances: int | str = 0) -> AbstractContextManager[LocalCloud]:
    return client.connect(store, prepare=lambda store, progress: None, command=fake_cloud.command(instances))


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=SECONDS) as response:
        body: bytes = response.read()
        return body


def starts(store: Store) -> int:
    return len((store.root / "starts").read_text().splitlines())


def serving_pid(store: Store) -> int:
    found = rendezvous.current(store)
    assert found is not None
    return found.pid


def test_the_first_client_starts_a_cloud_that_answers_on_loopback_alone(store: Store) -> None:
    with connect(store) as cloud:
        assert cloud.endpoint_url.startswith("http://127.0.0.1:")
        assert fetch(cloud.endpoint_url) == b"hello"
        keys = store.credentials()
        assert (cloud.access_key_id, cloud.secret_access_key) == (keys.access_key_id, keys.secret_access_key)
        port = int(cloud.endpoint_url.rpartition(":")[2])
        assert cloud.instance_endpoint_url == f"http://169.254.169.254:{port}", "where machines reach it"
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))  # taken, had it bound every address


def test_a_client_learns_from_the_cloud_which_ports_of_instances_are_open_at_an_offset(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(store) as cloud:
        assert cloud.host_ports == HostPorts(0)  # the cloud is root's, like this process
        found = rendezvous.current(store)
        assert found is not None
        rendezvous.announce(store, replace(found, first_real_port=1024))
        with connect(store) as second:
            assert second.host_ports.of(22) == 20022
            assert second.host_ports.of(8080) == 8080


def test_the_cloud_of_an_earlier_version_opens_all_ports_as_they_are(store: Store) -> None:
    with connect(store):
        found = json.loads(store.serving.read_text())
        del found["first_real_port"]
        store.serving.write_text(json.dumps(found))
        with connect(store) as second:
            assert second.host_ports.of(22) == 22


def test_a_second_client_finds_the_first_ones_cloud(store: Store) -> None:
    with connect(store) as first, connect(store) as second:
        assert first == second
    assert starts(store) == 1


def test_clients_that_start_at_once_share_one_cloud(store: Store) -> None:
    found: list[LocalCloud] = []
    leave = threading.Event()

    def use() -> None:
        with connect(store) as cloud:
            found.append(cloud)
            leave.wait(SECONDS)

    clients = [threading.Thread(target=use) for _ in range(6)]
    for each in clients:
        each.start()
    until(lambda: len(found) == 6)
    leave.set()
    for each in clients:
        each.join()
    assert len(set(found)) == 1
    assert starts(store) == 1


def test_it_ends_after_its_last_client(store: Store) -> None:
    with connect(store):
        pid = serving_pid(store)
        time.sleep(fake_cloud.IDLE_SECONDS * 3)
        assert serving_pid(store) == pid
    until(lambda: not rendezvous.is_locked(store.lock))
    assert rendezvous.current(store) is None
    assert (store.root / "closed").exists()


def test_it_stays_while_there_are_instances(store: Store) -> None:
    with connect(store, instances=1):
        pid = serving_pid(store)
    time.sleep(fake_cloud.IDLE_SECONDS * 3)
    assert serving_pid(store) == pid


def test_a_killed_client_no_longer_keeps_it(store: Store) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom imagepipe.local.client import connect\n"
        "from imagepipe.local.store import Store\n"
        f"store = Store.open(Path({str(store.root)!r}))\n"
        f"command = {fake_cloud.command(0)!r}\n"
        "with connect.connect(store, prepare=lambda *_: None, command=command):\n"
        "    print('connected', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"connected\n"
        client.kill()
    until(lambda: not rendezvous.is_locked(store.lock))


def test_after_a_kill_the_next_client_starts_another_on_the_same_port(store: Store) -> None:
    with connect(store) as cloud:
        pid = serving_pid(store)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not rendezvous.is_locked(store.lock))
        with connect(store) as again:
            assert again.endpoint_url == cloud.endpoint_url
            assert serving_pid(store) != pid
            assert fetch(cloud.endpoint_url) == b"hello"


def test_a_process_that_no_longer_answers_is_not_handed_out(store: Store) -> None:
    with connect(store) as cloud:
        pid = serving_pid(store)
        os.kill(pid, signal.SIGSTOP)  # as one that was sent SIGKILL and has not died yet: there, with its lock
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with connect(store) as again:
            assert serving_pid(store) != pid
            assert fetch(again.endpoint_url) == b"hello"
            assert again.endpoint_url == cloud.endpoint_url
        killer.join()


def test_it_comes_back_on_the_same_port_after_an_orderly_end(store: Store) -> None:
    with connect(store) as cloud:
        client.stop(store, terminate=lambda cloud: None)
        with connect(store) as again:
            assert again.endpoint_url == cloud.endpoint_url


def test_where_its_port_was_taken_meanwhile_it_takes_another(store: Store) -> None:
    with connect(store) as cloud:
        os.kill(serving_pid(store), signal.SIGKILL)
        until(lambda: not rendezvous.is_locked(store.lock))
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", int(cloud.endpoint_url.rpartition(":")[2])))
            other.listen()
            with connect(store) as again:
                assert again.endpoint_url != cloud.endpoint_url


def test_why_it_cannot_start_reaches_the_client(store: Store) -> None:
    with pytest.raises(LocalCloudError, match="it cannot be") as refused, connect(store, instances="fail"):
        pass
    assert refused.value.hint == "try another"


def test_an_error_at_its_start_is_reported_and_logged(store: Store) -> None:
    with pytest.raises(LocalCloudError, match="RuntimeError: a bug") as refused, connect(store, instances="crash"):
        pass
    assert str(store.log) in str(refused.value.hint)
    assert "Traceback" in store.log.read_text()


def test_a_process_that_ends_without_a_word_is_an_error(store: Store) -> None:
    with (
        pytest.raises(LocalCloudError, match="ended without a word"),
        client.connect(store, prepare=lambda *_: None, command=[sys.executable, "-c", "0", "--"]),
    ):
        pass


def test_a_port_that_is_asked_for_and_taken_is_an_error(store: Store) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LocalCloudError, match=f"port {port} of 127.0.0.1"):
            main.serve(store, port=port, ready=lambda _: None, stop=threading.Event())


def test_a_second_process_for_one_store_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "LOCK_SECONDS", 0.2)
    with connect(store), pytest.raises(LocalCloudError, match="one runs already at http:"):
        main.serve(store, port=None, ready=lambda _: None, stop=threading.Event())


def test_status_says_where_and_how_much(store: Store) -> None:
    assert client.status(store) is None
    with connect(store, instances=3) as cloud:
        said = client.status(store)
        assert said is not None
        assert said.endpoint_url == cloud.endpoint_url
        assert (said.instances, said.used_bytes, said.driver) == (3, 42, "fake")


def test_a_cloud_that_runs_with_another_driver_than_is_asked_for_is_not_taken(store: Store) -> None:
    with connect(store):
        same, other = replace(store, driver="fake"), replace(store, driver="container")
        with client.connect(same):
            pass
        with (
            pytest.raises(LocalCloudError, match="runs already, with the driver fake and not container"),
            connect(other),
        ):
            pass


def test_its_own_paths_need_the_secret(store: Store) -> None:
    with connect(store) as cloud, pytest.raises(urllib.error.HTTPError) as refused:
        fetch(cloud.endpoint_url + paths.PREFIX + "status")
    with refused.value:
        assert refused.value.code == 403


def test_stop_ends_it_in_order(store: Store) -> None:
    with connect(store):
        pass
    assert client.stop(store)
    assert not rendezvous.is_locked(store.lock)
    assert (store.root / "closed").exists()
    assert not client.stop(store)


def test_stop_refuses_while_somebody_uses_it_unless_by_force(store: Store) -> None:
    with connect(store) as cloud:
        with pytest.raises(LocalCloudError, match="a build, or another command, uses it"):
            client.stop(store)
        assert fetch(cloud.endpoint_url) == b"hello"
        assert client.stop(store, terminate=lambda cloud: None)


def test_stop_refuses_while_there_are_instances_unless_it_may_terminate_them(store: Store) -> None:
    with connect(store, instances=2):
        with pytest.raises(LocalCloudError, match="2 instances still there"):
            client.stop(store)
        assert rendezvous.current(store) is not None
        assert client.stop(store, terminate=lambda cloud: (store.root / "terminated").touch())
        assert rendezvous.current(store) is None


def test_waiting_for_another_starter_is_reported_once(store: Store) -> None:
    said: list[str] = []
    for _ in range(2):
        with client.connect(
            store, progress=said.append, prepare=lambda store, progress: None, command=fake_cloud.command(1)
        ):
            pass
    assert said == ["starting the local cloud"]


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"],
    ids=["nothing", "half a head", "a head without its body", "another protocol"],
)
def test_an_answer_that_is_cut_short_is_an_error_of_the_local_cloud(store: Store, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_once() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=serve_once)
        thread.start()
        with pytest.raises(LocalCloudError, match="asking the local cloud"):
            client._ask(store, rendezvous.Serving.this_process(listener.getsockname()[1]), "alive")
        thread.join()
