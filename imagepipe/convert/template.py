"""A Packer template: its variables, sources and builds, read from HCL2, from legacy JSON, or from HCL2 in JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from pathlib import Path

from imagepipe.convert.evaluate import Evaluator, Names
from imagepipe.convert.go_templates import environment_name, expand
from imagepipe.convert.hcl import parse_hcl, parse_template
from imagepipe.convert.json_text import parse_json
from imagepipe.convert.places import read_template
from imagepipe.convert.syntax import (
    Attribute,
    Block,
    Body,
    Call,
    Expression,
    GetAttribute,
    ListOf,
    Literal,
    Name,
    ObjectOf,
    Place,
    TemplateString,
)
from imagepipe.convert.values import TIME_DIGITS, UNSET, LeftOut, Symbol, Value, is_deferred, safe_name, to_string
from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem, SpecError

HCL_SUFFIX, HCL_JSON_SUFFIX, VALUES_SUFFIX = ".pkr.hcl", ".pkr.json", ".auto.pkrvars.hcl"
_LABELS = {
    "variable": 1,
    "local": 1,
    "source": 2,
    "data": 2,
    "build": 0,
    "packer": 0,
    "locals": 0,
    "variables": 0,
    "provisioner": 1,
    "post-processor": 1,
    "post-processors": 0,
    "error-cleanup-provisioner": 1,
    "hcp_packer_registry": 0,
}
"""Block types and their labels, for HCL2 in JSON, which does not tell blocks from attributes."""
_SCALARS = frozenset({"string", "number", "bool"})


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that a spec declares."""

    name: str
    """Its name in a spec."""
    default: Value
    description: str = ""
    env: str | None = None
    sensitive: bool = False
    allowed: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceUse:
    """A source of a build, with the options that the build adds."""

    at: Place
    type: str
    name: str
    bodies: tuple[Body | ObjectOf, ...]
    build_name: str = ""
    """Packer's name of it, if that is not `name`."""


@dataclass(frozen=True, slots=True)
class Action:
    """A provisioner or a post-processor."""

    at: Place
    type: str
    body: Body | ObjectOf


@dataclass(frozen=True, slots=True)
class Build:
    """The sources, provisioners and post-processors of one build."""

    name: str
    sources: tuple[SourceUse, ...]
    provisioners: tuple[Action, ...]
    others: tuple[Action, ...]
    """Post-processors and cleanup provisioners."""


@dataclass(slots=True)
class Template:
    """A template, whose builds are not yet evaluated."""

    stem: str
    """Name of the file without its extension, for sources without a name."""
    names: Names = field(default_factory=Names)
    variables: dict[str, Variable] = field(default_factory=dict)
    """By their names in the template."""
    builds: list[Build] = field(default_factory=list)


def read(path: Path, shown: str, evaluator: Evaluator, var_files: Sequence[Path] = ()) -> Template:
    """Read a template from a file or a folder, with variable files. Raises SpecError if it is not one."""
    more = [attribute for file in var_files for attribute in _body(file, str(file)).attributes()]
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.name.endswith((HCL_SUFFIX, HCL_JSON_SUFFIX)))
        if not files:
            hint = "name a file: a JSON template is not read with its folder"
            raise SpecError([Problem(shown, 0, 0, f"the folder has no *{HCL_SUFFIX} or *{HCL_JSON_SUFFIX}", hint=hint)])
        evaluator.names.is_folder = True
        values = sorted(each for each in path.iterdir() if each.name.endswith(VALUES_SUFFIX))
        bodies = [_body(file, str(Path(shown) / file.name)) for file in files]
        given = [
            attribute for file in values for attribute in _body(file, str(Path(shown) / file.name)).attributes()
        ] + more
        return _from_hcl(path.resolve().name, bodies, given, shown, evaluator)
    text = read_template(path, shown)
    stem = re.sub(r"(\.pkr)?\.(hcl|json|pkr)$", "", path.name) or "template"
    if not text.strip():
        raise SpecError([Problem(shown, 0, 0, "the file is empty", hint="name a Packer template, in HCL2 or JSON")])
    if text.lstrip().startswith(("{", "[")) or path.suffix == ".json":
        value = parse_json(text, shown)
        keys = (
            {to_string(key.value) for key, _ in value.items if isinstance(key, Literal)}
            if isinstance(value, ObjectOf)
            else set()
        )
        if isinstance(value, ObjectOf) and "builders" in keys:
            return _from_legacy_json(stem, value, more, evaluator)
        if isinstance(value, ObjectOf) and keys & {"source", "build"}:
            return _from_hcl(stem, [_body_of_json(value)], more, shown, evaluator)
        hint = "a JSON template has the key `builders`"
        raise SpecError([Problem(shown, 0, 0, "the file is JSON, but not a Packer template", hint=hint)])
    return _from_hcl(stem, [parse_hcl(text, shown)], more, shown, evaluator)


