"""`imagepipe policy`: print the IAM policy that specs need. Loads no cloud library."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import get_args

import click

from imagepipe.cli.options import (
    NamedSpecs,
    VariableOptions,
    check_region,
    read_variables,
    region_option,
    unknown_variables,
    variable_options,
)
from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.state_options import StateOptions, location_of, state_option
from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.iam.document import LIMIT, Statement, document, merged, parts, size
from imagepipe.policy.context import PolicyContext
from imagepipe.policy.generate import For, explained, statements
from imagepipe.policy.shared_state import shared_state
from imagepipe.spec.load import SAMPLE_BUILD, load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec
from imagepipe.spec.selection import select_variants


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Arguments and options of `imagepipe policy`."""

    specs: tuple[str, ...]
    variables: VariableOptions
    region: str | None
    purpose: For
    role: str | None
    part: int | None
    explain: bool
    output: Format
    state: StateOptions


@click.command(
    epilog="""\b
Examples:
  imagepipe policy web-server.yaml >policy.json
  imagepipe policy web-server.yaml --explain
  imagepipe policy web-server.yaml --explain --format json
  imagepipe policy specs/ --for clean --region eu-west-1
  imagepipe policy web-server.yaml --for prune --explain
  imagepipe policy web-server.yaml --state s3://our-state/team
  aws iam put-role-policy --role-name baker --policy-name imagepipe --policy-document file://policy.json
"""
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@variable_options
@region_option
@click.option(
    "--for",
    "purpose",
    type=click.Choice(get_args(For)),
    default="build",
    help="`build`: a build with its cleanup, `clean RUN` and `resume`; `publish`: `imagepipe publish` of images that "
    "exist; `clean`: only `clean`, including --older-than; `prune`: only `images prune`, in all regions.  "
    "[default: build]",
)
@click.option(
    "--role", metavar="NAME", help="The role in launch.iam_instance_profile, if its name differs from the profile's."
)
@click.option(
    "--part",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print the Nth policy, if one policy is too small for all statements.",
)
@click.option(
    "--explain", is_flag=True, help="Print each action, the statements that allow it, and the stages that call it."
)
@state_option
@format_option(description="Print the table of --explain in this format. A policy is always JSON, as IAM takes it.")
@pass_options(PolicyOptions)
def policy(options: PolicyOptions) -> None:
    """Print the IAM policy that specs need, given by path, by folder, or by the name of a file in specs/.

    For several specs, the policy allows what all of them need. It allows creating resources with the spec's tag, and
    using and deleting resources that have it, in the spec's regions. With shared state, it also allows using that.
    Needs no credentials and contacts no cloud.
    """
    values = read_variables(options.variables)
    named = NamedSpecs.of(options.specs)
    loaded = select_variants(load(named.files, values, build=SAMPLE_BUILD), named.selections)
    refuse(loaded)
    unknown_variables([frozenset(each.checked().variables) for each in loaded], values)
    if options.region:
        check_region(options.region, loaded)
    needs = [PolicyContext(each.checked(), _region(each, options.region), options.role) for each in loaded]
    state = list(_state_statements(options.state, needs[0].home))
    if options.explain:
        rows = [(action, each.sid, "--state") for each in state for action in each.actions]
        _print_table(sorted([*explained(needs, options.purpose), *rows]), options.output)
        return
    _note_roles(needs)
    _print(merged([*statements(needs, options.purpose), *state]), options.part)


def _state_statements(options: StateOptions, region: str) -> Iterator[Statement]:
    """Yield the statements for shared state; none if runs are on this computer."""
    if location := location_of(options):
        yield from shared_state(location.bucket, location.prefix, location.kms_key, region=region)


def _region(loaded: LoadedSpec, region: str | None) -> str:
    spec: Spec = loaded.checked()
    found = region or spec.launch.region or os.environ.get("AWS_DEFAULT_REGION")
    if not found:
        raise UsageError(f"spec '{spec.name}' has no region", hint="set launch.region, or pass --region")
    return found


def _note_roles(needs: Sequence[PolicyContext]) -> None:
    """Print the role name that is assumed for each instance profile, because only IAM knows the real one."""
    for need in needs:
        if (profile := need.spec.launch.iam_instance_profile) and need.role is None:
            name = profile.rpartition("/")[2]
            click.echo(
                f"note: the role of instance profile {name} is assumed to be named {name} too; --role names another",
                err=True,
            )


def _print(found: Sequence[Statement], part: int | None) -> None:
    """Print the policy or a part of it, and a warning if it is too large for IAM."""
    whole = document(found)
    several = parts(found)
    if part is not None:
        if part > len(several):
            raise UsageError(f"--part {part}: the policy has {len(several)} part{'s' if len(several) > 1 else ''}")
        whole = several[part - 1]
    elif len(several) > 1:
        click.echo(
            f"warning: {size(whole)} characters, but a managed policy may have only {LIMIT}: print it with --part 1 to"
            f" --part {len(several)} and attach them all",
            err=True,
        )
    print_json(whole)


def _print_table(rows: Sequence[tuple[str, str, str]], output: Format) -> None:
    """Print each action with its statements and stages."""
    if output == "json":
        print_json(
            [
                {"action": action, "statements": sids.split(", "), "stages": stages.split(", ")}
                for action, sids, stages in rows
            ]
        )
        return
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for action, sids, stages in rows:
        click.echo(f"{action:{widths[0]}}  {sids:{widths[1]}}  {stages}")
