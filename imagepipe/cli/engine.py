"""`imagepipe build --engine temporal://…`: pack the specs, start the build on the server, and follow it."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from imagepipe.cli.build_options import BuildOptions
from imagepipe.cli.build_values import git_sha
from imagepipe.cli.cloud import cloud_target, open_cloud
from imagepipe.cli.loading import load_buildable, stored_variables
from imagepipe.cli.options import NamedSpecs, check_region, read_variables
from imagepipe.cli.output_format import print_json
from imagepipe.cli.state import check_writable, open_bucket_store
from imagepipe.cli.state_options import check_state_of_specs, location_of
from imagepipe.cli.worker import check_installed
from imagepipe.clock import SystemClock
from imagepipe.dataclass import dataclass
from imagepipe.errors import StageError, UndoFailed, UsageError
from imagepipe.inputs.files import files_of, place_of
from imagepipe.names import DEFAULT_QUEUE
from imagepipe.spec.bundle_rules import bundle_files
from imagepipe.spec.document import KeyPath
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import InstanceStoreOutput
from imagepipe.spec.variables import ENVIRONMENT_PREFIX, Given, resolve
from imagepipe.state.packages import store_package
from imagepipe.temporal.connection import Server
from imagepipe.temporal.messages import BuildRequest, BuildResult, Job, Limit, Progress
from imagepipe.wiring.family import bases_first, limits_of

BUILD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class _Work:
    """The specs of a build, and everything that the workers need beside the specs."""

    loaded: Sequence[LoadedSpec]
    named: NamedSpecs
    given: Given
    options: BuildOptions

    def values(self, timestamp: str, root: Path) -> dict[str, Any]:
        """Return the values of the package; `root` is the folder that contains all files of it."""
        options = self.options
        return {
            "folder": str(Path.cwd()),
            "named": [str(each.key) for each in self.loaded if each.is_named],
            "specs": {str(each.key): self._values_of(each, root) for each in self.loaded},
            "region": options.cloud.region,
            "timestamp": timestamp,
            "git_sha": git_sha(self.named.files[0].resolve().parent)[0],
            "force": options.selection.force,
            "timeout": options.run_options.timeout and options.run_options.timeout.total_seconds(),
        }

    def _values_of(self, spec: LoadedSpec, root: Path) -> dict[str, Any]:
        """Return the values for one spec and its bases: another spec's secrets may be on other workers only."""
        family = [spec, *spec.bases()]
        return {
            "files": list(dict.fromkeys(os.path.relpath(place_of(each.file), root) for each in family)),
            "variables": stored_variables(self.given, family),
            "environment": sorted(_sensitive_environment(family)),
        }


def build_on_temporal(options: BuildOptions) -> int:
    """Bake on the workers of a Temporal server; return the exit code."""
    check_installed()
    from imagepipe.temporal.client import build

    clock = SystemClock()
    server = Server.parse(str(options.engine.engine))
    build_id = secrets.token_hex(4) if options.engine.build_id is None else options.engine.build_id
    _check(options, build_id)
    work = _work(options)
    check_state_of_specs(options.state, work.loaded)
    location = location_of(options.state)
    if location is None:
        raise UsageError(
            "a build on Temporal keeps its runs in shared state, and no bucket is named",
            hint="pass --state s3://BUCKET/PREFIX, or set `state` in imagepipe.yaml",
        )
    files = files_of(work.loaded)
    with ExitStack() as stack:
        target = cloud_target(options.cloud)
        regions = stack.enter_context(open_cloud(target, region=options.cloud.region, clock=clock))
        target = target.with_account(regions)
        bucket, store = stack.enter_context(open_bucket_store(location, target, clock))
        check_writable(bucket)
        jobs = _jobs(work.loaded)

        def request() -> BuildRequest:
            count = f"{len(jobs)} spec{'s' * (len(jobs) != 1)}"
            echo(f"build {build_id} on {server}: {count}; to follow it again: {again}")
            timestamp = clock.now().strftime("%Y%m%dT%H%M%SZ")
            digest = store_package(
                bucket, clock, files.paths, lambda root: work.values(timestamp, root), followed=files.followed
            )
            return BuildRequest(
                str(location),
                location.kms_key,
                target.record(),
                digest,
                jobs,
                [Limit(sorted(each.groups), each.at_once) for each in limits_of(work.loaded)],
                options.run_options.fail_fast,
            )

        def echo(line: str) -> None:
            if not options.run_options.shown.is_quiet:
                click.echo(line, file=options.run_options.log)

        again = f"the same command with --build-id {build_id}"
        queues = {job.spec: job.queue for job in jobs}
        end = asyncio.run(build(server, os.environ, build_id, request, queues, echo))
        failed = [each.run for each in end.result.progress if each.state == "failed"]
        begun = {run for run in failed if store.journal(run).records}
    _print(end.result.baked, end.result.progress, options)
    if end.is_detached:
        goes = "is being cancelled" if end.is_cancelled else "goes on"
        click.echo(f"build {build_id} {goes}; to follow it: {again}", err=True)
        return 130
    code = explain(end.result, begun, f"{' --local' if options.cloud.is_local else ''} --state {location}")
    if end.is_cancelled:
        what = "every bake has cleaned up" if code == 0 else "see above for what it left"
        click.echo(f"error: build {build_id} was cancelled; {what}", err=True)
        return 130
    if any(each.state != "baked" for each in end.result.progress):
        return code or StageError.exit_code
    return code