def _body(file: Path, shown: str) -> Body:
    text = read_template(file, shown)
    if file.name.endswith(".json"):
        value = parse_json(text, shown)
        if file.name.endswith(HCL_JSON_SUFFIX):
            return _body_of_json(value) if isinstance(value, ObjectOf) else Body(value.at, ())
        pairs = value.items if isinstance(value, ObjectOf) else ()
        return Body(value.at, tuple(Attribute(key.at, _key(key), item) for key, item in pairs))
    return parse_hcl(text, shown)


def _key(key: Expression) -> str:
    return to_string(key.value) if isinstance(key, Literal) else ""


# HCL2


def _from_hcl(
    stem: str, bodies: Sequence[Body], given: Sequence[Attribute], shown: str, evaluator: Evaluator
) -> Template:
    template = Template(stem, evaluator.names)
    blocks = [block for body in bodies for block in body.blocks()]
    sources: dict[tuple[str, str], Block] = {}
    overridden = {attribute.name: attribute for attribute in given}
    for block in blocks:
        labels = block.labels
        if block.type == "variable" and len(labels) == 1:
            _declare(template, labels[0], block, overridden.get(labels[0]), evaluator)
        elif block.type == "variables":
            for attribute in block.body.attributes():
                body = Body(attribute.at, (Attribute(attribute.at, "default", attribute.value),))
                old = Block(attribute.at, "variable", (attribute.name,), body)
                _declare(template, attribute.name, old, overridden.get(attribute.name), evaluator)
        elif block.type == "locals":
            template.names.locals |= {attribute.name: attribute for attribute in block.body.attributes()}
        elif block.type == "local" and len(labels) == 1 and (value := block.body.attribute("expression")):
            template.names.locals[labels[0]] = value
        elif block.type == "data" and len(labels) == 2:
            template.names.data[labels[0], labels[1]] = block.body
        elif block.type == "source" and len(labels) == 2:
            sources[labels[0], labels[1]] = block
        elif block.type not in ("build", "packer"):
            evaluator.listing.add(block.at, f"block `{block.type}` is not known", "remove it from the template")
    if not sources and not any(block.type == "build" for block in blocks):
        hint = "a template has `source` and `build` blocks; name its file, or its folder if it has several files"
        raise SpecError([Problem(shown, 0, 0, "not a Packer template: it has no source and no build", hint=hint)])
    used: set[tuple[str, str]] = set()
    for block in blocks:
        if block.type == "build":
            build = _build(block, sources, evaluator)
            used |= {(source.type, source.name) for source in build.sources}
            template.builds.append(build)
    for key, block in sources.items():
        if key not in used:
            name = ".".join(key)
            evaluator.listing.add(block.at, f"source `{name}` is used by no build of these files", _USED)
    return template


_USED = "name it in the `sources` of a build, and convert again"


