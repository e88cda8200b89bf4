"""The JSON Schema of specs, provisioners and projects, for editors.

Draft 7, because that is the draft that yaml-language-server, and with it most editors, implements whole
(https://github.com/redhat-developer/yaml-language-server). It accepts every file that `imagepipe validate` accepts;
`validate` knows more rules than a schema can say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, cast

from pydantic import BaseModel

from imagepipe.spec import models
from imagepipe.spec.scalars import duration_text
from imagepipe.step_kinds import Installed, StepKindError

SchemaOf = Literal["spec", "provisioner", "project"]
MODELS: Mapping[SchemaOf, type[BaseModel]] = {
    "spec": models.Spec,
    "provisioner": models.Provisioner,
    "project": models.Project,
}
DRAFT = "http://json-schema.org/draft-07/schema#"
FILES: Mapping[SchemaOf, str] = {
    "spec": "A spec of imagepipe: an image and how it is made",
    "provisioner": "A provisioner of imagepipe: steps with parameters, in provisioners/NAME/provisioner.yaml",
    "project": "A project of imagepipe: defaults of all specs below, in imagepipe.yaml",
}
TEMPLATE = {"type": "string", "pattern": r"\{\{.*\}\}"}
"""A template in place of a number, a boolean, a choice or a list; its value is checked when it is rendered."""
EXAMPLES: Mapping[tuple[str, str], list[Any]] = {
    ("Spec", "name"): ["web-server"],
    ("Spec", "variables"): [{"greeting": {"default": "hello", "description": "text of the front page"}}],
    ("Spec", "matrix"): [{"release": ["bookworm", "trixie"], "architecture": ["x86_64", "arm64"]}],
    ("Spec", "source"): [
        {"ami": {"name": "al2023-ami-2023.*", "owners": ["amazon"], "architecture": "x86_64"}},
        {"ami": "ami-0123456789abcdef0"},
        {"image": "base"},
    ],
    ("Spec", "launch"): [{"region": "eu-west-1", "instance_types": ["t3.small"], "ssh": {"user": "admin"}}],
    ("Spec", "provision"): [[{"shell": "apt-get install -y nginx", "sudo": True}]],
    ("Spec", "test"): [[{"http": "http://127.0.0.1/"}, {"service": "nginx"}]],
    ("Spec", "output"): [{"name": "web-server-{{ build.timestamp }}"}],
    ("Spec", "publish"): [{"regions": ["us-west-2"], "deprecate_after": "90d"}],
    ("Spec", "retention"): [{"newest": 5, "max_age": "90d"}],
    ("Spec", "reuse"): ["unchanged", {"max_age": "7d"}],
    ("Provisioner", "parameters"): [{"port": {"default": 80, "description": "port to listen on"}}],
    ("Project", "defaults"): [{"region": "eu-west-1", "ssh_user": "admin", "tags": {"team": "platform"}}],
    ("ShellStep", "shell"): ["systemctl enable nginx", {"script": "scripts/install.sh", "args": ["--quiet"]}],
    ("FileStep", "file"): [{"src": "files/index.html", "dest": "/var/www/html/index.html", "mode": "0644"}],
    ("TemplateStep", "template"): [{"src": "files/motd.j2", "dest": "/etc/motd", "vars": {"team": "platform"}}],
    ("UseStep", "use"): ["users"],
}
"""Examples by model and key; a test checks them against the schema.

