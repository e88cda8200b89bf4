"""`imagepipe ui`: all runs and images in a browser."""

from __future__ import annotations

import secrets
import threading
import webbrowser

import click

from imagepipe.cli.options import CloudOptions
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, check_state_access, state_access_options
from imagepipe.clock import SystemClock
from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError


@dataclass(frozen=True, slots=True)
class UiOptions:
    """Options of `imagepipe ui`."""

    port: int
    opens: bool
    state: StateOptions
    cloud: CloudOptions


@click.command(
    epilog="""\b
Examples:
  imagepipe ui
  imagepipe ui --open
  imagepipe ui --port 8080 --state s3://our-state/team
  ssh -L 8080:127.0.0.1:8080 builder imagepipe ui --port 8080      # runs of another machine
"""
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1.  [default: a free one]")
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@state_access_options
@pass_options(UiOptions)
def ui(options: UiOptions) -> None:
    """Show all runs and images in a browser: their reports, live while they run, and two runs compared.

    The pages are read-only, and only for the browser that opens the printed address, because it has a token. Ctrl-C
    ends the command; builds go on.
    """
    from imagepipe.cli.ui_server import UiServer

    check_state_access(options.state, options.cloud)
    with open_state(options.state, options.cloud, SystemClock()) as store:
        try:
            server = UiServer(options.port, store, secrets.token_urlsafe(16), options.cloud)
        except OSError as error:
            raise UsageError(
                f"serving on port {options.port} of 127.0.0.1: {error.strerror}", hint="leave out --port for a free one"
            ) from error
        with server:
            try:
                click.echo(server.url)
                if options.opens:
                    threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                click.echo("")
            finally:
                server.is_over = True
