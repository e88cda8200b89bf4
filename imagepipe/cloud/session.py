"""Credentials, endpoint and botocore clients, one client per service and region. botocore reads the environment.

botocore without boto3: nothing of boto3's resources and transfers is used here, and they take 65 ms to load.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, CredentialProvider, DeferredRefreshableCredentials
from botocore.loaders import Loader

from imagepipe import __version__
from imagepipe.cloud.credentials import NoCache, renew_when_expired
from imagepipe.cloud.errors import no_credentials, translating
from imagepipe.cloud.rate_limit import Pace
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError
from imagepipe.values import HostPorts

CONNECT_SECONDS = 10
READ_SECONDS = 60
ATTEMPTS = 5
"""Attempts of botocore's standard mode: 4 retries with pauses of at most 20 s."""
FIRST_REGION = "us-east-1"
READING = ("Describe", "Get", "List", "Head")
"""Beginnings of the names of operations that change nothing."""
MODELS = Path(__file__).resolve().parent / "models"
"""Folder of EC2's model, trimmed to the operations that we call (`trimmed_model`)."""
_NO_PROFILE = {"profile": (None, None, None, None)}
"""Replaces botocore's entry that reads AWS_PROFILE, because a profile that does not exist would be an error."""


@dataclass(frozen=True, slots=True)
class Access:
    """The settings for reaching a cloud, with credentials only for the local cloud, which issues its own."""

    profile: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    role: str | None = None
    """ARN of a role to assume with these credentials."""
    role_seconds: int = 3600
    """Lifetime of the role's credentials in seconds; they are refreshed well before they expire."""
    instance_endpoint_url: str | None = None
    """Endpoint that instances use, if it differs."""
    host_ports: HostPorts = field(default_factory=HostPorts)

    @property
    def is_local(self) -> bool:
        """The cloud is on this computer: the user's AWS profile and proxies do not apply."""
        return self.access_key_id is not None


