"""Load specs from files: parse, render, validate and check them, and collect all problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem, SpecError
from imagepipe.masking import Masker
from imagepipe.spec import document as yaml_document
from imagepipe.spec.check import check_spec, check_together
from imagepipe.spec.document import Document, KeyPath
from imagepipe.spec.ec2_rules import region_finding
from imagepipe.spec.explain import explain, loses, nearest, trap_text, value_at
from imagepipe.spec.find import file_of_spec, project_file
from imagepipe.spec.keys import parse_key
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.matrix import expand_matrix
from imagepipe.spec.models import Defaults, Project, Scalar, Spec, Variable
from imagepipe.spec.rendering import Rendered, Scope, render_document
from imagepipe.spec.salvage import covers, salvage
from imagepipe.spec.steps import expand
from imagepipe.spec.variables import Given, Resolved, Unquoted, resolve


@dataclass(frozen=True, slots=True)
class Build:
    """Values of `build.*`, fixed for a run."""

    id: str
    timestamp: str
    git_sha: str
    """Commit that is checked out; empty if there is none."""
    no_git_sha: str = "the run did not begin in a git repository with a commit"
    """Reason for an empty `git_sha`."""

    def names(self) -> dict[str, str]:
        """Return the values by name. A `git_sha` without a value is left out, so that `default()` replaces it."""
        names = {"id": self.id, "timestamp": self.timestamp, "git_sha": self.git_sha}
        return names if self.git_sha else {name: value for name, value in names.items() if name != "git_sha"}


SAMPLE_BUILD = Build(id="0123456789ab", timestamp="20060102T150405Z", git_sha="0" * 40)
"""Values of `build.*` if nothing is built."""


def load(
    files: Sequence[Path], given: Given, *, build: Build | None = None, dependents_in: Sequence[Path] = ()
) -> list[LoadedSpec]:
    """Read and check specs; each has its problems in `problems`. Contacts no cloud.

    A spec with a matrix gives one for each variant. The bases of specs are loaded too: if no file names them, they are
    searched beside the spec and in `specs/`, and have `is_named` false. So have the specs of the files in
    `dependents_in`, of which only those that are built on one of `files` are returned.

    Without `build`, as in `validate`, a variable without a value is not a problem.
    """
    loaded: list[LoadedSpec] = []
    for file in files:
        loaded += list(_load_file(file, given, build))
    known = {file.resolve() for file in files}
    more = [spec for file in dependents_in if file.resolve() not in known for spec in _load_file(file, given, build)]
    for spec in more:
        spec.is_named = False
    loaded += more
    loaded += _find_bases(loaded, given, build)
    check_together(loaded)
    kept = [spec for spec in loaded if spec.is_named or any(base.is_named for base in spec.bases())]
    loaded = [spec for spec in loaded if any(spec is each or spec in each.bases() for each in kept)]
    for spec in loaded:
        own = spec.document.file
        spec.problems.sort(key=lambda p: (p.severity, p.file != own, p.file, p.line, p.column))
    return loaded


def load_text(text: str, file: Path, given: Given) -> list[LoadedSpec]:
    """Check the specs of a text as if it were the content of a file, which need not exist. Finds no bases."""
    return list(_load_text(text, file, given, None))


def refuse(loaded: Sequence[LoadedSpec]) -> None:
    """Raise SpecError with the errors of all specs, if there are any."""
    # Remove duplicates, because every spec of a project repeats the problems of its imagepipe.yaml.
    errors = list(dict.fromkeys(p for spec in loaded for p in spec.problems if p.severity == "error"))
    if errors:
        raise SpecError(errors)


def read_text(file: Path) -> str:
    """Return a file's text. Raises SpecError if it cannot be read."""
    text = yaml_document.read(file, str(file))
    if isinstance(text, Problem):
        raise SpecError([text])
    return text


