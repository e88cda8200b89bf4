"""`imagepipe demo`: bake a sample on the local cloud, launch an instance of its image, and fetch its page."""

from __future__ import annotations

import http.client
import json
import secrets
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import click

from imagepipe.cli.cloud import CloudTarget, local_store, open_cloud
from imagepipe.clock import Deadline, SystemClock
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.instances import LaunchRequest
from imagepipe.communicator import keys
from imagepipe.engine.cancel import Cancel
from imagepipe.errors import ImagepipeError
from imagepipe.spec.find import demo_spec

PAGE_SECONDS = 240  # an emulated machine takes up to 85 s to a login; a plain user has no others


@click.command()
@click.argument("spec", required=False, metavar="[SPEC]")
def demo(spec: str | None) -> int:
    """Bake SPEC on the local cloud, launch an instance from the image and fetch its front page.

    Without SPEC, the sample web-server.yaml that comes with imagepipe is baked. The instance is launched in the last
    region that the image was copied to, and terminated afterwards; the images are kept.
    """
    began = time.monotonic()
    clock = SystemClock()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up, as Ctrl-C does
    with open_cloud(CloudTarget(local=local_store()), region=None, clock=clock) as regions:
        code, printed = _build(spec or str(demo_spec()))
        if code:
            return code
        result = json.loads(printed)
        images = result["images"]
        image = images[-1]
        ec2 = regions[image["region"]]
        click.echo(f"\nlaunching an instance from {image['image_id']} in {image['region']}")
        with _instance(ec2, image["image_id"], clock) as address:
            page = _fetch(f"http://{address}:{ec2.host_ports.of(80)}/")
    for line in page.strip().splitlines():
        click.echo(f"  | {line}")
    click.echo(f"\n{image['name']} serves its page. {time.monotonic() - began:.0f} s in all.\n")
    for each in images:
        click.echo(f"{each['image_id']}  {each['region']:<14}  {each['name']}")
    command = shlex.quote(sys.argv[0])
    click.echo(
        f"""
Next:
  {command} local images                 the images of the local cloud
  {command} show {result["run"]}                the output of the build
  {command} build SPEC --local           bake a spec of your own: docs/tutorial.md
  {command} local serve                  the same cloud for the AWS CLI, Packer or Terraform"""
    )
    return 0


def _build(spec: str) -> tuple[int, str]:
    """Run a build as a user does; return its exit code and standard output."""
    with subprocess.Popen(
        [sys.executable, "-m", "imagepipe.cli.main", "build", spec, "--local", "--format", "json"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C reaches only this process, which passes it on once
    ) as process:
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:
            # `subprocess.run` would kill the build in the middle of its cleanup.
            process.terminate()
            process.communicate()
            raise
    return process.returncode, printed


@contextmanager
def _instance(ec2: Ec2, image: str, clock: SystemClock) -> Iterator[str]:
    """Launch an instance with port 80 open, yield its address, and terminate it afterwards."""
    token = f"demo-{secrets.token_hex(4)}"
    labels = {"Name": token, "imagepipe:token": token}
    vpc = ec2.subnets.default_vpc() or ""
    group = ec2.groups.create(token, vpc=vpc, description="imagepipe demo", token=token, tags=labels)
    key = ec2.keys.import_public(token, keys.generate(token).public, token=token, tags=labels)
    deadline, cancel = Deadline.after(PAGE_SECONDS, clock), Cancel(clock)
    try:
        ec2.groups.allow_ssh_from(group, port=80, cidrs=[ec2.caller_cidr()])
        request = LaunchRequest(image, "t3.small", None, (group,), token, b"", ())
        launched = ec2.instances.launch(request, client_token=token, instance_tags=labels, volume_tags=labels)
        id = str(launched["InstanceId"])
        try:
            yield ec2.poller.until(
                "instance",
                id,
                lambda seen: str(seen["PublicIpAddress"]) if seen and seen["State"]["Name"] == "running" else None,
                operation=f"waiting for {id} to run",
                deadline=deadline,
                cancel=cancel,
                state=lambda seen: str(seen["State"]["Name"]),
            )
        finally:
            ec2.instances.terminate(id)
            ec2.await_terminated(id, deadline=Deadline.after(PAGE_SECONDS, clock), cancel=cancel)
    finally:
        ec2.groups.delete(group)
        ec2.keys.delete(key)


def _fetch(url: str) -> str:
    """Return the page; retry until it is served."""
    last = "nothing yet"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not reach 127.42.x.y
    until = time.monotonic() + PAGE_SECONDS
    while time.monotonic() < until:
        try:
            with direct.open(url, timeout=5) as answer:
                body: bytes = answer.read(100_000)
                return body.decode("utf-8", "replace")
        except (http.client.HTTPException, OSError) as error:
            last = str(error)
        time.sleep(0.3)
    raise ImagepipeError(f"fetching {url} failed for {PAGE_SECONDS} s: {last}")