def _build(block: Block, sources: dict[tuple[str, str], Block], evaluator: Evaluator) -> Build:
    found: list[SourceUse] = []
    wanted: list[tuple[Place, str, Body | None]] = []
    if (attribute := block.body.attribute("sources")) is not None:
        wanted += [(at, name, None) for at, name in _source_names(attribute, evaluator)]
    wanted += [(each.at, each.labels[0], each.body) for each in block.body.blocks("source") if each.labels]
    for at, name, more in wanted:
        parts = name.removeprefix("source.").split(".", 1)
        source = sources.get((parts[0], parts[-1]))
        if source is None or len(parts) != 2:
            evaluator.listing.add(
                at, f"source `{name}` is not declared", "declare it, or convert the folder that has it"
            )
            continue
        renamed = more.attribute("name") if more is not None else None
        own = renamed.value.value if renamed is not None and isinstance(renamed.value, Literal) else None
        bodies = (source.body, more) if more is not None else (source.body,)
        found.append(SourceUse(source.at, parts[0], to_string(own) if own else parts[1], bodies))
    named = block.body.attribute("name")
    name = to_string(named.value.value) if named is not None and isinstance(named.value, Literal) else ""
    provisioners = [_action(each) for each in block.body.blocks("provisioner") if each.labels]
    others = [_action(each) for each in block.body.blocks("post-processor", "error-cleanup-provisioner") if each.labels]
    for chain in block.body.blocks("post-processors"):
        others += [_action(each) for each in chain.body.blocks("post-processor") if each.labels]
    for each in block.body.blocks("hcp_packer_registry"):
        others.append(Action(each.at, "hcp_packer_registry", each.body))
    return Build(name, tuple(found), tuple(provisioners), tuple(others))


def _action(block: Block) -> Action:
    return Action(block.at, block.labels[0], block.body)


def _source_names(attribute: Attribute, evaluator: Evaluator) -> Iterator[tuple[Place, str]]:
    """Yield the sources of a build, given as strings or as references."""
    items = attribute.value.items if isinstance(attribute.value, ListOf) else (attribute.value,)
    for item in items:
        if (chain := _chain(item)) and chain[0] == "source":
            yield item.at, ".".join(chain)
            continue
        try:
            value = evaluator.settle(evaluator.evaluate(item), item.at, "a build's `sources`")
        except LeftOut as error:
            evaluator.listing.add_error(error)
            continue
        for name in value if isinstance(value, list) else [value]:
            yield item.at, to_string(name)


def _chain(expression: Expression) -> list[str]:
    """Return the names of a reference such as `source.amazon-ebs.web`; empty for any other expression."""
    names: list[str] = []
    while isinstance(expression, GetAttribute):
        names.insert(0, expression.name)
        expression = expression.of
    return [expression.name, *names] if isinstance(expression, Name) else []


def _declare(template: Template, name: str, block: Block, given: Attribute | None, evaluator: Evaluator) -> None:
    """Add a variable, or its constant value if a spec cannot declare it."""
    body = block.body
    default = given or body.attribute("default")
    kind = body.attribute("type")
    kind_name = _kind(kind.value) if kind is not None else None
    env = None
    value: Value = UNSET
    if default is not None:
        expression = default.value
        if (
            isinstance(expression, TemplateString)
            and len(expression.parts) == 1
            and isinstance(expression.parts[0], Call)
        ):
            expression = expression.parts[0]
        if isinstance(expression, Call) and expression.function == "env" and len(expression.arguments) == 1:
            named = expression.arguments[0]
            env = to_string(named.value) if isinstance(named, Literal) else None
            value = ""
        else:
            try:
                value = evaluator.settle(evaluator.evaluate(expression), default.at, f"variable `{name}`")
            except LeftOut as error:
                evaluator.listing.add_error(error)
    is_list = isinstance(value, list | dict) or (kind_name not in _SCALARS | {None, "any"})
    if is_list:
        if value is UNSET:
            template.names.missing_lists[name] = block.at
        else:
            template.names.lists[name] = block.at
            template.names.variables[name] = value
        return
    if kind_name == "string" and isinstance(value, bool | int | float):
        value = to_string(value)
    if kind_name == "bool" and value in ("true", "false"):
        value = value == "true"
    described, secret = body.attribute("description"), body.attribute("sensitive")
    allowed: tuple[Value, ...] = ()
    for validation in body.blocks("validation"):
        found = _allowed(validation, name)
        if found is None:
            what = f"the validation of variable `{name}`"
            evaluator.listing.add(validation.at, what, "list the values in `allowed`, or check them in a step")
        else:
            allowed = found
    is_secret = secret is not None and isinstance(secret.value, Literal) and secret.value.value is True
    _add(
        template,
        name,
        Variable(
            safe_name(name),
            _without_secret(name, value, default.at, evaluator) if is_secret and default is not None else value,
            to_string(described.value.value) if described and isinstance(described.value, Literal) else "",
            env,
            is_secret,
            allowed,
        ),
    )