def load_var_file(file: Path) -> dict[str, Scalar | Unquoted]:
    """Return the variables of a `--var-file`. Raises SpecError."""
    documents = yaml_document.parse(read_text(file), str(file))
    problems = [p for d in documents for p in d.problems]
    if problems:
        raise SpecError(problems)
    value = documents[0].value if documents else None
    if not isinstance(value, dict) or len(documents) > 1:
        raise SpecError([Problem(str(file), 1, 1, "a variable file must be one mapping of names to values")])
    found: dict[str, Scalar | Unquoted] = {}
    for name, item in value.items():
        if not isinstance(item, str | int | float | bool):
            raise SpecError([documents[0].problem((name,), "a variable's value is a string, a number or a boolean")])
        if trap := trap_text(documents[0], (name,)):
            raise SpecError([documents[0].problem((name,), trap)])
        found[name] = item if isinstance(item, str) else Unquoted(item, documents[0].plain[name,])
    return found


def _find_bases(loaded: Sequence[LoadedSpec], given: Given, build: Build | None) -> list[LoadedSpec]:
    """Load the bases that no file names, and their bases; all variants of each."""
    names = {spec.key.name for spec in loaded}
    found: list[LoadedSpec] = []
    waiting = list(loaded)
    while waiting:
        layer = waiting.pop()
        key = parse_key(layer.base) if layer.base else None
        if key is None or key.name in names:
            continue
        file = file_of_spec(key.name, layer.file)
        if file is None:
            continue  # `check_together` reports it
        names.add(key.name)
        new = [spec for spec in _load_file(file, given, build) if spec.key.name == key.name]
        for spec in new:
            spec.is_named = False
        found += new
        waiting += new
    return found


def _load_file(file: Path, given: Given, build: Build | None) -> Iterator[LoadedSpec]:
    try:
        text = read_text(file)
    except SpecError as error:
        yield LoadedSpec(file, Document(str(file), []), problems=list(error.problems))
        return
    yield from _load_text(text, file, given, build)


def _load_text(text: str, file: Path, given: Given, build: Build | None) -> Iterator[LoadedSpec]:
    documents = yaml_document.parse(text, str(file))
    if not documents or all(d.value is None and not d.problems for d in documents):
        empty = Problem(
            str(file), 0, 0, "the file is empty", hint="a spec starts with imagepipe: 1; see docs/tutorial.md"
        )
        yield LoadedSpec(file, Document(str(file), []), problems=[empty])
        return
    project, project_problems = _project(file)
    for document in documents:
        if document.value is None and not document.problems:
            continue
        expanded = expand_matrix(document)
        for axes in expanded.variants:
            problems = [*document.problems, *project_problems, *expanded.problems]
            loaded = LoadedSpec(file, document, axes=axes, project=project, problems=problems)
            if document.value is not None:
                _load_document(loaded, given, build)
            if build is not None and loaded.spec is not None:
                loaded.reference = _reference(loaded, given, build)
            yield loaded


def _reference(loaded: LoadedSpec, given: Given, build: Build) -> LoadedSpec | None:
    """Load a spec again with placeholders for `build.*` and for sensitive variables.

    The real values of `build.*` are tried last: a spec may need them, because a file that it names with `build.*` may
    exist only for those. Real secrets are never used. So if a spec loads only with real secrets, for example because
    it splits one, the result is None.
    """
    for stand_in in (SAMPLE_BUILD, replace(SAMPLE_BUILD, git_sha=build.git_sha), build):
        reference = LoadedSpec(loaded.file, loaded.document, axes=loaded.axes, project=loaded.project)
        _load_document(reference, given, stand_in, hides=True)
        if reference.spec is not None:
            return reference
    return None


def load_project(file: Path) -> Project:
    """Return the project that a file belongs to; the defaults if it belongs to none. Raises SpecError."""
    project, problems = _project(file)
    if problems:
        raise SpecError(problems)
    return project


def _project(file: Path) -> tuple[Project, list[Problem]]:
    path = project_file(file)
    if path is None:
        return Project(), []
    try:
        documents = yaml_document.parse(read_text(path), str(path))
    except SpecError as error:
        return _broken_project(), list(error.problems)
    problems = [p for d in documents for p in d.problems]
    if problems or not documents or documents[0].value is None:
        return _broken_project() if problems else Project(), problems
    try:
        project = Project.model_validate(documents[0].value)
    except ValidationError as error:
        return _broken_project(), explain(error, documents[0], Project)
    region = project.defaults.region
    if region is None or project.allow_unknown_region:
        return project, []
    wrong = [documents[0].problem(at, message) for at, message in region_finding(region, ("defaults", "region"))]
    return (_broken_project(), wrong) if wrong else (project, [])


