"""Load the specs that a command names, choose among them, and refuse those that cannot be built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from imagepipe.cli.options import NamedSpecs, unknown_variables
from imagepipe.cli.output_format import F
from imagepipe.dataclass import dataclass
from imagepipe.errors import SpecError
from imagepipe.spec.find import PROJECT_FILE, SUFFIXES
from imagepipe.spec.load import Build, load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import InstanceStoreOutput
from imagepipe.spec.selection import narrow, select_variants
from imagepipe.spec.step_models import AnsibleStep
from imagepipe.spec.variables import Given, given_value


@dataclass(frozen=True, slots=True)
class Selection:
    """Values of `selection_options`."""

    only: tuple[str, ...] = ()
    with_dependents: bool = False
    force: bool = False


def only_option(command: F) -> F:
    """Add `--only`."""
    return click.option(
        "--only",
        multiple=True,
        metavar="SPEC",
        help="Of the specs given, only this one; repeatable. A build reuses its bases if nothing has changed.",
    )(command)


def selection_options(command: F) -> F:
    """Add `--only`, `--with-dependents` and `--force`."""
    for option in (
        click.option(
            "--force", is_flag=True, help="Bake the specs given even if they say `reuse` and nothing has changed."
        ),
        click.option("--with-dependents", is_flag=True, help="Also build every spec that is built on one of these."),
        only_option,
    ):
        command = option(command)
    return command


def stored_variables(values: Given, loaded: Sequence[LoadedSpec]) -> dict[str, Any]:
    """Return the variables that another process needs to load the same specs. Sensitive ones are left out."""
    variables: dict[str, Any] = {}
    for spec in loaded:
        for name, variable in spec.checked().variables.items():
            if not variable.sensitive and (value := given_value(name, variable, values)) is not None:
                variables[name] = value
    for spec in loaded:
        for name, variable in spec.checked().variables.items():
            if variable.sensitive:
                variables.pop(name, None)
    return variables


def load_buildable(
    named: NamedSpecs, given: Given, build: Build | None, selection: Selection = Selection()
) -> list[LoadedSpec]:
    """Load specs that can be built. Raises SpecError with all problems.

    Without `build`, as on a machine that lacks the secrets, a variable without a value is not a problem.
    """
    loaded = load_named(named, given, build, selection)
    for spec in loaded:
        for problem in spec.problems:
            if problem.severity == "warning":
                click.echo(problem.text(), err=True)
    refuse(loaded)
    unknown_variables([frozenset(spec.checked().variables) for spec in loaded], given)
    return narrow(loaded, selection.only, with_dependents=selection.with_dependents)


def load_named(named: NamedSpecs, given: Given, build: Build | None, selection: Selection) -> list[LoadedSpec]:
    """Load the specs that were named, with their problems; refuse and print nothing."""
    beside = _specs_beside(named.files) if selection.with_dependents else []
    loaded = load(named.files, given, build=build, dependents_in=beside)
    return select_variants(loaded, named.selections)


def _specs_beside(files: Sequence[Path]) -> list[Path]:
    """Return the specs in the folders of these files."""
    siblings = sorted({sibling for file in files for sibling in file.parent.glob("*.y*ml")})
    return [file for file in siblings if file.suffix in SUFFIXES and file.name != PROJECT_FILE]


def check_this_computer(loaded: Sequence[LoadedSpec], region: str | None, *, is_local: bool) -> None:
    """Raise an error if something that a build needs here is missing: files of bundles, or ansible-playbook."""
    check_files_of_bundles(loaded, region, is_local=is_local)
    steps = (at.step for spec in loaded for at in (*spec.steps, *spec.tests))
    if any(isinstance(step, AnsibleStep) and step.ansible.run == "here" for step in steps):
        from imagepipe.provision.ansible import ansible_playbook

        ansible_playbook()


def check_files_of_bundles(loaded: Sequence[LoadedSpec], region: str | None, *, is_local: bool) -> None:
    """Raise SpecError if a file that a bundle needs is missing or wrong: a signing key, or EC2's certificate."""
    bundled = [spec for spec in loaded if isinstance(spec.checked().output, InstanceStoreOutput)]
    if not bundled:
        return
    from imagepipe.wiring.certificates import check_bundle_files  # loads the libraries of bundles

    problems = [
        problem
        for spec in bundled
        for problem in check_bundle_files(spec, environment=os.environ, is_local=is_local, region=region)
    ]
    if problems:
        raise SpecError(problems)
