"""The connection to a Temporal server: its address and namespace, and the credentials that the environment has."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError, UsageError

if TYPE_CHECKING:
    from temporalio.client import Client
    from temporalio.runtime import PrometheusConfig, Runtime

SCHEME = "temporal://"
NAMESPACE = "default"
PORT = 7233
"""Port of Temporal's frontend."""
CONNECT_TIMEOUT = timedelta(seconds=10)
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Server:
    """A namespace of a Temporal server."""

    address: str
    """Host and port."""
    namespace: str = NAMESPACE

    @classmethod
    def at(cls, address: str, namespace: str = NAMESPACE) -> Server:
        """Check `HOST:PORT` or `HOST`. Raises UsageError."""
        whole = address if ADDRESS.fullmatch(address) else f"{address}:{PORT}"
        found = ADDRESS.fullmatch(whole)
        if found is None or not 0 < int(found[2]) < 65536:
            raise UsageError(f"{address!r} is not the address of a Temporal server", hint="write HOST:PORT")
        if not namespace:
            raise UsageError("the namespace is empty", hint=f"leave it out for '{NAMESPACE}'")
        return cls(whole, namespace)

    @classmethod
    def parse(cls, url: str) -> Server:
        """Parse `temporal://HOST:PORT/NAMESPACE`. Raises UsageError."""
        if not url.startswith(SCHEME):
            raise UsageError(f"engine {url!r} is not known", hint=f"write {SCHEME}HOST:PORT/NAMESPACE")
        address, _, namespace = url.removeprefix(SCHEME).removesuffix("/").partition("/")
        return cls.at(address, namespace or NAMESPACE)

    def __str__(self) -> str:
        return f"{SCHEME}{self.address}/{self.namespace}"


def quiet_runtime(metrics: PrometheusConfig | None = None) -> Runtime:
    """Return the engine of Temporal's library, without its log: it prints warnings into the result of a command."""
    from temporalio.runtime import Runtime, TelemetryConfig

    return Runtime(telemetry=TelemetryConfig(logging=None, metrics=metrics))


async def connect(
    server: Server, environment: Mapping[str, str], *, identity: str | None = None, runtime: Runtime | None = None
) -> Client:
    """Connect to a server. TLS and the API key come from Temporal's own variables and file. Raises CloudError."""
    from temporalio.client import Client
    from temporalio.envconfig import ClientConfig

    try:
        found: Any = ClientConfig.load_client_connect_config(override_env_vars=dict(environment))
        found |= {"target_host": server.address, "namespace": server.namespace}
        runtime = runtime or quiet_runtime()
        connecting = Client.connect(**found, identity=identity, runtime=runtime, connect_timeout=CONNECT_TIMEOUT)
        # The library's own limit is that of the TCP connection alone, so a server that says nothing would be awaited.
        return await asyncio.wait_for(connecting, CONNECT_TIMEOUT.total_seconds())
    except (RuntimeError, ValueError, OSError) as error:  # TimeoutError is an OSError
        raise CloudError(
            f"connecting to the Temporal server {server.address}: {_reason(error)}",
            code="TemporalUnavailable",
            hint="check the address and, for TLS, TEMPORAL_TLS, TEMPORAL_TLS_CLIENT_CERT_PATH or TEMPORAL_API_KEY;"
            " to try it here: temporal server start-dev",
        ) from error


def _reason(error: Exception) -> str:
    """Return the reason why a connection failed, without the names of the library's own types around it."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT.total_seconds():g} s"
    inner = re.findall(r'message: "([^"]+)"', str(error))
    return inner[-1] if inner else str(error)