def _check(options: BuildOptions, build_id: str) -> None:
    """Raise UsageError for options that a build on Temporal does not have."""
    if not BUILD_ID.fullmatch(build_id):
        raise UsageError(
            f"--build-id {build_id}: not an id", hint="use letters, digits, '.', '_' and '-', at most 100 of them"
        )
    given = options.run_options
    is_kept = given.keep_on_failure is not None
    refused = (options.plan_file, given.junit, given.report, given.otlp, given.shown.log_file, is_kept)
    if any(refused):
        raise UsageError(
            "--plan, --junit, --report, --otlp, --log-file and --keep-on-failure cannot be combined with --engine"
        )
    if not options.specs:
        raise UsageError("SPEC is missing: name a spec, or a folder with specs")


def _work(options: BuildOptions) -> _Work:
    """Load the specs. Raises SpecError, UsageError."""
    given = read_variables(options.variables)
    named = NamedSpecs.of(options.specs)
    loaded = bases_first(load_buildable(named, given, None, options.selection))
    for spec in loaded:
        declared = spec.checked().variables
        for name, variable in declared.items():
            if variable.sensitive and (name in given.command_line or name in given.files):
                raise UsageError(
                    f"variable '{name}' of {spec.key} is sensitive, and does not travel to the workers",
                    hint=f"set {ENVIRONMENT_PREFIX}{name} in the environment of the workers",
                )
        if missing := {
            name: how for name, how in resolve(declared, given).missing.items() if not declared[name].sensitive
        }:
            name, how = next(iter(missing.items()))
            raise UsageError(f"variable '{name}' of {spec.key} has no value", hint=how)
        for path, file in _key_files(spec).items():
            if not file.startswith(("/", "~")):
                raise UsageError(
                    f"{'.'.join(map(str, path))} of {spec.key} is {file}, beside the spec; keys do not travel to the"
                    " workers",
                    hint="write a path that begins with / or ~, and put the file there on every worker",
                )
    if options.cloud.region:
        check_region(options.cloud.region, loaded)
    return _Work(loaded, named, given, options)


def _key_files(spec: LoadedSpec) -> dict[KeyPath, str]:
    """Return the keys and certificates that a spec names, by their paths in the spec."""
    checked = spec.checked()
    ssh, output = checked.launch.ssh, checked.output
    found = bundle_files(output) if isinstance(output, InstanceStoreOutput) else {}
    if ssh.private_key:
        found["launch", "ssh", "private_key"] = ssh.private_key
    if ssh.bastion:
        found["launch", "ssh", "bastion", "private_key"] = ssh.bastion.private_key
    return found


def _sensitive_environment(loaded: Sequence[LoadedSpec]) -> set[str]:
    """Return the names of the environment variables that may set sensitive variables."""
    names: set[str] = set()
    for spec in loaded:
        for name, variable in spec.checked().variables.items():
            if variable.sensitive:
                names |= {f"{ENVIRONMENT_PREFIX}{name}", *([variable.env] if variable.env else [])}
    return names


def _jobs(loaded: Sequence[LoadedSpec]) -> list[Job]:
    keys = {str(each.key) for each in loaded}

    def base(spec: LoadedSpec) -> str | None:
        key = str(spec.base_spec.key) if spec.base_spec else None
        return key if key in keys else None

    return [Job(str(each.key), secrets.token_hex(4), _queue(each), base(each)) for each in loaded]


def _queue(spec: LoadedSpec) -> str:
    engine = spec.checked().engine
    return engine.queue if engine else DEFAULT_QUEUE


def _print(baked: Sequence[Any], progress: Sequence[Progress], options: BuildOptions) -> None:
    """Print the images on standard output."""
    images = [image for each in baked for image in each.images]
    if options.run_options.output == "json":
        runs = {each.spec: each.run for each in progress}
        failed = [
            {"spec": each.spec, "run": each.run, "state": each.state, "error": each.text}
            for each in progress
            if each.state != "baked"
        ]
        regions = [row for each in baked for row in each.failed_regions]
        print_json({"runs": runs, "images": images, "failed": failed, "failed_regions": regions})
        return
    for image in images:
        unchanged = ", unchanged" if image["unchanged"] else ""
        click.echo(f"{image['image_id']}  {image['region']:<14}  {image['name']}  ({image['spec']}{unchanged})")


def explain(result: BuildResult, begun: Collection[str], where: str) -> int:
    """Print the errors, and the resources that are left; return the exit code.

    `begun` has the failed runs that began, and can be shown; `where` has the options for `show`.
    """
    failed = [each for each in result.progress if each.state == "failed"]
    held = [each for each in result.baked if each.held]
    for each in failed:
        click.echo(f"error: {each.spec}: {each.text.removeprefix('error: ')}", err=True)
        if each.run in begun:
            click.echo(f"  hint: imagepipe show {each.run}{where}", err=True)
    for each in result.progress:
        if each.state == "left out":
            click.echo(f"not built: {each.spec}, because its base {each.failed_base} failed", err=True)
    for baked in held:
        click.echo(f"error: {baked.spec}: {baked.held}", err=True)
        click.echo(f"  hint: imagepipe clean {baked.run}{where}", err=True)
    if failed:
        return StageError.exit_code
    return UndoFailed.exit_code if held else 0