def _broken_project() -> Project:
    """Return a stand-in for a project file with errors.

    It sets `ssh_user`, as the real file may, so that no spec also reports a missing user.
    """
    return Project(defaults=Defaults(ssh_user="unknown"))


def _load_document(loaded: LoadedSpec, given: Given, build: Build | None, *, hides: bool = False) -> None:
    """Fill in a loaded spec from its document; `hides` replaces sensitive values with placeholders."""
    document = loaded.document
    if not isinstance(document.value, dict):
        loaded.problems.append(document.problem((), "a spec must be a mapping: imagepipe: 1, name: …, source: …"))
        return
    if not _is_version_1(loaded):
        return
    resolved, declared = _variables(loaded, given, must=build is not None)
    if hides:
        hidden = resolved.sensitive & resolved.values.keys()
        resolved.values.update({name: _placeholder(resolved.values[name]) for name in hidden})
    variables = document.value.get("variables")
    name = document.value.get("name")
    spec_names = {"name": name if isinstance(name, str) else "spec"}
    scope = Scope(
        known={"var": resolved.values, "spec": spec_names, "build": (build or SAMPLE_BUILD).names()},
        declared=frozenset(declared),
        sensitive=resolved.sensitive,
        no_git_sha=build.no_git_sha if build is not None and not build.git_sha else None,
        is_open=variables is not None and not isinstance(variables, dict),
    )
    if "matrix" in document.value:
        scope.known["matrix"] = loaded.axes
    loaded.names = dict(scope.known)
    loaded.secrets = frozenset(
        str(resolved.values[n]) for n in resolved.sensitive if resolved.values.get(n) not in (None, "")
    )
    rendered = render_document(document, scope, skip=frozenset({"variables", "matrix"}))
    loaded.has_unknown_base = ("source", "image") in rendered.unknown
    loaded.problems += rendered.problems
    spec, removed = _model(loaded, rendered)
    _warn_of_traps(loaded)
    if spec is not None:
        loaded.spec = _with_defaults(spec, loaded.project)
        _check(loaded, loaded.spec, scope, rendered, removed)
    reported = {p.path for p in loaded.problems}
    loaded.problems += [
        document.problem(("variables", n), f"variable '{n}' is never used", key=True, severity="warning")
        for n in declared
        if n not in scope.used and f"variables.{n}" not in reported
    ]
    mask = Masker(loaded.secrets).mask
    masked = [
        replace(each, message=mask(each.message), hint=mask(each.hint) if each.hint else None)
        for each in loaded.problems
    ]
    loaded.problems = list(dict.fromkeys(masked))  # a provisioner that is used twice repeats its problems
    if any(p.severity == "error" for p in loaded.problems):
        loaded.spec = None


def _placeholder(value: Scalar) -> Scalar:
    """Return a stand-in of the same type, which reveals only whether the secret is empty, a boolean or a number."""
    if not isinstance(value, str):
        return type(value)(0)
    if value.lower() in ("true", "false"):
        return "false"
    try:
        float(value)
    except ValueError:
        return "secret" if value else ""
    return "0"


def _is_version_1(loaded: LoadedSpec) -> bool:
    """Return whether to read the spec as version 1, and report a missing or unknown version.

    A spec without a version is read as version 1, so that its other problems are found too.
    """
    document = loaded.document
    if "imagepipe" not in document.value:
        meant = nearest("imagepipe", document.value)
        message = "key 'imagepipe' is required: the version of the language"
        path: tuple[str, ...] = (meant,) if meant else ()
        hint = f"write imagepipe: 1, not {meant}" if meant else "imagepipe: 1"
        loaded.problems.append(document.problem(path, message, key=True, hint=hint))
        document.value = {"imagepipe": 1, **{k: v for k, v in document.value.items() if k != meant}}
        return True
    version = document.value["imagepipe"]
    if type(version) is int and version == 1:
        return True
    message = f"version {version!r} of the language is not known; this imagepipe reads version 1"
    better = "write imagepipe: 1, without quotes or a decimal point" if str(version) in ("1", "1.0") else None
    loaded.problems.append(document.problem(("imagepipe",), message, hint=better))
    return False


