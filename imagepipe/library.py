"""imagepipe as a library: load specs, plan a build, build, and follow the build by its events. Prints nothing.

`plan` and `build` run the code of the commands with these names. The libraries of clouds are loaded when they are
called, so that a program which only checks specs starts fast.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import field, replace
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from imagepipe.cli.build_values import current_build, record_for_resume
from imagepipe.cli.loading import Selection, check_this_computer, load_named
from imagepipe.cli.options import CloudOptions, NamedSpecs, check_region
from imagepipe.cli.state_options import StateOptions, check_state_of_specs
from imagepipe.clock import SystemClock
from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.engine.cancel import Cancel
from imagepipe.errors import Cancelled, ImagepipeError, Problem, StageError, UsageError
from imagepipe.spec.explain import did_you_mean
from imagepipe.spec.load import SAMPLE_BUILD, refuse
from imagepipe.spec.selection import narrow
from imagepipe.spec.variables import Given, Unquoted

if TYPE_CHECKING:
    from imagepipe.cli.cloud import CloudTarget
    from imagepipe.cli.run import Run
    from imagepipe.cloud.ec2 import Regions
    from imagepipe.engine.executor import Outcome
    from imagepipe.engine.journal_store import JournalStore
    from imagepipe.planning.document import PlanDocument
    from imagepipe.spec.load import Build
    from imagepipe.spec.loaded import LoadedSpec
    from imagepipe.state.bucket import StateBucket
    from imagepipe.wiring.build import Baked

logging.getLogger("imagepipe").addHandler(logging.NullHandler())  # else Python prints warnings on standard error
log = logging.getLogger(__name__)

Event: TypeAlias = ev.AnyEvent
"""An event of a build: one of the classes in `Events`."""


class Events:
    """The classes of events, for `match` and `isinstance`: `case Events.StageFinished(): ...`."""

    RunStarted: TypeAlias = ev.RunStarted
    StagePlanned: TypeAlias = ev.StagePlanned
    StageStarted: TypeAlias = ev.StageStarted
    Line: TypeAlias = ev.Line
    Progress: TypeAlias = ev.Progress
    Span: TypeAlias = ev.Span
    Finding: TypeAlias = ev.Finding
    Held: TypeAlias = ev.Held
    Released: TypeAlias = ev.Released
    StageFinished: TypeAlias = ev.StageFinished
    StageFailed: TypeAlias = ev.StageFailed
    RunFinished: TypeAlias = ev.RunFinished


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """The cloud to plan for or to build in: AWS with the credentials of the environment, if no field is set."""

    local: bool = False
    """True for the local cloud on this computer, which is started if it is not running."""
    region: str | None = None
    """Region to build in, instead of the spec's."""
    profile: str | None = None
    """AWS profile."""
    endpoint_url: str | None = None
    """EC2 endpoint, instead of AWS's."""
    role: str | None = None
    """ARN of a role to assume."""


