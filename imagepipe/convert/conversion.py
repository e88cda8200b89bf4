"""Convert a Packer template: one checked spec for each Amazon source of each build, and a list of what is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from imagepipe.convert.draft import Draft, KeyPath, SourcePath, Step, key_path
from imagepipe.convert.evaluate import Evaluator, Names, SourceNames
from imagepipe.convert.listing import Listing, Unconverted
from imagepipe.convert.options import Option, Options, options_of
from imagepipe.convert.places import Folders
from imagepipe.convert.source import convert_source
from imagepipe.convert.steps import SUPPORTED, StepMaker
from imagepipe.convert.syntax import Attribute, Body, Expression, Literal, ObjectOf, Place
from imagepipe.convert.template import Action, Build, SourceUse, Template, Variable, read
from imagepipe.convert.values import UNSET, Ami, LeftOut, Symbol, Text, Value, safe_name, template_of, variables_of
from imagepipe.convert.yaml_text import block_of, comment, list_item
from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem
from imagepipe.spec.load import load_text
from imagepipe.spec.variables import Given

EBS, INSTANCE_STORE = "amazon-ebs", "amazon-instance"
MAX_REPAIRS = 50
_INSTEAD_OF_SOURCE = {
    "amazon-chroot": "build it with an instance: source.ami, and steps in `provision`",
    "amazon-ebssurrogate": "build from an image whose root volume is as wanted; imagepipe captures the launched root",
    "amazon-ebsvolume": "nothing: imagepipe makes images, and no volumes alone",
}
_POST_PROCESSORS = {
    "amazon-import": "nothing: imagepipe registers the image itself; import other disks with `aws ec2 import-image`",
    "checksum": "nothing: an image has no local file",
    "compress": "nothing: an image has no local file",
    "hcp_packer_registry": "keep the ids in SSM parameters: publish.ssm_parameter",
    "manifest": "`imagepipe build --format json` prints the images, their regions and ids",
    "shell-local": "run the command after `imagepipe build`, with the ids from --format json",
    "vagrant": "nothing: imagepipe makes Amazon images only",
}


@dataclass(frozen=True, slots=True)
class ConvertedSpec:
    """A spec that passes `validate`."""

    name: str
    file: Path
    source: str
    """The template's source, such as `amazon-ebs.web`."""
    text: str


@dataclass(frozen=True, slots=True)
class Conversion:
    """The specs of a template, and everything that they lack."""

    specs: tuple[ConvertedSpec, ...]
    problems: tuple[Unconverted, ...]


def convert(path: Path, output: Path, *, working: Path, var_files: Sequence[Path] = ()) -> Conversion:
    """Convert a template into specs for the folder `output`. Writes nothing. Raises SpecError if it is no template.

    The values of `var_files` are the defaults of the specs' variables.
    """
    shown = str(path)
    root = (path if path.is_dir() else path.parent).resolve()
    evaluator = Evaluator(Names(), Folders(root, working), Listing())
    template = read(path, shown, evaluator, var_files)
    converter = _Converter(template, evaluator, output, shown)
    specs = [spec for build in template.builds for spec in converter.build(build)]
    return Conversion(tuple(specs), tuple(evaluator.listing.sorted()))


@dataclass(frozen=True, slots=True)
class _Removal:
    """A part of a spec that `validate` would refuse, and that is left out."""

    at: Place
    path: KeyPath
    step: Step | None
    what: str
    hint: str | None

    def instead(self) -> str:
        """Return the way to get the part back."""
        is_step = self.path[:1] == ("provision",) and len(self.path) == 2
        left = f"{'the step' if is_step else '.'.join(map(str, self.path))} is left out"
        if "does not exist" in self.what:
            return f"{left}; create the file and convert again, or add it later"
        return f"{left}; {self.hint or 'add it again with a value that imagepipe accepts'}"


