"""The command `imagepipe`, which prints errors and picks exit codes."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
import threading
from typing import NoReturn

import click

from imagepipe import __version__
from imagepipe.cli import streams
from imagepipe.cli.help_texts import help_text
from imagepipe.errors import ImagepipeError, SpecError, UndoFailed

BUG = "a bug in imagepipe"
"""Start of the message about an exception that nobody expected; the tests look for it."""
COMMANDS = {
    "init": ("imagepipe.cli.init:init", "Write a project that bakes at once."),
    "build": ("imagepipe.cli.build:build", "Bake the images of specs."),
    "validate": ("imagepipe.cli.validate:validate", "List every problem of specs at once; contacts no cloud."),
    "publish": ("imagepipe.cli.publish:publish", "Make images that exist match their specs in every region."),
    "plan": ("imagepipe.cli.plan:plan", "Print what a build would do, why, for how long and at what cost."),
    "why": ("imagepipe.cli.why:why", "Say why images are up to date, or which of their inputs have changed."),
    "ci-matrix": (
        "imagepipe.cli.ci_matrix:ci_matrix",
        "Print the CI jobs that bake specs, without the unchanged ones.",
    ),
    "graph": ("imagepipe.cli.graph:graph", "Draw specs and their bases, or the stages of one spec."),
    "convert": ("imagepipe.cli.convert:convert", "Turn a Packer template into specs; lists what has no counterpart."),
    "provisioners": ("imagepipe.cli.provisioners:provisioners", "List the provisioners that a spec can use."),
    "fmt": ("imagepipe.cli.fmt:fmt", "Lay out specs and provisioners; comments stay."),
    "schema": ("imagepipe.cli.schema:schema", "Print the JSON Schema of specs, for editors."),
    "policy": ("imagepipe.cli.policy:policy", "Print the IAM policy that specs need; contacts no cloud."),
    "resume": ("imagepipe.cli.resume:resume", "Resume a run whose process died."),
    "clean": ("imagepipe.cli.clean:clean", "Delete the resources of dead or failed runs."),
    "runs": ("imagepipe.cli.runs:runs", "List runs and the resources they still hold."),
    "show": ("imagepipe.cli.show:show", "Print the output of a run again."),
    "logs": ("imagepipe.cli.logs:logs", "Print the log of a run or of its stages, also while it is running."),
    "report": ("imagepipe.cli.report:report", "Write reports of a run: HTML, JSON, Markdown, JUnit and others."),
    "ui": ("imagepipe.cli.ui:ui", "Show all runs and images in a browser, live."),
    "ssh": ("imagepipe.cli.ssh:ssh", "Log in to a machine that was kept after a failure."),
    "images": ("imagepipe.cli.images:images", "List, show, launch, retire and deregister images."),
    "demo": ("imagepipe.cli.demo:demo", "Bake a sample on the local cloud, boot its image and fetch its page."),
    "worker": ("imagepipe.cli.worker:worker", "Bake for builds on Temporal, when one machine is not enough."),
    "bundle": ("imagepipe.cli.bundle:bundle", "Pack, unpack, verify and inspect instance-store bundles."),
    "completion": ("imagepipe.cli.completion:completion", "Print the script that completes words in a shell."),
    "local": ("imagepipe.cli.local:local", "Manage the local cloud: serve, run, ssh, stop, status, reset, doctor."),
}
"""Module and help line of each command. A command's libraries are loaded only when it is called."""


HIDDEN = {"run-bake": "imagepipe.cli.run_bake:run_bake"}
"""Commands that programs call."""

SHORT_LIVED = frozenset({"build", "run-bake", "publish", "resume", "validate", "why", "plan", "ci-matrix"})
"""Commands that start with the garbage collector off. Libraries and botocore's models create hundreds of thousands of
objects that are never freed, and each collection would visit them all. A run turns it on before its first stage."""
FORMER_OPTIONS = {"--json": "--format json"}
"""Renamed options, old name first; click's error for the old name suggests the new one."""
_NO_SPACE = "free space on the disk, then repeat the command"
_NOT_ALLOWED = "see whether you may read and write there, and whether the file system is read-only"
OS_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _NO_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NOT_ALLOWED),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files: ulimit -n"),
}
"""Advice for errors of the operating system that no command expected, by their number."""
STAGE_THREAD = "stage "
"""Start of the names of the executor's threads (engine/executor.py, which this module does not load)."""


