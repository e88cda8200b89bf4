"""Who we are for AWS and where it is: boto3 clients, one per service and region. boto3 reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, CredentialProvider, DeferredRefreshableCredentials
from botocore.loaders import Loader

from imagepipe import __version__
from imagepipe.cloud.credentials import NoCache, renew_when_expired
from imagepipe.cloud.errors import no_credentials, translating
from imagepipe.cloud.rate_limit import Pace
from imagepipe.errors import CloudError

CONNECT_SECONDS = 10
READ_SECONDS = 60
ATTEMPTS = 5
"""Standard mode: 4 more tries after the first, 20 s between them at most."""
FIRST_REGION = "us-east-1"
MODELS = Path(__file__).resolve().parent / "models"
"""EC2's model with the operations that we call alone (`trimmed_model`)."""
_NO_PROFILE = {"profile": (None, None, None, None)}
"""In place of botocore's own entry, which reads AWS_PROFILE: a profile that there is not would be an error."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the cloud is reached. A credential is here only for the local cloud, which gives its own."""

    profile: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    role: str | None = None
    """ARN of a role to assume with these credentials."""
    role_seconds: int = 3600
    """How long each set of the role's credentials is good for; new ones are asked for well before they end."""
    instance_endpoint_url: str | None = None
    """The endpoint as instances reach it, where that differs."""

    @property
    def is_local(self) -> bool:
        """On this machine: neither the user's AWS profile nor a proxy has a part in it."""
        return self.access_key_id is not None


class Session:
    """Makes clients. Safe from any thread; clients are shared."""

    def __init__(self, access: Access, pace: Pace | None = None) -> None:
        """`pace` holds back EC2's calls, of all clients together; without one they go as they come."""
        self._pace = pace
        with translating("opening an AWS session"):
            core = botocore.session.Session(session_vars=_NO_PROFILE if access.is_local else None)
            if access.profile:
                core.set_config_variable("profile", access.profile)  # first: what is asked of it next finds it, or none
            core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
            if access.role:
                _assume(core, access)
            self._session = boto3.Session(
                botocore_session=core,
                profile_name=access.profile,
                region_name=access.region,
                # Keys that are given outright would win over those of the role.
                aws_access_key_id=None if access.role else access.access_key_id,
                aws_secret_access_key=None if access.role else access.secret_access_key,
            )
        self.endpoint_url = access.endpoint_url
        self.instance_endpoint_url = access.instance_endpoint_url or access.endpoint_url
        self.is_local = access.is_local
        self._proxies: dict[str, str] | None = {} if access.is_local else None
        self._clients: dict[tuple[str, str, int, str | None, bool], Any] = {}
        self._lock = Lock()

    @property
    def region(self) -> str | None:
        """The region of the profile or environment."""
        name: str | None = self._session.region_name
        return name

    def check_credentials(self) -> None:
        """Raise CloudError, naming --local, where there are no credentials. Asks no cloud."""
        with translating("looking for credentials"):
            found = self._session.get_credentials()
        if found is None:
            raise no_credentials("looking for credentials")

    def account(self) -> str:
        """The id of the account that we are. Raises CloudError, also where an endpoint has no STS."""
        client = self.client("sts", self.region or FIRST_REGION, retries=False)
        with translating("asking whose the credentials are", service="sts"):
            return str(client.get_caller_identity()["Account"])

    def client(self, service: str, region: str, *, retries: bool = True) -> Any:
        """The client of a service in a region.

        Without retries for calls that EC2 has no client token for: a second try could do them twice.
        """
        return self._client(service, region, ATTEMPTS if retries else 1, self.endpoint_url)

    def client_of_instances(self, service: str, region: str, *, has_virtual_hosts: bool = False) -> Any:
        """A client that only signs: its URLs are those that instances reach.

        With virtual hosts, S3's URLs have the bucket in their host, and the region: boto3 signs for the endpoint of no
        region otherwise, which redirects for hours after a bucket was made, and knows no region that is opted in to
        (S3 user guide, "Virtual hosting of buckets"). An endpoint of one's own goes without.
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
            # boto3 signs URLs with version 2 in some regions otherwise, which binds neither ACL nor checksum.
            signature_version="s3v4" if service == "s3" else None,
            # What has a Content-MD5 needs no CRC beside it, which other endpoints than AWS's may not know.
            request_checksum_calculation="when_required" if service == "s3" else None,
            response_checksum_validation="when_required" if service == "s3" else None,
            s3={"addressing_style": "virtual"} if has_virtual_hosts else None,
        )
        with translating(f"connecting to {service} in {region}", service=service):
            try:
                made = self._session.client(service, region_name=region, endpoint_url=endpoint_url, config=config)
            except ValueError as error:
                raise CloudError(f"connecting to {service} in {region}: {error}") from error
        renew_when_expired(made, self._session.get_credentials())
        if self._pace is not None and service == "ec2":
            self._pace.hold(made)
        return made


@cache
def _loader(data_path: str | None) -> Loader:
    """The reader of AWS models, for all sessions of the process; for EC2 our short one, unless the user has another."""
    own = [Path(os.path.expandvars(path)).expanduser() for path in (data_path or "").split(os.pathsep) if path]
    return Loader(extra_search_paths=[*map(str, own), str(MODELS)])


class _OfRole(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    """The credentials of an assumed role, asked for again before they end, however long a build takes."""

    METHOD = "imagepipe-assume-role"

    def __init__(self, fetcher: AssumeRoleCredentialFetcher) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._fetcher.fetch_credentials, self.METHOD)


def _assume(core: botocore.session.Session, access: Access) -> None:
    """From here on a session is the role, with credentials that its own ones get from STS."""
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