class _Converter:
    """Converts the builds of one template."""

    def __init__(self, template: Template, evaluator: Evaluator, output: Path, shown: str) -> None:
        self.template = template
        self.evaluator = evaluator
        self.listing = evaluator.listing
        self.output = output
        self.shown = shown
        self.taken: set[str] = set()

    def build(self, build: Build) -> Iterator[ConvertedSpec]:
        """Yield the specs of a build."""
        is_amazon = False
        for source in build.sources:
            if source.type not in (EBS, INSTANCE_STORE):
                default = "keep Packer for it: imagepipe builds Amazon Machine Images only"
                instead = _INSTEAD_OF_SOURCE.get(source.type, default)
                self.listing.add(source.at, f"source `{source.type}.{source.name}`", instead)
                continue
            is_amazon = True
            draft = self._draft(build, source)
            if draft is not None and (spec := self._checked(draft, source)) is not None:
                yield spec
        for action in build.others if is_amazon else ():
            instead = _POST_PROCESSORS.get(
                action.type, "run it after `imagepipe build`, with the ids from --format json"
            )
            kind = "`" if action.type == "error-cleanup-provisioner" else "post-processor `"
            self.listing.add(action.at, f"{kind}{action.type}`", instead)

    def _draft(self, build: Build, source: SourceUse) -> Draft | None:
        """Return the spec of a source before it is checked. List the reason and return None if it cannot be written."""
        evaluator = self.evaluator
        owner = f"{source.type}.{source.name}"
        self.listing.start()
        evaluator.source = SourceNames(source.type, source.build_name or source.name)
        evaluator.source = SourceNames(source.type, source.build_name or source.name, self._data_of(source))
        draft = Draft(self._name(build, source), source.at)
        options = options_of(source.at, owner, source.bodies, evaluator, skipped=frozenset({"name", "type"}))
        try:
            convert_source(options, draft, is_instance_store=source.type == INSTANCE_STORE, data=self._data)
        except LeftOut as error:
            self.listing.add(error.at, f"{error.what}; no spec is written for {owner}", error.instead)
            return None
        draft.notes = self.listing.recent
        maker = StepMaker(draft.keys["launch"]["ssh"]["user"])
        for action in build.provisioners:
            if self._applies(action, build, source):
                self._add_steps(maker, action, build, source)
        draft.steps = maker.steps
        return draft

    def _add_steps(self, maker: StepMaker, action: Action, build: Build, source: SourceUse) -> None:
        self.listing.start()
        before = len(maker.steps)
        skipped = frozenset({"only", "except", "type"})
        kept = action.body if action.type in SUPPORTED else Body(action.at, ())
        options = options_of(action.at, action.type, [kept], self.evaluator, skipped=skipped)
        try:
            self._override(options, build, source)
            maker.add(action.type, options)
        except LeftOut as error:
            self.listing.add_error(error)
        if self.listing.recent:
            if len(maker.steps) == before:
                maker.steps.append(Step(action.at, {}))
            maker.steps[before].notes = self.listing.recent

    def _override(self, options: Options, build: Build, source: SourceUse) -> None:
        """Replace options by those that `override` has for the source."""
        option = options.values.pop("override", None)
        if option is None:
            return
        given = option.value
        if isinstance(given, list) and len(given) == 1 and isinstance(given[0], Options):
            given = {name: each.value for name, each in given[0].values.items()}
        for name, values in given.items() if isinstance(given, dict) else ():
            if name in _names(build, source) and isinstance(values, dict):
                options.values |= {key: Option(option.at, value) for key, value in values.items()}

    def _applies(self, action: Action, build: Build, source: SourceUse) -> bool:
        """Return whether `only` and `except` let a provisioner run for a source."""
        names = _names(build, source)
        for key, wanted in (("only", True), ("except", False)):
            expression = _find(action.body, key)
            if expression is None:
                continue
            try:
                value = self.evaluator.settle(self.evaluator.evaluate(expression), expression.at, f"`{key}`")
            except LeftOut as error:
                self.listing.add_error(error)
                continue
            given = {str(each) for each in (value if isinstance(value, list) else [value])}
            if given and bool(given & names) is not wanted:
                return False
        return True

    def _data_of(self, source: SourceUse) -> tuple[str, str] | None:
        """Return the data source that finds the source image."""
        expression = next((found for body in reversed(source.bodies) if (found := _find(body, "source_ami"))), None)
        if expression is None:
            return None
        try:
            value = self.evaluator.evaluate(expression)
        except LeftOut:
            return None  # it is listed when the option is converted
        return (value.kind, value.name) if isinstance(value, Ami) else None

    def _data(self, ami: Ami, at: Place) -> Options:
        body = self.template.names.data[ami.kind, ami.name]
        owner = f"data {ami.kind}.{ami.name}"
        return options_of(body.at, owner, [body], self.evaluator, skipped=frozenset())

    def _name(self, build: Build, source: SourceUse) -> str:
        """Return the name of a spec, which is also that of its file."""
        wanted = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name).strip("-._")[:60] or "image"
        if wanted in self.taken and build.name:
            wanted = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{build.name}-{source.name}").strip("-._")[:60] or "image"
        name, number = wanted, 2
        while name in self.taken:
            name, number = f"{wanted}-{number}", number + 1
        self.taken.add(name)
        return name

    # Writing and checking

    def _checked(self, draft: Draft, source: SourceUse) -> ConvertedSpec | None:
        """Return the spec once it passes `validate`. Parts that are refused are removed and listed."""
        file = self.output / f"{draft.name}.yaml"
        for _ in range(MAX_REPAIRS):
            text = self._text(draft, None)
            errors = [p for each in load_text(text, file, Given()) for p in each.problems if p.severity == "error"]
            if not errors:
                return ConvertedSpec(draft.name, file, f"{source.type}.{source.name}", self._text(draft, self.output))
            if not self._repair(draft, errors, source):
                return None
        return None

    def _repair(self, draft: Draft, errors: Sequence[Problem], source: SourceUse) -> bool:
        """Remove the parts that have errors; return whether the rest is worth another check."""
        document = _plain(self._document(draft), None)
        located = [(key_path(document, error.path.split(".") if error.path else []), error) for error in errors]
        removals: list[_Removal] = []
        # From the last to the first, so that the indices of the others stay the same.
        for path, error in sorted(located, key=lambda each: [str(part).zfill(6) for part in each[0]], reverse=True):
            if any(path[: len(each.path)] == each.path for each in removals):
                continue
            message = error.message.replace(f"{self.evaluator.folders.root}/", "")
            at, step = draft.place(path), draft.step(path)
            removed = draft.remove(path)
            if removed is None:
                shown = error.path or "the spec"
                what = f"{shown}: {message}; no spec is written for {source.type}.{source.name}"
                self.listing.add(at, what, error.hint or "change it in the template, and convert again")
                return False
            removals.append(_Removal(at, removed, step, f"{_last(removed, path)}: {message}", error.hint))
        for each in reversed(removals):
            self.listing.start()
            self.listing.add(each.at, each.what, each.instead())
            if each.step is not None:
                each.step.notes = [*each.step.notes, *self.listing.recent]
            else:
                draft.notes = [*draft.notes, *self.listing.recent]
        return True

    def _document(self, draft: Draft) -> dict[str, Value]:
        document = draft.document()
        used = variables_of(document)
        declared = self.template.variables | {
            name: Variable(safe_name(name), UNSET) for name in sorted(self.template.names.undeclared)
        }
        variables = {
            variable.name: _variable(variable, is_required=name in self.evaluator.required)
            for name, variable in declared.items()
            if name in used
        }
        head = {"imagepipe": 1, "name": draft.name, **({"variables": variables} if variables else {})}
        return {**head, **document}

    def _text(self, draft: Draft, folder: Path | None) -> str:
        """Return the YAML of a spec with paths relative to a folder; absolute ones without a folder."""
        document = _plain(self._document(draft), folder)
        origin = _relative(str(Path(self.shown).absolute()), self.output)
        lines = [comment(f"Converted from {origin} by imagepipe convert.")]
        lines += [_todo(note) for note in draft.notes]
        for key, value in document.items():
            if key not in ("imagepipe", "name"):
                lines.append("")
            if key == "provision":
                lines += ["provision:", *_provision(draft.steps, value)]
            else:
                lines += block_of({key: value}, 0)
        if "provision" not in document:
            lines += [_todo(note) for step in draft.steps for note in step.notes]
        return "\n".join(lines) + "\n"


