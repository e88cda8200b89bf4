"""Load and check the user's certificate and key for instance-store images, and EC2's certificate of each region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from imagepipe.bundle.certificates import (
    KNOWN_REGIONS,
    certificate_folders,
    find_ec2_certificate,
    load_certificate,
    load_owner,
    load_private_key,
    make_pair,
)
from imagepipe.bundle.manifest import Recipients
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError, Problem
from imagepipe.spec.bundle_rules import bundle_region, regions_without_bucket
from imagepipe.spec.document import KeyPath as At
from imagepipe.spec.find import named_file
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import InstanceStoreOutput

PAIR = ("certificate", "private_key")
OWN_CERTIFICATE, OWN_KEY = "bundle.pem", "bundle.key"


@dataclass(frozen=True, slots=True)
class BundleSigning:
    """The certificates and keys for the bundles of this computer's builds."""

    environment: Mapping[str, str]
    folder: Path
    """Folder of the default key pair, for specs that name none; created with the first bundle."""
    local_certificate: Path | None
    """Certificate of the local cloud, for builds on it; None for AWS."""

    def recipients(self, loaded: LoadedSpec, region: str, *, home: str) -> Recipients:
        """Return the owner of a spec's bundles, and EC2's certificate in this region. Raises BundleError."""
        output = loaded.checked().output
        assert isinstance(output, InstanceStoreOutput)
        if output.certificate is not None and output.private_key is not None:
            own = [named_file(loaded.file.parent, each) for each in (output.certificate, output.private_key)]
        else:
            own = [self.folder / OWN_CERTIFICATE, self.folder / OWN_KEY]
            if not own[0].exists():
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                make_pair(*own, name="imagepipe bundles")
        owner = load_owner(*own)
        if self.local_certificate is not None:
            return Recipients(owner, load_certificate(self.local_certificate))
        given = bundle_region(output, region, home=home).ec2_certificate
        if given is not None:
            return Recipients(owner, load_certificate(named_file(loaded.file.parent, given)))
        return Recipients(owner, find_ec2_certificate(region, certificate_folders(self.environment)))


def check_bundle_files(
    loaded: LoadedSpec,
    *,
    environment: Mapping[str, str],
    is_local: bool,
    region: str | None = None,
    if_absent: str = "error",
) -> list[Problem]:
    """Return the problems with the certificate and key files of an instance-store image; none for other images.

    `region` is that of `--region`. If neither `--region` nor the spec sets the launch region, EC2's certificate for
    the launch region is not checked. `if_absent` is the severity if this computer lacks the EC2 certificate of a known
    region: a build needs it, but the spec is not wrong. The local cloud has its own certificate.
    """
    if loaded.spec is None or not isinstance(loaded.spec.output, InstanceStoreOutput):
        return []
    found = _Files(loaded, loaded.spec.output)
    found.check_pair()
    if not is_local:
        found.check_ec2(region or loaded.spec.launch.region, certificate_folders(environment), if_absent=if_absent)
    if region is not None and region != loaded.spec.launch.region:
        without = regions_without_bucket(loaded.spec, loaded.document, home=region)
        found.problems += [loaded.problem(path, message) for path, message in without]
    return found.problems


class _Files:
    """The files of one spec and the problems with them."""

    def __init__(self, loaded: LoadedSpec, output: InstanceStoreOutput) -> None:
        self._loaded = loaded
        self._output = output
        self.problems: list[Problem] = []

    def check_pair(self) -> None:
        """Check the user's certificate and private key, separately and together."""
        certificate, private_key = (self._file(getattr(self._output, name)) for name in PAIR)
        if certificate is not None:
            with self._at("output", "certificate"):
                load_certificate(certificate)
        if private_key is not None:
            with self._at("output", "private_key"):
                load_private_key(private_key)
        if certificate is not None and private_key is not None and not self.problems:
            with self._at("output", "private_key"):
                load_owner(certificate, private_key)

    def check_ec2(self, home: str | None, folders: tuple[Path, ...], *, if_absent: str) -> None:
        """Check EC2's certificate for every region of the image."""
        wanted = dict.fromkeys((*([home] if home else []), *self._loaded.checked().publish.regions))
        for region in wanted:
            is_own = region in self._output.per_region
            if region != home and not is_own:
                continue  # it has no bucket either, which is reported elsewhere
            given = bundle_region(self._output, region, home=home or region).ec2_certificate
            at: At = ("output", "per_region", region) if is_own else ("output",)
            if given is None:
                with self._at(*at, severity=if_absent if region in KNOWN_REGIONS else "error"):
                    find_ec2_certificate(region, folders)
            elif (file := self._file(given)) is not None:
                with self._at(*at, "ec2_certificate"):
                    load_certificate(file)

    def _file(self, given: str | None) -> Path | None:
        """Return a file of the spec; None if none is named, or if the name depends on a variable without a value.

        Missing files were already reported.
        """
        file = named_file(self._loaded.file.parent, given) if given else None
        return file if file is not None and file.is_file() else None

    @contextmanager
    def _at(self, *path: str | int, severity: str = "error") -> Iterator[None]:
        """Turn a BundleError into a problem at this place of the spec."""
        try:
            yield
        except BundleError as error:
            problem = self._loaded.document.problem(path, error.message, hint=error.hint, severity=severity)
            self.problems.append(problem)