def _model(loaded: LoadedSpec, rendered: Rendered) -> tuple[Spec | None, frozenset[KeyPath]]:
    """Return the model, and the paths that it lacks because their values have errors."""
    try:
        return Spec.model_validate(rendered.value), frozenset()
    except ValidationError as error:
        problems = explain(error, loaded.document, Spec)
        loaded.problems += [p for p in problems if not _is_unknown(p, rendered)]
        return salvage(rendered.value, error)


def _check(loaded: LoadedSpec, spec: Spec, scope: Scope, rendered: Rendered, removed: frozenset[KeyPath]) -> None:
    """Add the problems that the models cannot find, except at unknown values and at paths that already have errors."""
    document, file = loaded.document, loaded.file
    loaded.steps, problems = expand(spec.provision, document, ("provision",), file, scope, rendered.unknown)
    loaded.tests, more = expand(spec.test, document, ("test",), file, scope, rendered.unknown)
    problems += [*more, *check_spec(spec, document, file, loaded.project)]
    loaded.problems += [
        p for p in problems if not _is_unknown(p, rendered) and not (p.path and covers(removed, p.path.split(".")))
    ]


def _is_unknown(problem: Problem, rendered: Rendered) -> bool:
    return any(problem.path == ".".join(map(str, path)) for path in rendered.unknown)


def _variables(loaded: LoadedSpec, given: Given, *, must: bool) -> tuple[Resolved, dict[str, Variable]]:
    declared: dict[str, Variable] = {}
    raw = loaded.document.value.get("variables")
    for name, value in raw.items() if isinstance(raw, dict) else ():
        try:
            declared[name] = Variable.model_validate(value)
        except ValidationError:
            # The model of the whole spec reports the error; the name counts as declared.
            declared[name] = Variable(default="")
    resolved = resolve(declared, given)
    for name, reason in resolved.refused.items():
        loaded.problems.append(loaded.document.problem(("variables", name), f"variable '{name}': {reason}", key=True))
    loaded.unset = () if must else tuple(resolved.missing)
    if must:
        for name, sources in resolved.missing.items():
            loaded.problems.append(
                loaded.document.problem(("variables", name), f"variable '{name}' has no value", key=True, hint=sources)
            )
    return resolved, declared


def _warn_of_traps(loaded: LoadedSpec) -> None:
    """Report unquoted scalars that YAML 1.1 misreads, in places that take any scalar."""
    reported = {p.path for p in loaded.problems}
    for path in loaded.document.plain:
        if ".".join(map(str, path)) in reported:
            continue
        is_any = not {"default", "allowed", "vars", "with", "matrix"}.isdisjoint(path)
        value = value_at(loaded.document.value, path)
        is_flag = isinstance(value, bool) and not is_any
        is_changed = is_any and not isinstance(value, bool)  # a number would not be used as it is written
        trap = None if is_flag else trap_text(loaded.document, path, is_number=not is_any)
        if trap is None and is_any:
            trap = loses(loaded.document, path)
        if trap:
            loaded.problems.append(loaded.document.problem(path, trap, severity="error" if is_changed else "warning"))


def _with_defaults(spec: Spec, project: Project) -> Spec:
    """Return the spec with the project's defaults for keys that it does not set."""
    defaults = project.defaults
    launch: dict[str, Any] = {}
    if spec.launch.region is None and defaults.region:
        launch["region"] = defaults.region
    if "instance_types" not in spec.launch.model_fields_set and defaults.instance_types:
        launch["instance_types"] = defaults.instance_types
    if spec.launch.ssh.user is None and defaults.ssh_user:
        launch["ssh"] = spec.launch.ssh.model_copy(update={"user": defaults.ssh_user})
    changed: dict[str, Any] = {}
    if launch:
        changed["launch"] = spec.launch.model_copy(update=launch)
    if defaults.tags:
        changed["output"] = spec.output.model_copy(update={"tags": {**defaults.tags, **spec.output.tags}})
    if spec.engine is None and defaults.engine:
        changed["engine"] = defaults.engine
    return spec.model_copy(update=changed) if changed else spec
