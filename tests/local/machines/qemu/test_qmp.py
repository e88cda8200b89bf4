from __future__ import annotations

import gc
import socket
import threading
from pathlib import Path

import pytest

from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.qemu import qmp


@pytest.mark.parametrize("said", [b"", b'{"QMP": {}}\n', b'{"QMP": {}}\n{"error": {"desc": "no"}}\n'])
def test_a_qemu_that_ends_before_it_is_ready_is_an_error_and_leaves_no_open_socket(tmp_path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / qmp.SOCKET))
        listening.listen()

        def end_early() -> None:
            accepted, _ = listening.accept()
            with accepted:
                accepted.sendall(said)

        qemu = threading.Thread(target=end_early)
        qemu.start()
        with pytest.raises(MachineError):
            qmp.ask(tmp_path, "query-status")
        qemu.join()
    gc.collect()  # an open socket would be a warning, which is an error in tests
