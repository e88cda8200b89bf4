"""`imagepipe bundle`: pack, unpack, verify and inspect instance-store bundles. Contacts no cloud."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError, UsageError

if TYPE_CHECKING:
    from imagepipe.bundle.certificates import Certificate
    from imagepipe.bundle.manifest import Manifest

_FILE = click.Path(path_type=Path, dir_okay=False)
_manifest_argument = click.argument("manifest", type=_FILE)
_folder_option = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Write into this folder; it is created if it does not exist.  [default: here]",
)


@dataclass(frozen=True, slots=True)
class PackOptions:
    """Arguments and options of `imagepipe bundle pack`."""

    image: Path
    certificate: Path
    private_key: Path
    account: str
    ec2_certificate: Path | None
    region: str | None
    arch: Literal["x86_64", "i386"]
    name: str
    output: Path
    any_size: bool
    force: bool


@click.group()
def bundle() -> None:
    """Pack a disk image into an instance-store bundle; unpack, verify and inspect bundles. Contacts no cloud."""


@bundle.command(
    short_help="Pack a raw disk image into a bundle.",
    epilog="""\b
Examples:
  imagepipe bundle pack disk.raw --certificate user.pem --private-key user.key \\
    --account 123456789012 --region us-east-1
  imagepipe bundle pack disk.raw --certificate user.pem --private-key user.key \\
    --account 123456789012 --ec2-certificate cert-ec2.pem --name web-7 --output bundles
""",
)
@click.argument("image", type=_FILE)
@click.option(
    "--certificate", type=_FILE, required=True, metavar="PEM", help="Your X.509 certificate, with an RSA key."
)
@click.option(
    "--private-key",
    type=_FILE,
    required=True,
    metavar="KEY",
    help="The certificate's private key, which signs the bundle.",
)
@click.option(
    "--account", required=True, metavar="ID", help="The account that will register the image (twelve digits)."
)
@click.option("--ec2-certificate", type=_FILE, metavar="PEM", help="EC2's certificate for the region.")
@click.option("--region", metavar="REGION", help="Find EC2's certificate for this region on this machine.")
@click.option(
    "--arch",
    type=click.Choice(["x86_64", "i386"]),
    default="x86_64",
    show_default=True,
    help="Architecture of the image.",
)
@click.option("--name", default="image", show_default=True, help="Name of the bundle's files.")
@_folder_option
@click.option("--any-size", is_flag=True, help="Allow more than 10 GiB, which EC2 does not accept.")
@click.option("--force", is_flag=True, help="Replace an existing bundle with this name.")
@pass_options(PackOptions)
def pack(options: PackOptions) -> None:
    """Pack the raw disk image IMAGE into NAME.manifest.xml and parts of 10 MiB, NAME.part.NN.

    Holes and blocks of zeros take no space. The files appear at the end, the manifest last; after a failure or Ctrl-C
    no files are left.
    """
    from imagepipe.bundle.certificates import load_owner
    from imagepipe.bundle.describe import parts_text, size_text
    from imagepipe.bundle.manifest import Label, Recipients
    from imagepipe.bundle.pack import EC2_LIMIT_BYTES
    from imagepipe.bundle.pack import pack as pack_image
    from imagepipe.bundle.parts import FolderSink
    from imagepipe.bundle.sparse import opened_image

    _end_in_order()
    owner = load_owner(options.certificate, options.private_key)
    recipients = Recipients(owner, _ec2_certificate(options.ec2_certificate, options.region))
    with (
        FolderSink(options.output, options.name, is_forced=options.force) as sink,
        opened_image(options.image) as opened,
    ):
        with _progress("packing", opened.data_bytes) as progress:
            made = pack_image(
                opened,
                sink,
                label=Label(options.name, options.account, options.arch),
                recipients=recipients,
                limit_bytes=None if options.any_size else EC2_LIMIT_BYTES,
                progress=progress,
            )
        data = size_text(opened.data_bytes)
    manifest = options.output / made.filename
    click.echo(f"{manifest}: {parts_text(made)}, {size_text(made.bundled_size)} of {data} of data")


@bundle.command(
    short_help="Unpack a bundle into a raw disk image.",
    epilog="""\b
Examples:
  imagepipe bundle unpack bundles/web-7.manifest.xml --private-key user.key
  imagepipe bundle unpack image.manifest.xml --private-key user.key --output disks