_AWS = Cloud()


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of `load_specs`."""

    named: NamedSpecs
    given: Given
    selection: Selection


@dataclass(frozen=True, slots=True)
class Specs:
    """Specs without errors, for `plan` and `build`, which read the files again."""

    names: tuple[str, ...]
    """Names of the specs and of the bases they need; with their variants, if they have any: `web[release=bookworm]`."""
    files: tuple[Path, ...]
    warnings: tuple[Problem, ...]
    """Problems that do not prevent a build."""
    _request: _Request = field(repr=False)


def load_specs(
    *paths: str | os.PathLike[str],
    variables: Mapping[str, str | int | float | bool] | None = None,
    only: Sequence[str] = (),
    with_dependents: bool = False,
    force: bool = False,
) -> Specs:
    """Read and check specs. Contacts no cloud.

    A path is that of a spec or of a folder, or the name of a file in `specs/`; a variant of a matrix may follow in
    brackets. `variables` take precedence over the environment. `only` names the specs to build among those in the
    files, `with_dependents` adds all that are built on them, and `force` bakes them even if nothing has changed.

    Raises SpecError with every problem of all specs, and UsageError for a variable or a name that no spec has.
    """
    if not paths:
        raise UsageError("no path was given to load_specs", hint="pass the path of a spec, or of a folder with specs")
    chosen = (only,) if isinstance(only, str) else tuple(only)
    given = Given(files=_typed(variables or {}), environment=dict(os.environ))
    named = NamedSpecs.of([os.fspath(path) for path in paths])
    request = _Request(named, given, Selection(chosen, with_dependents, force))
    loaded = _load(request, current_build(secrets.token_hex(4), named.files, SystemClock()))
    return Specs(
        tuple(str(spec.key) for spec in loaded),
        tuple(dict.fromkeys(spec.file for spec in loaded)),
        tuple(dict.fromkeys(problem for spec in loaded for problem in spec.problems)),
        request,
    )


def _typed(variables: Mapping[str, str | int | float | bool]) -> dict[str, str | int | float | bool | Unquoted]:
    """Return variables as a variable file would have them. Raises UsageError for a value of another type."""
    found: dict[str, str | int | float | bool | Unquoted] = {}
    for name, value in variables.items():
        if not isinstance(value, str | int | float):
            raise UsageError(f"variable '{name}': a value is a string, a number or a boolean, not {value!r}")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        found[name] = value if isinstance(value, str) else Unquoted(value, text)
    return found


def _load(request: _Request, build: Build) -> list[LoadedSpec]:
    loaded = load_named(request.named, request.given, build, request.selection)
    refuse(loaded)
    known = sorted({name for spec in loaded for name in spec.checked().variables})
    for name in request.given.files:
        if name not in known:
            raise UsageError(
                f"no spec has a variable '{name}'{did_you_mean(name, known)}",
                hint=f"known variables: {', '.join(known) or 'none'}",
            )
    return narrow(loaded, request.selection.only, with_dependents=request.selection.with_dependents)


@dataclass(frozen=True, slots=True)
class PlannedSpec:
    """The decision for one spec."""

    spec: str
    action: Literal["bake", "use"]
    """`use` if images with the same inputs exist."""
    reason: str
    source_image: str | None
    """Id of the source image; None if it is the image of a base that is baked in the same build."""
    images: Mapping[str, str]
    """Ids by region of the images that are used; empty if the spec is baked."""
    seconds: float | None
    """Duration of the last bake on this computer; None if it is not known."""


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One thing that a build would do."""

    spec: str
    verb: str
    """`find`, `launch`, `create`, `upload`, `copy`, `share`, `write`, `change`, `replace` or `retire`."""
    what: str
    region: str | None
    is_temporary: bool
    """True if the resource is deleted at the end of the build."""

    def __str__(self) -> str:
        place = f" {'to' if self.verb == 'copy' else 'in'} {self.region}" if self.region else ""
        return f"{self.verb} {self.what}{place}{' (temporary)' if self.is_temporary else ''}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a build would do."""

    specs: tuple[PlannedSpec, ...]
    actions: tuple[PlannedAction, ...]
    changes: bool
    """True if the build would create or change anything that stays."""
    seconds: float | None
    """Expected duration of the build; None if it is not known."""
    _json: Mapping[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the document that `imagepipe plan --format json` prints; it has the cost, too."""
        return dict(self._json)


def plan(specs: Specs, *, cloud: Cloud = _AWS, state: str | None = None) -> Plan:
    """Find out what `build` with the same arguments would do, and why; change nothing.

    Raises SpecError, UsageError, CloudError and LocalCloudError.
    """
    from imagepipe.cli.plan import Planner, request_of
    from imagepipe.planning.prices import load_prices

    request = specs._request
    loaded = _load(request, SAMPLE_BUILD)
    target, region = _target(cloud), cloud.region
    if region:
        check_region(region, loaded)
    prices = load_prices(Path(file) if (file := os.environ.get("IMAGEPIPE_PRICES")) else None)
    with _opened(target, region, _state(state), lambda bucket: None) as (regions, store):
        record = target.with_account(regions).record()
        stored = request_of(loaded, request.given, region, record, force=request.selection.force)
        return _plan_of(Planner(regions, region, store).plan(loaded, stored, prices))


def _plan_of(document: PlanDocument) -> Plan:
    specs = [
        PlannedSpec(
            each.spec,
            each.action,
            each.reason,
            each.source or None,
            dict(each.existing.images) if each.existing else {},
            document.seconds.get(each.spec),
        )
        for each in document.decisions
    ]
    actions = [
        PlannedAction(each.spec, each.verb, each.what, each.region or None, each.is_temporary)
        for each in document.actions
    ]
    return Plan(tuple(specs), tuple(actions), document.changes, document.total_seconds, document.to_json())


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image in one region."""

    spec: str
    region: str
    image_id: str
    name: str
    snapshots: tuple[str, ...]
    bundle: str | None
    """Location of an instance-store image's manifest; None if the image is EBS-backed."""
    is_unchanged: bool
    """True if the image is one of an earlier build, because nothing has changed since."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage that failed."""

    spec: str
    stage: str
    message: str
    hint: str | None
    region: str | None = None
    """The region that failed, if the others went on without it."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The end of a build."""

    run: str
    """Id of the run, for `imagepipe show`, `clean` and `resume`."""
    outcome: Literal["succeeded", "failed", "cancelled"]
    images: tuple[BuiltImage, ...]
    """Images of the specs that succeeded, in every region."""
    failures: tuple[Failure, ...] = ()
    """Failed stages in order of time: the first is the cause."""
    failed_regions: tuple[Failure, ...] = ()
    """Failures in regions that may fail alone; the build succeeds without them."""
    unfinished: tuple[str, ...] = ()
    """Specs without an image: they failed, were stopped, or are built on one that failed."""
    held: tuple[str, ...] = ()
    """Resources that could not be deleted; `imagepipe clean RUN` tries again."""
    stop_reason: str | None = None
    """The reason why the build was stopped, such as its timeout; None if it was not."""
    subscriber_error: Exception | None = None
    """The exception that `on_event` raised; it was not called again after that."""

    @property
    def ok(self) -> bool:
        """True if every image is available, and nothing is left over: the command would exit with 0."""
        return self.outcome == "succeeded" and not self.held

    def check(self) -> BuildResult:
        """Return this result if it is ok. Raises BuildError with the cause, its hint and the resources still held."""
        if not self.ok:
            raise BuildError(self)
        return self


class BuildError(ImagepipeError):
    """A build failed, was stopped, or left something over. Raised by `BuildResult.check` alone."""

    exit_code = StageError.exit_code

    def __init__(self, result: BuildResult) -> None:
        super().__init__(_message(result), hint=_hint(result))
        self.result = result


def _message(result: BuildResult) -> str:
    parts = []
    if result.failures:
        cause, more = result.failures[0], len(result.failures) - 1
        others = f" ({more} more {'failure' if more == 1 else 'failures'})" if more else ""
        parts.append(f"{cause.stage}: {cause.message}{others}")
    if result.stop_reason:
        parts.append(result.stop_reason)
    if result.held:
        parts.append(f"still held: {', '.join(result.held)}")
    return f"run {result.run} {result.outcome}: {'; '.join(parts)}"


def _hint(result: BuildResult) -> str | None:
    if result.failures and result.failures[0].hint:
        return result.failures[0].hint
    return f"to delete what is held: imagepipe clean {result.run}" if result.held else None


def build(
    specs: Specs,
    *,
    cloud: Cloud = _AWS,
    state: str | None = None,
    on_event: Callable[[Event], None] | None = None,
    timeout: timedelta | None = None,
    keep_on_failure: timedelta | None = None,
    fail_fast: bool = False,
) -> BuildResult:
    """Bake the images of specs, and clean up after a failure. A failed build does not raise: see `BuildResult`.

    `on_event` is called in the thread that called `build`, for one event after the other. It may be slow. If it raises
    an Exception, the build continues without it.

    KeyboardInterrupt, SystemExit, or any exception of a signal handler stops the build: everything that it created is
    deleted, and the exception is raised again after that. A second one is raised at once, and `imagepipe clean` deletes
    the rest. `build` installs no signal handlers.

    `state` is `s3://BUCKET/PREFIX` or `local`, as in `--state`. The machine of a failed build is kept for the time in
    `keep_on_failure`. With `fail_fast`, one spec that fails stops all others.

    Raises SpecError, UsageError, CloudError and LocalCloudError if the build cannot begin.
    """
    from imagepipe.cli.cloud import region_of
    from imagepipe.cli.log_options import LogOptions
    from imagepipe.cli.run import Run
    from imagepipe.cli.run_options import RunOptions
    from imagepipe.cli.state import check_writable_quietly
    from imagepipe.reuse import Examiner
    from imagepipe.wiring.existing import Settled
    from imagepipe.wiring.family import bases_first

    clock, run_id, request, region = SystemClock(), secrets.token_hex(4), specs._request, cloud.region
    loaded = _load(request, current_build(run_id, request.named.files, clock))
    target, where = _target(cloud), _state(state)
    check_state_of_specs(where, loaded)
    check_this_computer(loaded, region, is_local=cloud.local)
    if region:
        check_region(region, loaded)
    options = RunOptions(
        "json",
        timeout=timeout,
        keep_on_failure=keep_on_failure,
        fail_fast=fail_fast,
        shown=LogOptions(is_quiet=True),
    )
    cancel = Cancel(clock)
    with _opened(target, region, where, check_writable_quietly) as (regions, store), _garbage_collected():

        def work(sink: ev.Sink) -> BuildResult:
            examiner = Examiner(regions, region_of(region, regions), clock.now())
            settled = Settled(examiner.unchanged(bases_first(loaded), force=request.selection.force))
            cancel.check()
            named = target.with_account(regions)
            run = Run(run_id, store, clock, cancel, named, loaded, options, settled, [sink])
            record = record_for_resume(request.given, loaded, region, settled.existing)
            return _result(run, *run.execute(regions, region, record))

        return _follow(work, on_event, cancel)


def _target(cloud: Cloud) -> CloudTarget:
    """Return the cloud as commands know it. Raises UsageError for fields that exclude one another."""
    from imagepipe.cli.cloud import cloud_target

    if cloud.local and (cloud.profile or cloud.endpoint_url):
        raise UsageError("Cloud: local=True cannot be combined with profile or endpoint_url")
    role = cloud.role or os.environ.get("IMAGEPIPE_ASSUME_ROLE") or None
    return cloud_target(CloudOptions(cloud.local, cloud.region, cloud.profile, cloud.endpoint_url, role))


def _state(state: str | None) -> StateOptions:
    return StateOptions(state or os.environ.get("IMAGEPIPE_STATE") or None)


@contextmanager
def _opened(
    target: CloudTarget, region: str | None, state: StateOptions, check: Callable[[StateBucket], None]
) -> Iterator[tuple[Regions, JournalStore]]:
    """Open the cloud, and then the runs; a local cloud that holds the runs is started silently by the first."""
    from imagepipe.cli.cloud import open_cloud
    from imagepipe.cli.state import open_state

    clock = SystemClock()
    with ExitStack() as stack:
        regions = stack.enter_context(open_cloud(target, region=region, clock=clock, progress=log.info))
        yield regions, stack.enter_context(open_state(state, target, clock, check))


@contextmanager
def _garbage_collected() -> Iterator[None]:
    """Turn the garbage collector on for the block: a build is long. A program may have turned it off."""
    was_on = gc.isenabled()
    gc.enable()
    try:
        yield
    finally:
        if not was_on:
            gc.disable()


def _result(run: Run, outcome: Outcome, baked: Sequence[Baked]) -> BuildResult:
    """Return the end of a run as values, with secrets masked."""
    from imagepipe.cli.end import failed_regions, finished_images, is_unchanged

    spec_of = {stage: each.spec for each in baked for stage in each.stages}
    mask = run.masker.mask
    images = [
        BuiltImage(
            each.spec,
            image.region,
            image.id,
            image.name,
            tuple(image.snapshots),
            image.bundle,
            is_unchanged(run, each, image),
        )
        for each in baked
        for image in finished_images(outcome, each)
    ]
    failures = [
        Failure(
            spec_of[each.stage], each.stage, mask(str(each.error)), _masked(mask, getattr(each.error, "hint", None))
        )
        for each in outcome.failures
    ]
    alone = [
        Failure(
            str(row["spec"]),
            str(row["stage"]),
            mask(str(row["error"])),
            _masked(mask, row["hint"]),
            str(row["region"]),
        )
        for row in failed_regions(outcome, baked)
    ]
    return BuildResult(
        run.id,
        "succeeded" if outcome.ok else "cancelled" if outcome.cancelled else "failed",
        tuple(images),
        tuple(failures),
        tuple(alone),
        tuple(each.spec for each in baked if each.images.stage not in outcome.outputs),
        tuple(mask(str(each)) for each in outcome.held),
        run.cancel.reason if outcome.cancelled else None,
    )


def _masked(mask: Callable[[str], str], text: object) -> str | None:
    return mask(text) if isinstance(text, str) else None


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the thread of a build: a result or an error."""

    result: BuildResult | None = None
    error: BaseException | None = None


def _follow(
    work: Callable[[ev.Sink], BuildResult], on_event: Callable[[Event], None] | None, cancel: Cancel
) -> BuildResult:
    """Run a build in a thread of its own, and pass its events to a subscriber in this one.

    So an exception of a signal handler never interrupts the build itself, whose clean-up it would end. After one, the
    build is stopped, and the exception is raised once the clean-up is done.
    """
    inbox: SimpleQueue[Event | _End] = SimpleQueue()

    def run() -> None:
        try:
            inbox.put(_End(work(inbox.put)))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            inbox.put(_End(error=error))

    thread = Thread(target=run, name="imagepipe build", daemon=True)
    subscriber = _Subscriber(on_event)
    try:
        thread.start()
        end = subscriber.serve(inbox, thread)
    except BaseException as error:
        cancel.set(f"interrupted by {type(error).__name__}")
        subscriber.serve(inbox, thread)
        raise
    if end.result is None:
        raise end.error or Cancelled()
    return replace(end.result, subscriber_error=subscriber.error)


class _Subscriber:
    """Calls `on_event` until it raises an exception."""

    def __init__(self, on_event: Callable[[Event], None] | None) -> None:
        self._on_event = on_event
        self.error: Exception | None = None

    def serve(self, inbox: SimpleQueue[Event | _End], thread: Thread) -> _End:
        """Pass on the events of a build until it ends."""
        while True:
            try:
                item = inbox.get(timeout=1.0)
            except Empty:
                if not thread.is_alive() and inbox.empty():
                    return _End()  # it was interrupted before it started
                continue
            if isinstance(item, _End):
                return item
            self._pass_on(item)

    def _pass_on(self, event: Event) -> None:
        if self._on_event is None or self.error is not None:
            return
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - a subscriber must never harm the build
            self.error = error
            log.warning("the build continues without its subscriber: %s: %s", type(error).__name__, error)