def _todo(note: Unconverted) -> str:
    place = f"{Path(note.file).name}:{note.line}"
    return comment(f"TODO {place}: {note.what}: {note.instead}")


def _last(removed: Sequence[str | int], path: Sequence[str | int]) -> str:
    if removed[:1] == ("provision",):
        return ".".join(str(part) for part in path[2:]) or "a step"
    return ".".join(str(part) for part in path)


def _provision(steps: Sequence[Step], items: Sequence[Value]) -> Iterator[str]:
    remaining = iter(items)
    for step in steps:
        for note in step.notes:
            yield f"  {_todo(note)}"
        if step.keys:
            yield from list_item(next(remaining), 2)


def _variable(variable: Variable, *, is_required: bool) -> dict[str, Value]:
    found: dict[str, Value] = {}
    if variable.default is not UNSET and not (is_required and variable.default in (None, "")):
        found["default"] = "" if variable.default is None else variable.default
    if variable.description:
        found["description"] = variable.description
    if variable.allowed:
        found["allowed"] = list(variable.allowed)
    if variable.env:
        found["env"] = variable.env
    if variable.sensitive:
        found["sensitive"] = True
    return found


def _plain(value: Value, folder: Path | None, path: tuple[str, ...] = ()) -> Value:
    """Return a spec's values as YAML has them: strings are templates, except in `variables`."""
    if isinstance(value, dict):
        return {key: _plain(item, folder, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, folder, path) for item in value]
    if isinstance(value, SourcePath):
        return template_of(value.path if folder is None else _relative(value.path, folder))
    is_template = isinstance(value, Symbol | Text) or (isinstance(value, str) and path[:1] != ("variables",))
    return template_of(value) if is_template else value


def _relative(path: str, folder: Path) -> str:
    """Return a path relative to a folder, by their real places, because a folder may be a link."""
    slash = "/" if path.endswith("/") else ""
    place = Path(path)
    real = place.parent.resolve() / place.name if place.name else place
    return os.path.relpath(real, folder.resolve()) + slash


def _names(build: Build, source: SourceUse) -> set[str]:
    full = f"{source.type}.{source.name}"
    return {full, source.name, f"{build.name}.{full}", source.build_name}


def _find(body: Body | ObjectOf, name: str) -> Expression | None:
    if isinstance(body, Body):
        found = body.attribute(name)
        return found.value if isinstance(found, Attribute) else None
    return next((item for key, item in body.items if isinstance(key, Literal) and key.value == name), None)