def _kind(expression: Expression) -> str:
    if isinstance(expression, Name):
        return expression.name
    if isinstance(expression, Literal):
        return to_string(expression.value)
    return expression.function if isinstance(expression, Call) else "object"


def _allowed(validation: Block, name: str) -> tuple[Value, ...] | None:
    """Return the values of `contains([…], var.NAME)`."""
    condition = validation.body.attribute("condition")
    if condition is None or not isinstance(condition.value, Call) or condition.value.function != "contains":
        return None
    arguments = condition.value.arguments
    if len(arguments) != 2 or _chain(arguments[1]) != ["var", name] or not isinstance(arguments[0], ListOf):
        return None
    items = arguments[0].items
    if not items or not all(isinstance(item, Literal) and item.value is not None for item in items):
        return None
    return tuple(item.value for item in items if isinstance(item, Literal))


def _add(template: Template, name: str, variable: Variable) -> None:
    taken = {each.name for each in template.variables.values()}
    own = variable.name
    while own in taken:
        own += "_"
    if own != variable.name:
        variable = Variable(
            own, variable.default, variable.description, variable.env, variable.sensitive, variable.allowed
        )
    template.variables[name] = variable
    template.names.variables[name] = Symbol(f"var.{own}", variable.default, frozenset({name}))


# JSON


def _from_legacy_json(stem: str, value: ObjectOf, given: Sequence[Attribute], evaluator: Evaluator) -> Template:
    template = Template(stem, evaluator.names)
    keys = {to_string(key.value): item for key, item in value.items if isinstance(key, Literal)}
    secrets = set(_literals(keys.get("sensitive-variables")))
    variables = keys.get("variables")
    pairs = variables.items if isinstance(variables, ObjectOf) else ()
    declared = {to_string(key.value): item for key, item in pairs if isinstance(key, Literal)}
    declared |= {attribute.name: attribute.value for attribute in given}
    _declare_legacy(template, declared, secrets, evaluator)
    sources = []
    for index, builder in enumerate(_objects(keys["builders"])):
        kind = _literal(builder, "type")
        name = _literal(builder, "name")
        if not kind:
            evaluator.listing.add(builder.at, f"builder {index + 1} has no `type`", "add it to the template")
            continue
        own = _expanded_name(name, builder.at, evaluator)
        sources.append(SourceUse(builder.at, kind, own or stem, (builder,), own or kind))
    provisioners = list(_actions(keys.get("provisioners"), evaluator))
    others = list(_actions(keys.get("post-processors"), evaluator))
    known = {"builders", "variables", "sensitive-variables", "provisioners", "post-processors", "description"}
    for key, item in value.items:
        name = to_string(key.value) if isinstance(key, Literal) else ""
        if name == "error-cleanup-provisioner" and isinstance(item, ObjectOf):
            others.append(Action(item.at, "error-cleanup-provisioner", item))
        elif name not in known and name != "min_packer_version" and not name.startswith("_"):
            evaluator.listing.add(item.at, f"`{name}` is not a key of a template", "remove it")
    template.builds.append(Build("", tuple(sources), tuple(provisioners), tuple(others)))
    return template


def _declare_legacy(
    template: Template, declared: dict[str, Expression], secrets: set[str], evaluator: Evaluator
) -> None:
    """Declare variables; those that are made of other variables come after them."""
    waiting: dict[str, LeftOut | None] = dict.fromkeys(declared)
    template.names.waiting = set(declared)
    while waiting:
        count = len(waiting)
        for name in list(waiting):
            try:
                _declare_one(template, name, declared[name], name in secrets, evaluator)
            except LeftOut as error:
                waiting[name] = error
            else:
                del waiting[name]
                template.names.waiting.discard(name)
        if len(waiting) == count:
            if template.names.declares_all:
                break
            template.names.declares_all = True
    template.names.declares_all = True
    template.names.waiting = set()
    for name, reason in waiting.items():
        if reason is not None:
            evaluator.listing.add(reason.at, f"variable `{name}`: {reason.what}", reason.instead)
            _add(template, name, Variable(safe_name(name), UNSET, sensitive=name in secrets))