""",
)
@_manifest_argument
@click.option(
    "--private-key",
    type=_FILE,
    required=True,
    metavar="KEY",
    help="Private key of the certificate that the bundle was packed with.",
)
@_folder_option
@click.option("--force", is_flag=True, help="Replace an existing file with the image's name.")
def unpack(manifest: Path, private_key: Path, output: Path, force: bool) -> None:
    """Unpack the bundle whose parts are next to MANIFEST into a raw, sparse disk image with the bundle's name.

    Each part is checked before it is used. The image appears once everything is correct, readable only by you.
    """
    from imagepipe.bundle.certificates import load_private_key
    from imagepipe.bundle.describe import size_text
    from imagepipe.bundle.manifest import find_secret
    from imagepipe.bundle.parts import folder_source
    from imagepipe.bundle.unpack import unpack as unpack_image

    _end_in_order()
    parsed, _ = _read(manifest)
    secret = find_secret(parsed, load_private_key(private_key))
    target = output / parsed.name
    with _progress("unpacking", parsed.size) as progress:
        unpack_image(parsed, folder_source(manifest.parent), secret, target, is_forced=force, progress=progress)
    click.echo(f"{target}: {size_text(parsed.size)}, {size_text(target.stat().st_blocks * 512)} of it on disk")


@bundle.command(
    short_help="Check a bundle, part by part.",
    epilog="""\b
Examples:
  imagepipe bundle verify image.manifest.xml
  imagepipe bundle verify image.manifest.xml --private-key user.key --certificate user.pem
""",
)
@_manifest_argument
@click.option("--private-key", type=_FILE, metavar="KEY", help="Also decrypt the image and check its digest and size.")
@click.option(
    "--certificate", type=_FILE, metavar="PEM", help="Also check that this certificate's key signed the bundle."
)
def verify(manifest: Path, private_key: Path | None, certificate: Path | None) -> None:
    """Check the bundle whose parts are next to MANIFEST, and report all damage. Writes nothing.

    Exit code 8 if anything is wrong. The signature shows who made a bundle; EC2 does not check it.
    """
    from imagepipe.bundle.certificates import load_certificate, load_private_key
    from imagepipe.bundle.describe import parts_text, size_text
    from imagepipe.bundle.manifest import find_secret, is_signed_by
    from imagepipe.bundle.parts import folder_source
    from imagepipe.bundle.verify import verify_image, verify_parts

    parsed, document = _read(manifest)
    source = folder_source(manifest.parent)
    key = load_private_key(private_key) if private_key else None
    signer = load_certificate(certificate) if certificate else None
    with _progress("verifying parts", parsed.bundled_size) as progress:
        damage = list(verify_parts(parsed, source, progress=progress))
    if signer and not is_signed_by(document, signer):
        damage.append(BundleError(f"the bundle was not signed with the key of {signer.where}"))
    if key and not damage:
        secret = find_secret(parsed, key)
        with _progress("verifying the image", parsed.size) as progress:
            verify_image(parsed, source, secret, progress=progress)
    for each in damage:
        click.echo(f"{each}{f' ({each.hint})' if each.hint else ''}", err=True)
    if damage:
        raise BundleError(f"{manifest} is damaged: {len(damage)} problem{'' if len(damage) == 1 else 's'}")
    click.echo(f"parts      {parts_text(parsed)}, {size_text(parsed.bundled_size)}: intact")
    click.echo(f"image      {f'{size_text(parsed.size)}: intact' if key else 'not read: pass --private-key'}")
    click.echo(f"signature  {f'matches {signer.where}' if signer else 'not checked: pass --certificate'}")


@bundle.command(
    epilog="""\b
Examples:
  imagepipe bundle inspect image.manifest.xml
  imagepipe bundle inspect image.manifest.xml --format json
"""
)
@_manifest_argument
@format_option(description="Print the contents in this format.")
def inspect(manifest: Path, output: Format) -> None:
    """Print the contents of MANIFEST; needs neither key nor parts."""
    from imagepipe.bundle.describe import as_json, as_lines

    parsed, _ = _read(manifest)
    if output == "json":
        print_json(as_json(parsed))
        return
    for line in as_lines(parsed):
        click.echo(line)


def _read(path: Path) -> tuple[Manifest, bytes]:
    """Return the manifest and its bytes."""
    from imagepipe.bundle.document import LARGEST_BYTES
    from imagepipe.bundle.manifest import read_manifest

    try:
        with path.open("rb") as file:
            document = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"reading the manifest {path}: {error.strerror}") from error
    try:
        return read_manifest(document), document
    except BundleError as error:
        raise BundleError(f"{path}: {error}", hint=error.hint) from error


def _ec2_certificate(path: Path | None, region: str | None) -> Certificate:
    from imagepipe.bundle.certificates import certificate_folders, find_ec2_certificate, load_certificate

    if path is not None:
        return load_certificate(path)
    if region is None:
        raise UsageError(
            "EC2 cannot read a bundle that is packed without its certificate",
            hint="pass --ec2-certificate FILE, or --region if ec2-ami-tools or euca2ools is installed here",
        )
    return find_ec2_certificate(region, certificate_folders(os.environ))


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error if it is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total, label=what, file=sys.stderr, show_pos=False) as bar:
        yield bar.update


def _end_in_order() -> None:
    """Make SIGTERM remove incomplete files, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