class Session:
    """Creates clients, which are shared; thread-safe."""

    def __init__(self, access: Access, pace: Pace | None = None) -> None:
        """`pace` limits the rate of EC2 calls of all clients together; without it, there is no limit."""
        self._pace = pace
        with translating("opening an AWS session"):
            core = botocore.session.Session(session_vars=_NO_PROFILE if access.is_local else None)
            if access.profile:
                core.set_config_variable("profile", access.profile)  # first, because the next lines read it
            core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
            if access.role:
                _assume(core, access)
            elif access.access_key_id:  # explicit keys would have priority over those of the role
                core.set_credentials(access.access_key_id, access.secret_access_key)
            if access.region:
                core.set_config_variable("region", access.region)
            self._session = core
        self.endpoint_url = access.endpoint_url
        self.instance_endpoint_url = access.instance_endpoint_url or access.endpoint_url
        self.host_ports = access.host_ports
        self.is_local = access.is_local
        self._proxies: dict[str, str] | None = {} if access.is_local else None
        self._clients: dict[tuple[str, str, int, str | None, bool], Any] = {}
        self._lock = Lock()
        self._checks: list[Callable[[], None]] = []

    def check_before_changes(self, check: Callable[[], None]) -> None:
        """Call this function before each call that is not a mere question; by raising it prevents the call."""
        self._checks.append(check)

    def _before_call(self, model: Any, **_: Any) -> None:
        if not model.name.startswith(READING):
            for check in self._checks:
                check()

    @property
    def region(self) -> str | None:
        """Return the region of the profile or environment."""
        name: str | None = self._session.get_config_variable("region")
        return name

    def check_credentials(self) -> None:
        """Raise CloudError, with a hint at --local, if there are no credentials. Makes no request."""
        with translating("looking for credentials"):
            found = self._session.get_credentials()
        if found is None:
            raise no_credentials("looking for credentials")

    def account(self) -> str:
        """Return the id of our account. Raises CloudError, also if an endpoint has no STS."""
        client = self.client("sts", self.region or FIRST_REGION, retries=False)
        with translating("looking up the account of these credentials", service="sts"):
            return str(client.get_caller_identity()["Account"])

    def client(self, service: str, region: str, *, retries: bool = True) -> Any:
        """Return the client of a service in a region.

        Use one without retries for calls that have no client token: a retry could create a second resource.
        """
        return self._client(service, region, ATTEMPTS if retries else 1, self.endpoint_url)

    def client_of_instances(self, service: str, region: str, *, has_virtual_hosts: bool = False) -> Any:
        """Return a client for signing URLs that instances can reach. It makes no requests itself.

        With `has_virtual_hosts`, S3's URLs have the bucket and the region in their host. Otherwise botocore signs for
        the global endpoint, which redirects for hours after a bucket was created and does not know opt-in regions
        (S3 user guide, "Virtual hosting of buckets"). A custom endpoint does not use virtual hosts.
        """
        endpoint = self.instance_endpoint_url
        return self._client(service, region, ATTEMPTS, endpoint, has_virtual_hosts and endpoint is None)

    def _client(
        self, service: str, region: str, attempts: int, endpoint_url: str | None, has_virtual_hosts: bool = False
    ) -> Any:
        key = (service, region, attempts, endpoint_url, has_virtual_hosts)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._make(*key)
            return self._clients[key]

    def _make(self, service: str, region: str, attempts: int, endpoint_url: str | None, has_virtual_hosts: bool) -> Any:
        config = Config(
            user_agent_extra=f"imagepipe/{__version__}",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=32,
            proxies=self._proxies,
            # Otherwise botocore signs URLs in some regions with version 2, which covers neither ACL nor checksum.
            signature_version="s3v4" if service == "s3" else None,
            # A request with Content-MD5 needs no CRC, which endpoints other than AWS may not support.
            request_checksum_calculation="when_required" if service == "s3" else None,
            response_checksum_validation="when_required" if service == "s3" else None,
            s3={"addressing_style": "virtual"} if has_virtual_hosts else None,
        )
        with translating(f"connecting to {service} in {region}", service=service):
            try:
                made = self._session.create_client(
                    service, region_name=region, endpoint_url=endpoint_url, config=config
                )
            except ValueError as error:
                raise CloudError(f"connecting to {service} in {region}: {error}") from error
        renew_when_expired(made, self._session.get_credentials())
        made.meta.events.register("before-call", self._before_call)
        if self._pace is not None and service == "ec2":
            self._pace.hold(made)
        return made


def has_profile(name: str) -> bool:
    """Return whether AWS's configuration files have a profile of this name."""
    return name in botocore.session.Session().available_profiles


@cache
def _loader(data_path: str | None) -> Loader:
    """Return the loader of API models for all sessions; EC2's is our trimmed one, unless the user has another."""
    own = [Path(os.path.expandvars(path)).expanduser() for path in (data_path or "").split(os.pathsep) if path]
    return Loader(extra_search_paths=[*map(str, own), str(MODELS)])


class _OfRole(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    """Credentials of an assumed role, refreshed before they expire for as long as a build takes."""

    METHOD = "imagepipe-assume-role"

    def __init__(self, fetcher: AssumeRoleCredentialFetcher) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._fetcher.fetch_credentials, self.METHOD)


def _assume(core: botocore.session.Session, access: Access) -> None:
    """Make a session assume the role: the session's own credentials fetch the role's from STS."""
    own = botocore.session.Session(profile=access.profile, session_vars=_NO_PROFILE if access.is_local else None)
    if access.access_key_id:
        own.set_credentials(access.access_key_id, access.secret_access_key)
    found = own.get_credentials()
    if found is None:
        raise no_credentials(f"assuming role {access.role}")

    def client(service: str, **keys: Any) -> Any:
        region = access.region or own.get_config_variable("region") or FIRST_REGION
        proxies = Config(proxies={}) if access.is_local else None
        return own.create_client(service, region_name=region, endpoint_url=access.endpoint_url, config=proxies, **keys)

    fetcher = AssumeRoleCredentialFetcher(
        client,
        found,
        access.role,
        extra_args={"RoleSessionName": "imagepipe", "DurationSeconds": access.role_seconds},
        cache=NoCache(),
    )
    core.get_component("credential_provider").insert_before("env", _OfRole(fetcher))
