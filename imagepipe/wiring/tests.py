"""Translate the kinds of test that only `test` has into stages."""

from __future__ import annotations

from typing import assert_never

from imagepipe.cloud.images import SourceImage
from imagepipe.engine.stage import Ref
from imagepipe.late import Late
from imagepipe.provision.checks.check import Check, CheckOptions
from imagepipe.provision.checks.command import CheckCommand
from imagepipe.provision.checks.content import ExpectedText
from imagepipe.provision.checks.http import CheckHttp
from imagepipe.provision.checks.package import CheckPackage
from imagepipe.provision.checks.path import CheckPath
from imagepipe.provision.checks.port import CheckPort
from imagepipe.provision.checks.service import CheckService
from imagepipe.spec.tests import (
    CommandTest,
    HttpTest,
    OutputText,
    PackageTest,
    PathTest,
    PlainTest,
    PortTest,
    ServiceTest,
)
from imagepipe.spec.titles import step_title
from imagepipe.values import Reachable
from imagepipe.wiring.build import ImageBuild


def check_stage(
    build: ImageBuild,
    test: PlainTest,
    where: str,
    machine: Ref[Reachable],
    source: Ref[SourceImage],
    when: tuple[Late, ...],
) -> Check:
    """Return the stage of a test."""
    ssh = build.spec.launch.ssh
    options = CheckOptions(
        title=step_title(test),
        where=where,
        within_seconds=test.within,
        sudo=ssh.user != "root" and (ssh.sudo if test.sudo is None else test.sudo),
        when=when,
    )
    base = (build.ec2, build.tools.connections, machine, source, options)
    match test:
        case HttpTest(http=http):
            text = ExpectedText(http.contains, http.matches)
            return CheckHttp(
                *base,
                url=http.url,
                status=http.status,
                text=text,
                method=http.method,
                insecure=http.insecure,
                headers=http.headers,
            )
        case PortTest(port=port):
            return CheckPort(*base, port=port.port, host=port.host, protocol=port.protocol, state=port.state)
        case PackageTest(package=package):
            is_installed = package.state == "installed"
            return CheckPackage(*base, name=package.name, version=package.version, is_installed=is_installed)
        case ServiceTest(service=service):
            return CheckService(*base, name=service.name, state=service.expected_state, enabled=service.enabled)
        case PathTest(path=path):
            text = ExpectedText(path.contains, path.matches)
            return CheckPath(
                *base,
                path=path.path,
                type=path.type,
                mode=path.mode,
                owner=path.owner,
                text=text,
                sha256=path.sha256,
                is_absent=path.absent,
            )
        case CommandTest(command=command):
            return CheckCommand(
                *base,
                command=command.command,
                exit_codes=command.exit_code,
                stdout=_expected(command.stdout),
                stderr=_expected(command.stderr),
                env=test.env,
            )
        case _:
            assert_never(test)


def _expected(output: OutputText | None) -> ExpectedText:
    return ExpectedText() if output is None else ExpectedText(output.contains, output.matches, output.equals)
