"""User data on an instance: cloud-init itself takes it apart, and applies it, with every way to know the host key."""

from __future__ import annotations

import base64
import gzip
import json
import shlex

import pytest

from imagepipe.communicator import keys
from imagepipe.launch.user_data import user_data
from tests.machine.bakery import Bakery, Booted

pytestmark = pytest.mark.machine

READ = """
import base64, json, sys
from cloudinit import util
from cloudinit.user_data import UserDataProcessor
message = UserDataProcessor(None).process(base64.b64decode(sys.argv[1]))
parts = [part for part in message.walk() if not part.is_multipart()]
print(json.dumps([[part.get_content_type(), util.fully_decoded_payload(part)] for part in parts]))
"""
SCRIPT = "#!/bin/sh\necho größe\n"
CONFIG = "#cloud-config\nwrite_files: [{path: /srv/größe, content: 'größe: €'}]\n"
MIME = (
    'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n\n--x\nContent-Type: text/x-shellscript\n\n'
    f"{SCRIPT}\n--x\nContent-Type: text/cloud-config\n\n{CONFIG}\n--x--\n"
)
OWN = {
    "a script": (SCRIPT, [["text/x-shellscript", SCRIPT]]),
    "a config": (CONFIG, [["text/cloud-config", CONFIG]]),
    "line ends": ("#!/bin/sh\r\n: é\r\n", [["text/x-shellscript", "#!/bin/sh\r\n: é\r\n"]]),
    "gzip": (base64.b64encode(gzip.compress(CONFIG.encode(), mtime=0)).decode(), [["text/cloud-config", CONFIG]]),
    "mime": (MIME, [["text/x-shellscript", SCRIPT], ["text/cloud-config", CONFIG]]),
    "long": (f"{SCRIPT}# {'a' * 20000}\n", [["text/x-shellscript", f"{SCRIPT}# {'a' * 20000}\n"]]),
    "words of mime": (
        "#cloud-config\nx: 'MIME-Version: é'\n",
        [["text/cloud-config", "#cloud-config\nx: 'MIME-Version: é'\n"]],
    ),
}


@pytest.mark.parametrize("with_key", [True, False], ids=["with a host key", "alone"])
@pytest.mark.parametrize("name", OWN)
def test_cloud_init_reads_what_the_spec_gives(booted: Booted, name: str, *, with_key: bool) -> None:
    own, expected = OWN[name]
    data = user_data(keys.generate("x") if with_key else None, own)
    command = shlex.join(["python3", "-c", READ, base64.b64encode(data).decode()])
    found = json.loads(booted.sh(f"{command} 2>/dev/null"))
    assert found[1 if with_key else 0 :] == expected


@pytest.mark.parametrize("host_key", ["user-data", "console", "accept-new"])
@pytest.mark.parametrize("form", ["plain", "gzip"])
def test_it_is_applied_with_every_way_to_know_the_host_key(bakery: Bakery, host_key: str, form: str) -> None:
    own = CONFIG if form == "plain" else OWN["gzip"][0]
    spec = bakery.spec("own", "- shell: |\n    test \"$(cat /srv/größe)\" = 'größe: €'\n")
    launch = f"{{region: us-east-1, user_data: {json.dumps(own)}, ssh: {{host_key: {host_key}}}}}"
    spec.write_text(spec.read_text(encoding="utf-8").replace("{region: us-east-1}", launch), encoding="utf-8")
    bakery.build(spec)