None has a text of digits, such as an account: yaml-language-server would write it into a spec without its quotes.
"""


def json_schema(of: SchemaOf = "spec", kinds: Iterable[Installed] = ()) -> dict[str, Any]:
    """Return the schema of a kind of file, with the step kinds of other packages if there are any.

    A kind whose package is broken is left out; `imagepipe validate` reports it.
    """
    made = MODELS[of].model_json_schema(by_alias=True)
    definitions = made.pop("$defs", {})
    for kind in kinds if "RebootStep" in definitions else ():
        with suppress(StepKindError):
            _add_kind(kind, made, definitions)
    for key, field in made["properties"].items():  # pydantic drops the description of a part with a default
        field.setdefault("description", MODELS[of].model_fields[key].description)
    for name, schema in (*definitions.items(), (MODELS[of].__name__, made)):
        for key, field in schema.get("properties", {}).items():
            if examples := EXAMPLES.get((name, key)):
                field["examples"] = examples
    converted = {name: _converted(schema) for name, schema in definitions.items()}
    return {
        "$schema": DRAFT,
        "title": FILES[of],
        **{key: value for key, value in _converted(made).items() if key != "title"},
        "definitions": converted,
    }


def _add_kind(kind: Installed, made: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Add a step kind wherever a step may be."""
    name = f"{kind.name} step of {kind.package}"
    value = kind.load().options.model_json_schema(ref_template=f"#/$defs/{name}: {{model}}")
    definitions.update({f"{name}: {key}": each for key, each in value.pop("$defs", {}).items()})
    options = definitions["RebootStep"]["properties"].items()
    definitions[name] = {
        "type": "object",
        "description": f"A step of the package {kind.package} {kind.version}.",
        "properties": {**{key: each for key, each in options if key != "reboot"}, kind.name: value},
        "required": [kind.name],
        "additionalProperties": False,
    }
    _add_choice({"$ref": "#/$defs/RebootStep"}, {"$ref": f"#/$defs/{name}"}, (made, definitions))


def _add_choice(beside: Mapping[str, str], choice: Mapping[str, str], schema: Any) -> None:
    """Add a choice to every list that has another one."""
    if isinstance(schema, list) and beside in schema and choice not in schema:
        schema.append(choice)
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list | tuple) else ():
        _add_choice(beside, choice, part)


def _converted(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of pydantic's draft in draft 7, with templates allowed wherever a spec may have them."""
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("title", "discriminator") or (key == "default" and value is None):
            continue  # the titles repeat the keys; an editor would write `null` for the user
        if key == "default" and schema.get("format") == "duration":
            value = duration_text(value)
        if key in ("properties", "patternProperties"):
            found[key] = {name: _converted(each) for name, each in value.items()}
        elif key == "$ref":
            found[key] = value.replace("#/$defs/", "#/definitions/")
        elif key in ("default", "examples", "const", "enum", "required"):
            found[key] = value
        elif isinstance(value, dict):
            found[key] = _converted(value)
        elif isinstance(value, list):
            found[key] = [_converted(each) for each in value]
        else:
            found[key] = value
    if "$ref" in found and len(found) > 1:  # draft 7 ignores whatever stands beside a reference
        found["allOf"] = [{"$ref": found.pop("$ref")}]
        found["type"] = "object"  # without it, yaml-language-server completes the key without its colon
    return _or_template(found)


def _or_template(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow a template in place of a value that is not a text."""
    choices = cast("list[dict[str, Any]] | None", schema.get("anyOf"))
    if choices is not None:
        flat: list[dict[str, Any]] = []
        for choice in choices:
            flat += choice["anyOf"] if choice.keys() == {"anyOf"} else [choice]
        templates = [choice for choice in flat if choice == TEMPLATE]
        others = [choice for choice in flat if choice != TEMPLATE]
        is_text = any(choice.get("type") == "string" and len(choice) == 1 for choice in others)
        return {**schema, "anyOf": [*others, *([] if is_text else templates[:1])]}
    is_text = schema.get("type") in ("string", "null", "object", None) and not {"enum", "const"} & schema.keys()
    if is_text or schema.get("const") is not None:
        return schema
    about: dict[str, Any] = {key: schema[key] for key in ("description", "default", "examples") if key in schema}
    value = {key: each for key, each in schema.items() if key not in about}
    return {**about, "anyOf": [value, TEMPLATE]}
