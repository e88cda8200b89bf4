"""`imagepipe init`: write a project that bakes at once."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import click

from imagepipe.cli.pass_options import pass_options
from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.spec.json_schema import MODELS, json_schema

TEMPLATES = Path(__file__).parent / "starter"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d")
DEFAULT_NAME = "web"
DEFAULT_REGION = "us-east-1"
DistributionName = Literal["debian", "ubuntu", "amazon-linux"]
Ci = Literal["github", "gitlab", "none"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution's newest image, as specs name it, and how nginx is installed there."""

    source: str
    user: str
    install: str
    pages: str
    """Folder of nginx's pages."""
    is_local: bool = False
    """True if the local cloud has such an image from the start."""


DEBIAN_PAGES, FEDORA_PAGES = "/var/www/html", "/usr/share/nginx/html"
APT = "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {packages}"
DISTRIBUTIONS: Mapping[DistributionName, Distribution] = {
    "debian": Distribution(
        '{name: "debian-12-amd64-*", owners: ["136693071363"], architecture: x86_64}',
        "admin",
        APT.format(packages="nginx-light"),
        DEBIAN_PAGES,
        is_local=True,
    ),
    "ubuntu": Distribution(
        '{name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*", owners: ["099720109477"]}',
        "ubuntu",
        APT.format(packages="nginx-light"),
        DEBIAN_PAGES,
    ),
    "amazon-linux": Distribution(
        "{ssm: /aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64}",
        "ec2-user",
        "dnf install --assumeyes nginx",
        FEDORA_PAGES,
    ),
}
"""Owners and parameters: wiki.debian.org/Cloud/AmazonEC2Image, documentation.ubuntu.com/aws, and the user guide of
Amazon Linux 2023."""


@dataclass(frozen=True, slots=True)
class InitOptions:
    """Arguments and options of `imagepipe init`."""

    folder: Path
    name: str | None
    distribution: DistributionName | None
    region: str | None
    ci: Ci | None
    is_silent: bool


@dataclass(frozen=True, slots=True)
class _Answers:
    name: str
    distribution: DistributionName
    region: str
    ci: Ci


@click.command(
    epilog="""\b
Examples:
  imagepipe init
  imagepipe init my-images --yes
  imagepipe init --distribution ubuntu --region eu-west-1 --ci gitlab --yes
"""
)
@click.argument(
    "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), required=False, metavar="[FOLDER]"
)
@click.option("--name", metavar="NAME", help=f"Name of the first spec and its images.  [default: {DEFAULT_NAME}]")
@click.option(
    "--distribution", type=click.Choice(get_args(DistributionName)), help="System of the image.  [default: debian]"
)
@click.option("--region", metavar="REGION", help=f"Region to bake in.  [default: the AWS CLI's, or {DEFAULT_REGION}]")
@click.option("--ci", type=click.Choice(get_args(Ci)), help="Workflow to write.  [default: github]")
@click.option("--yes", "is_silent", is_flag=True, help="Ask nothing; take the defaults.")
@pass_options(InitOptions)
def init(options: InitOptions) -> None:
    """Write a project into FOLDER (by default here) that bakes at once.

    It has a spec with tests, a provisioner, defaults for all specs, a CI workflow, and what an editor needs to complete
    and check specs. No existing file is changed.
    """
    answers = _ask(options)
    files = dict(_files(answers))
    existing = [name for name in files if os.path.lexists(options.folder / name)]
    if existing:
        raise UsageError(
            f"nothing was written, because {', '.join(existing)} {'exists' if len(existing) == 1 else 'exist'} already",
            hint="name another folder: imagepipe init FOLDER",
        )
    for name, content in files.items():
        path = options.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"writing {path}: {error.strerror}") from error
    click.echo("".join(f"wrote {options.folder / name}\n" for name in files), nl=False)
    click.echo(_next(options.folder, answers))


def _ask(options: InitOptions) -> _Answers:
    """Return the answers: those of the command line, of the user, or the defaults. Raises UsageError."""
    given = _Answers(
        options.name or DEFAULT_NAME,
        options.distribution or "debian",
        options.region or _region(),
        options.ci or "github",
    )
    if not options.is_silent and sys.stdin.isatty() and sys.stdout.isatty():
        if options.name is None:
            given = replace(given, name=click.prompt("name of the first image", default=given.name))
        if options.distribution is None:
            choice = click.Choice(get_args(DistributionName))
            given = replace(given, distribution=click.prompt("distribution", default="debian", type=choice))
        if options.region is None:
            given = replace(given, region=click.prompt("region", default=given.region))
        if options.ci is None:
            given = replace(given, ci=click.prompt("CI workflow", default="github", type=click.Choice(get_args(Ci))))
    if not NAME.fullmatch(given.name):
        raise UsageError(
            f"the name '{given.name}' is not one of a spec", hint="use lower-case letters, digits and hyphens, as web-1"
        )
    if not REGION.fullmatch(given.region):
        raise UsageError(f"'{given.region}' is not the name of a region", hint="a region is named like eu-west-1")
    return given


def _region() -> str:
    """Return the region of the environment, without loading AWS's libraries."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION


def _files(answers: _Answers) -> Iterator[tuple[str, str]]:
    """Yield the path and the content of each file."""
    yield "imagepipe.yaml", _filled("project.yaml", answers)
    yield f"specs/{answers.name}.yaml", _filled("spec.yaml", answers)
    yield "provisioners/front-page/provisioner.yaml", _filled("provisioner.yaml", answers)
    yield "provisioners/front-page/index.html.j2", _filled("index.html.j2", answers)
    if answers.ci == "github":
        yield ".github/workflows/images.yaml", _filled("github.yaml", answers)
    elif answers.ci == "gitlab":
        yield ".gitlab-ci.yml", _filled("gitlab.yaml", answers)
    yield ".vscode/settings.json", _filled("vscode.json", answers)
    for of in MODELS:
        yield f".imagepipe/{of}.schema.json", json.dumps(json_schema(of), indent=1, ensure_ascii=False) + "\n"


def _filled(template: str, answers: _Answers) -> str:
    distribution = DISTRIBUTIONS[answers.distribution]
    values = {
        "NAME": answers.name,
        "REGION": answers.region,
        "SOURCE": distribution.source,
        "USER": distribution.user,
        "INSTALL": distribution.install,
        "PAGES": distribution.pages,
    }
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    return re.sub("@([A-Z]+)@", lambda found: values[found[1]], text)


def _next(folder: Path, answers: _Answers) -> str:
    lines = ["", "next:"]
    if folder != Path():
        lines.append(f"  cd {folder}")
    lines.append("  imagepipe validate")
    if DISTRIBUTIONS[answers.distribution].is_local:
        lines.append(f"  imagepipe build {answers.name} --local    # bakes, boots and tests it on this computer")
    lines.append(f"  imagepipe build {answers.name}            # the same on AWS, in {answers.region}")
    return "\n".join(lines)