class LazyGroup(click.Group):
    """Loads a command's module when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        place = HIDDEN.get(name) or (COMMANDS[name][0] if name in COMMANDS else None)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and args[0] not in HIDDEN:
            from difflib import get_close_matches

            meant = get_close_matches(args[0], COMMANDS, n=1)
            suffix = f" Did you mean '{meant[0]}'?" if meant else ""
            raise click.UsageError(f"No such command '{args[0]}'.{suffix}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="imagepipe")
@click.pass_context
def main(context: click.Context) -> None:
    """Bake Amazon Machine Images from YAML and copy them to regions, on AWS or (with --local) on this machine.

    \b
    imagepipe validate                          check every spec under specs/
    imagepipe build web-server.yaml --local     bake it here, without an account
    imagepipe build web-server.yaml             bake it on AWS
    imagepipe clean --all                       delete the resources of dead runs
    """
    if context.invoked_subcommand is None:
        from pathlib import Path

        from imagepipe.cli.here import next_steps

        click.echo(next_steps(Path.cwd(), os.environ))


def run() -> NoReturn:
    """Run the command, and end the process with its exit code."""
    standard = streams.guard()
    # Pydantic would read the metadata of every installed package, to find plugins of its own (its "Plugins" page).
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") in SHORT_LIVED:
        gc.disable()
    code = standard.exit_code(_exit_code())
    gc.freeze()  # so that Python's last collection, at exit, skips all objects
    if any(thread.name.startswith(STAGE_THREAD) for thread in threading.enumerate()):
        os._exit(code)  # a stage did not end in time, and Python would wait for its thread
    if "temporalio" in sys.modules:
        os._exit(code)  # its native threads may call into an interpreter that is ending, which aborts the process
    sys.exit(code)


def _exit_code() -> int:
    if (text := help_text(sys.argv[0], sys.argv[1:])) is not None:
        click.echo(text, nl=False)
        return 0
    try:
        result = main(standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        _show_usage_error(error)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("cancelled", err=True)
        return 130
    except ImagepipeError as error:
        show(error)
        return error.exit_code
    except UndoFailed as error:
        for each in error.exceptions:
            click.echo(f"error: {each}", err=True)
        return error.exit_code
    except OSError as error:
        _print_traceback()
        what = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {what}{error.strerror or error}", err=True)
        click.echo(f"  hint: {OS_HINTS.get(error.errno or 0, 'set IMAGEPIPE_DEBUG=1 to see where')}", err=True)
        return 1
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        _print_traceback()
        click.echo(
            f"error: {BUG}: {type(error).__name__}: {error}\n"
            "  hint: set IMAGEPIPE_DEBUG=1 to see where, and please report it",
            err=True,
        )
        return 1


def _print_traceback() -> None:
    if os.environ.get("IMAGEPIPE_DEBUG"):
        import traceback

        traceback.print_exc()


def _show_usage_error(error: click.ClickException) -> None:
    """Print click's error about the command line in the format of all other errors."""
    if isinstance(error, click.NoSuchOption) and (now := FORMER_OPTIONS.get(error.option_name)):
        error = click.NoSuchOption(error.option_name, possibilities=[now], ctx=error.ctx)
    text = error.format_message()
    click.echo(f"error: {text[:1].lower()}{text[1:].removesuffix('.')}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"  hint: see {error.ctx.command_path} --help", err=True)


def show(error: ImagepipeError) -> None:
    """Print an error on standard error, in the format that all commands share."""
    if isinstance(error, SpecError):
        for problem in error.problems:
            click.echo(problem.text(), err=True)
        count = len(error.problems)
        click.echo(f"{count} problem{'' if count == 1 else 's'}", err=True)
        return
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


if __name__ == "__main__":
    run()
