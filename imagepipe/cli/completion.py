"""`imagepipe completion`: print the script that completes commands, options, specs and runs in a shell."""

from __future__ import annotations

from pathlib import Path

import click

SHELLS = ("bash", "zsh", "fish")
SCRIPTS = Path(__file__).parent / "completions"


@click.command(
    epilog="""\b
Examples:
  mkdir -p ~/.local/share/bash-completion/completions
  imagepipe completion bash > ~/.local/share/bash-completion/completions/imagepipe
  mkdir -p ~/.zfunc            # a folder of $fpath, named in ~/.zshrc before compinit
  imagepipe completion zsh > ~/.zfunc/_imagepipe
  imagepipe completion fish > ~/.config/fish/completions/imagepipe.fish
  eval "$(imagepipe completion bash)"      # in this shell only
"""
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script for SHELL that completes commands, options, choices, spec files and the runs of this machine.

    The script is the same on every machine, and starts no program but `ls`: print it again after an upgrade.
    """
    click.echo((SCRIPTS / f"imagepipe.{shell}").read_text(encoding="utf-8"), nl=False)
