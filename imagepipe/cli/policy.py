"""`imagepipe policy`: the IAM policy that specs need. Loads what `validate` does, and asks no cloud."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from imagepipe.cli.options import check_region, found_specs, given, unknown_variables, variable_options
from imagepipe.errors import SpecError, UsageError
from imagepipe.iam.document import LIMIT, Statement, document, parts, size
from imagepipe.policy.context import PolicyContext
from imagepipe.policy.generate import For, explained, statements
from imagepipe.spec.load import SAMPLE_BUILD, load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec
from imagepipe.spec.not_yet import not_yet


@click.command(
    epilog="""\b
Examples:
  imagepipe policy web-server.yaml >policy.json
  imagepipe policy web-server.yaml --explain
  imagepipe policy specs/ --for clean --region eu-west-1
  aws iam put-role-policy --role-name baker --policy-name imagepipe --policy-document file://policy.json
"""
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@variable_options
@click.option("--region", metavar="REGION", help="Build in this region instead of launch.region; publish.regions stay.")
@click.option(
    "--for",
    "wanted",
    type=click.Choice(get_args(For)),
    default="build",
    help="`build`: a build with its cleanup, `clean RUN` and `resume`; `clean`: only `clean`, including --older-than.  "
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
def policy(
    specs: Sequence[str],
    variables: Sequence[str],
    var_files: Sequence[Path],
    region: str | None,
    wanted: For,
    role: str | None,
    part: int | None,
    explain: bool,
) -> None:
    """Print the IAM policy that specs need, given by path, by folder, or by the name of a file in specs/.

    For several specs, the policy allows what all of them need. It allows creating resources with the spec's tag, and
    using and deleting resources that have it, in the spec's regions. Needs no credentials and contacts no cloud.
    """
    values = given(variables, var_files)
    loaded = load(found_specs(specs), values, build=SAMPLE_BUILD)
    refuse(loaded)
    if problems := [problem for one in loaded for problem in not_yet(one)]:
        raise SpecError(problems)
    unknown_variables([frozenset(one.checked().variables) for one in loaded], values)
    if region:
        check_region(region, loaded)
    needs = [PolicyContext(one.checked(), _region(one, region), role) for one in loaded]
    if explain:
        _table(explained(needs, wanted))
        return
    _say_role(needs)
    _print(statements(needs, wanted), part)


def _region(one: LoadedSpec, region: str | None) -> str:
    spec: Spec = one.checked()
    found = region or spec.launch.region or os.environ.get("AWS_DEFAULT_REGION")
    if not found:
        raise UsageError(f"spec '{spec.name}' has no region", hint="set launch.region, or give --region")
    return found


def _say_role(needs: Sequence[PolicyContext]) -> None:
    """Which role a profile has only IAM knows."""
    for need in needs:
        if (profile := need.spec.launch.iam_instance_profile) and need.role is None:
            name = profile.rpartition("/")[2]
            click.echo(
                f"note: the role of instance profile {name} is taken to be called {name} too; --role says otherwise",
                err=True,
            )


def _print(found: Sequence[Statement], part: int | None) -> None:
    """The whole policy, or a part of it; how to attach it where IAM would not take it whole."""
    whole = document(found)
    several = parts(found)
    if part is not None:
        if part > len(several):
            raise UsageError(f"--part {part}: the policy has {len(several)} part{'s' if len(several) > 1 else ''}")
        whole = several[part - 1]
    elif len(several) > 1:
        click.echo(
            f"warning: {size(whole)} characters, and a managed policy has at most {LIMIT}: print it with --part 1 to"
            f" --part {len(several)} and attach them all",
            err=True,
        )
    click.echo(json.dumps(whole, indent=2))


def _table(rows: Sequence[tuple[str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for action, sids, who in rows:
        click.echo(f"{action:{widths[0]}}  {sids:{widths[1]}}  {who}")
