"""The hygiene scan of a build: on the captured disks if they can be read here, otherwise on the running machines."""

from __future__ import annotations

from imagepipe.capture.known_files import KnownFiles
from imagepipe.capture.scan.gate import Allowed, Gate
from imagepipe.capture.scan.stages import CheckNewInstance
from imagepipe.cloud.images import SourceImage
from imagepipe.engine.stage import Ref
from imagepipe.values import Reachable
from imagepipe.wiring.build import ImageBuild


def gate_of(build: ImageBuild) -> Gate:
    """Return the gate of a build: the exceptions in `hygiene.allow`, and the secrets to search for."""
    allow = build.spec.hygiene.allow
    exceptions = tuple(Allowed(each.path, each.rule, each.reason) for each in allow)
    return Gate(exceptions, tuple(sorted(build.loaded.secrets)))


def known_files(build: ImageBuild) -> KnownFiles:
    """Return the files that scans of earlier builds found clean."""
    ssh = build.spec.launch.ssh
    return KnownFiles(build.tools.scans, own_key=bool(ssh.key_pair and ssh.private_key))


def check_new_instance(
    build: ImageBuild, machine: Ref[Reachable], source: Ref[SourceImage], image: Ref[SourceImage]
) -> CheckNewInstance | None:
    """Scan the test instance; None if the captured disks were scanned."""
    if build.tools.offline is not None:
        return None
    return CheckNewInstance(build.tools.connections, machine, source, image, gate_of(build), known_files(build))