def _declare_one(template: Template, name: str, item: Expression, is_secret: bool, evaluator: Evaluator) -> None:
    env = None
    value: Value = UNSET
    if isinstance(item, Literal) and item.value is not None:
        text = to_string(item.value)
        env = environment_name(text)
        value = "" if env else expand(text, item.at, evaluator)
    elif not isinstance(item, Literal):
        value = evaluator.settle(evaluator.evaluate(item), item.at, f"variable `{name}`")
    if isinstance(value, list | dict):
        template.names.lists[name] = item.at
        template.names.variables[name] = value
    elif is_deferred(value) or (isinstance(value, str) and any(digit in value for digit in TIME_DIGITS)):
        template.names.variables[name] = value  # made of other variables or of the build's time
    else:
        value = _without_secret(name, value, item.at, evaluator) if is_secret else value
        _add(template, name, Variable(safe_name(name), value, env=env, sensitive=is_secret))


def _without_secret(name: str, value: Value, at: Place, evaluator: Evaluator) -> Value:
    """Return the default of a sensitive variable: none, unless it is empty. A secret may not be written into a spec."""
    if value is UNSET or value in ("", None):
        return value
    what = f"the value of the sensitive variable `{name}`"
    evaluator.listing.add(at, what, f"set IMAGEPIPE_VAR_{safe_name(name)} in the environment of the build")
    return UNSET


def _expanded_name(name: str, at: Place, evaluator: Evaluator) -> str:
    """Return the name of a builder, which may be a template; empty if its value is not known."""
    try:
        return to_string(evaluator.settle(expand(name, at, evaluator), at, "the name of a builder"))
    except LeftOut:
        return ""


def _actions(value: Expression | None, evaluator: Evaluator) -> Iterator[Action]:
    """Yield provisioners, or post-processors, which may be strings, and lists in the list."""
    for item in value.items if isinstance(value, ListOf) else ():
        if isinstance(item, ListOf):
            yield from _actions(item, evaluator)
        elif isinstance(item, Literal):
            yield Action(item.at, to_string(item.value), ObjectOf(item.at, ()))
        elif isinstance(item, ObjectOf):
            kind = _literal(item, "type")
            if kind:
                yield Action(item.at, kind, item)
            else:
                evaluator.listing.add(item.at, "an entry without `type`", "add it to the template")


def _objects(value: Expression) -> Iterable[ObjectOf]:
    return [item for item in value.items if isinstance(item, ObjectOf)] if isinstance(value, ListOf) else []


def _literals(value: Expression | None) -> list[str]:
    items = value.items if isinstance(value, ListOf) else ()
    return [to_string(item.value) for item in items if isinstance(item, Literal)]


def _literal(value: ObjectOf, name: str) -> str:
    found = next((item for key, item in value.items if isinstance(key, Literal) and key.value == name), None)
    return to_string(found.value) if isinstance(found, Literal) else ""


def _body_of_json(value: ObjectOf) -> Body:
    """Return an object of HCL2 in JSON as a body, its strings as templates."""
    items: list[Attribute | Block] = []
    for key, item in value.items:
        name = to_string(key.value) if isinstance(key, Literal) else ""
        if name in _LABELS:
            for each in _each(item):
                items += _blocks_of_json(name, each, _LABELS[name], ())
        elif not name.startswith("//"):
            items.append(Attribute(key.at, name, _with_templates(item)))
    return Body(value.at, tuple(items))


def _blocks_of_json(name: str, value: Expression, depth: int, labels: tuple[str, ...]) -> Iterator[Block]:
    if not isinstance(value, ObjectOf):
        return
    if depth == 0:
        yield Block(value.at, name, labels, _body_of_json(value))
        return
    for key, item in value.items:
        label = to_string(key.value) if isinstance(key, Literal) else ""
        for each in _each(item):
            yield from _blocks_of_json(name, each, depth - 1, (*labels, label))


def _each(value: Expression) -> Iterable[Expression]:
    return value.items if isinstance(value, ListOf) else (value,)


def _with_templates(value: Expression) -> Expression:
    match value:
        case Literal(value=str() as text) if "${" in text or "%{" in text:
            return parse_template(text, value.at)
        case ListOf(items=items):
            return ListOf(value.at, tuple(_with_templates(item) for item in items))
        case ObjectOf(items=pairs):
            return ObjectOf(value.at, tuple((key, _with_templates(item)) for key, item in pairs))
        case _:
            return value
